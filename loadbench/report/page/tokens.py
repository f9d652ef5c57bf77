"""When the tokens of streamed answers came: the first of each, those after it, and how many."""

from typing import Any

from loadbench.histogram import Histogram
from loadbench.report.certain import bands_of
from loadbench.report.markup import Child, Markup, tag
from loadbench.report.page.course import joined_grid
from loadbench.report.page.figures import distribution, spread
from loadbench.report.page.material import Material
from loadbench.report.page.sections import around, figure, key, section, table, unbounded
from loadbench.report.text import tokens_counted
from loadbench.streams import PERCENTILES, TIMES
from loadbench.summary import Summary
from loadbench.units import count, significant

_ROWS = (
    ("first_token", "first token, from when its request was due"),
    ("token_gap", "from one token to the next"),
    ("token_pace", "mean of each answer, after its first token"),
)


def tokens(material: Material) -> Markup | None:
    """None where answers come as a whole."""
    summary, stream = material.summary, material.total.whole.stream
    found = summary.tokens
    if found is None or stream is None:
        return None
    rows = [[title, *_times(f"{name}_ms", summary, found)] for name, title in _ROWS]
    heads = ("", *(f"{percentile} ms" for percentile in PERCENTILES), "longest ms")
    drawn = [
        _spread(title, TIMES[name](stream), of)
        for name, title, of in (
            ("first_token", "First token", "answers"),
            ("token_gap", "Between tokens", "tokens"),
        )
        if TIMES[name](stream).count
    ]
    whys = (why for name in TIMES for why in summary.no_bands.get(f"{name}_ms", {}).values())
    return section(
        "Tokens",
        tag("p", tokens_counted(found), class_="verdict"),
        table(heads, rows, wide=(0,)),
        unbounded(whys),
        joined_grid(drawn, "two") if drawn else None,
        name="tokens",
    )


def _times(name: str, summary: Summary, found: dict[str, Any]) -> list[Child]:
    bands = bands_of(summary, name)
    cells = [around(significant(found[name][one]), bands.get(one)) for one in PERCENTILES]
    return [*cells, significant(found[name]["max"])]


def _spread(title: str, found: Histogram, of: str) -> Markup:
    bars = spread(found)
    low, high = significant(bars[0].low), significant(bars[-1].high)
    words = f"{title}: distribution of {count(found.count)} {of}, from {low} to {high} ms."
    return figure(title, distribution(bars, None, words, of), key("area", of, count(found.count)))
