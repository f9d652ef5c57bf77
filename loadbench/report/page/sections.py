"""What all sections of a page are made with: headings, captions, keys, tables, CSV to take away."""

from collections.abc import Iterable, Sequence

from loadbench.report.markup import Child, Markup, joined, tag
from loadbench.units import significant


def section(title: str, *inside: Child, name: str | None = None) -> Markup:
    """A part of the page under its heading."""
    return tag("section", tag("h2", title), *inside, id=name)


def figure(title: str, picture: Markup, *keys: Child) -> Markup:
    """A chart under its caption, with what its colours and strokes stand for."""
    return tag("figure", tag("figcaption", tag("h3", title), *keys), picture)


def key(kind: str, name: str, value: str = "", stroke: str = "") -> Markup:
    """A colour or a stroke (`stroke`, `dashed`), its name and its value."""
    sign = tag("i", class_=f"{kind} {stroke}".strip())
    said = joined(" ", tag("b", value)) if value else None
    return tag("span", sign, name, said, class_="key")


def line_key(kind: str, name: str) -> Markup:
    """A line as it is drawn, and its name."""
    drawn = tag("path", class_=f"line {kind}", d="M0 6H26")
    sign = tag("svg", drawn, class_="swatch", aria_hidden="true", width=26, height=12)
    return tag("span", sign, name, class_="key")


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[Child]],
    left: Iterable[int] = (0,),
    total: int | None = None,
    wide: Iterable[int] = (),
) -> Markup:
    """Columns in `left` are set to the left, those in `wide` may break their lines; the row `total`
    stands out. It scrolls by itself where there is no room for it."""
    lefts, wides = set(left), set(wide)

    def kind(column: int) -> str | None:
        found = ["left"] * (column in lefts) + ["wide" if column in wides else "nowrap"]
        return " ".join(found) or None

    head = tag(
        "tr", [tag("th", name, class_=kind(at), scope="col") for at, name in enumerate(heads)]
    )
    body = [
        tag(
            "tr",
            [_cell(cell, kind(at)) for at, cell in enumerate(row)],
            class_="total" if number == total else None,
        )
        for number, row in enumerate(rows)
    ]
    whole = tag("table", tag("thead", head), tag("tbody", body))
    return tag("div", whole, class_="scroll")


def _cell(cell: Child, kind: str | None) -> Markup:
    if isinstance(cell, Markup) and cell.startswith("<td"):
        return cell
    return tag("td", cell, class_=kind)


def around(shown: str, found: tuple[float, float | None] | None) -> Child:
    """A percentile over its interval (ms), if it has one."""
    if found is None:
        return shown
    low, high = found
    words = f"{significant(low)} {f'to {significant(high)}' if high is not None else 'upwards'}"
    return joined(shown, tag("div", words, class_="quiet small"))


def unbounded(whys: Iterable[str | None]) -> Markup | None:
    """Why some of the percentiles above have no interval; None stands for one that has."""
    found = dict.fromkeys(filter(None, whys))
    return quiet(f"No interval of some: {'; '.join(found)}.") if found else None


def quiet(*words: Child) -> Markup:
    return tag("p", *words, class_="quiet small")


def signed(sign: str, kind: str, *words: Child) -> Markup:
    """An entry of a list with its sign."""
    return tag("li", tag("span", sign, class_=f"sign {kind}"), *words)


def entries(found: Iterable[Markup]) -> Markup | None:
    """A list without bullets; nothing for nothing."""
    items = list(found)
    return tag("ul", items, class_="plain") if items else None


def csv(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """A table to be taken away: CSV, folded up."""
    lines = [",".join(map(_field, line)) for line in (heads, *rows)]
    name = f"{title}: CSV, {len(rows):,} rows"
    return tag("details", tag("summary", name), tag("pre", "\n".join(lines), tabindex=0))


def _field(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if text.startswith(("=", "+", "@")) or (text.startswith("-") and not _number(text)):
        text = f"'{text}"  # what a spreadsheet would take for a formula
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def _number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).replace("e", "", 1).replace("-", "").isdigit()
