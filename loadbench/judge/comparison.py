"""Two sides, each one run or several repeats: what differs between them first, then the figures
with a verdict on those that are gated.

n counts repeats, not requests: requests of one run are not independent of each other, so one run a
side never gives a verdict, however many requests it has. It gives numbers, and says so. What is
made of a verdict (an exit code) is for `gate`.
"""

import math
import re
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from loadbench.errors import SpecError, reason
from loadbench.judge import differences, metrics, order
from loadbench.judge.differences import Difference
from loadbench.judge.overall import middle
from loadbench.judge.shift import (
    FEWEST,
    LEVEL,
    LEVEL_INSIDE,
    Limits,
    Shift,
    between,
    further,
    holm,
    least_found,
    spread,
    word,
)
from loadbench.judge.side import (
    LOST,
    READS_LOG,
    Band,
    Side,
    Snapshot,
    band,
    beyond,
    cards,
    doubts,
    left_out,
    no_band,
    unbounded,
    values,
    whole,
)
from loadbench.model import Note, Value


class Terms(Value, frozen=True):
    """What is asked of a comparison: the gated metrics, how far each may move (a share), how often
    a verdict may be wrong, and whether different work is compared all the same."""

    metrics: tuple[str, ...] = ("p99",)
    margins: dict[str, float] = {}
    margin: float = 0.05
    level: float = LEVEL
    anyway: bool = False

    def margin_of(self, metric: str) -> float:
        return self.margins.get(metric, self.margin)


class Row(Value, frozen=True, omit_defaults=False):
    """One metric. `a` and `b` are the medians of the repeats, `shift` the ratio of B to A less
    one, `low` and `high` its one-sided bounds at the level of the verdict, `inside_low` and
    `inside_high` those at 95 %, by which a change is ruled out. `word` is empty where the metric
    is not gated; `why` says what stands in the way of a verdict. `mde` is the smallest regression
    that would be found in 95 % of all cases, `more` the further repeats on each side that would
    settle it. None stands for what is not known and for what has no number: a percentile among
    the requests not answered well, which counts as larger than any. `beyond` has the limit (ms)
    that such a median lies above."""

    metric: str
    unit: str
    a: float | None
    b: float | None
    n: tuple[int, int]
    a_values: tuple[float | None, ...] = ()
    b_values: tuple[float | None, ...] = ()
    beyond: tuple[float | None, float | None] = (None, None)
    shift: float | None = None
    low: float | None = None
    high: float | None = None
    inside_low: float | None = None
    inside_high: float | None = None
    word: str = ""
    why: str = ""
    margin: float | None = None
    mde: float | None = None
    more: int | None = None
    # where a percentile of a side of one run lies at 95 %, in ms; None also of medians
    bands: tuple[Band, Band] = (None, None)
    # why a percentile of a side has none; "" where it has one, and of what is no percentile
    no_bands: tuple[str, str] = ("", "")


class Comparison(Value, frozen=True, omit_defaults=False):
    """What `loadbench compare` shows. `order` has a letter for each repeat as they were made."""

    a: str
    b: str
    comparable: bool
    differences: tuple[Difference, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...]
    order: str = ""
    kept_up: tuple[bool, bool] | None = None  # None in a closed loop, which cannot fall behind

    @property
    def gated(self) -> tuple[Row, ...]:
        """The rows that have a verdict."""
        return tuple(row for row in self.rows if row.word)


def compare(a: Side, b: Side, terms: Terms | None = None) -> Comparison:
    """Compares two sides. Raises SpecError if one has no whole summary, if its repeats did
    different work, or if a gated metric is not known."""
    terms = terms or Terms()
    for name in terms.metrics:
        if name not in metrics.GATED:
            raise SpecError(
                f"there is no margin for {name!r}", f"known: {', '.join(metrics.GATED)}"
            )
    try:
        return _compared(whole(a), whole(b), terms, [*left_out(a), *left_out(b)])
    # what a file may hold
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        names = " or ".join(dict.fromkeys((a.name, b.name)))
        raise SpecError(f"the summary of {names} is damaged: {reason(error)}", READS_LOG) from error


def _compared(a: Side, b: Side, terms: Terms, missing: Sequence[Note]) -> Comparison:
    left, right = a.snapshots, b.snapshots
    work = differences.work(left[0], right[0])
    open_loop = all(one["spec"]["load"].get("arrivals") not in _CLOSED for one in (*left, *right))
    kept = (_kept_up(left), _kept_up(right)) if open_loop else None
    few = _too_few(len(left), len(right))
    lost = [note.text for note in missing if note.code == LOST]
    unfit = _unfit(a, b, bool(work) and not terms.anyway) or "; ".join(lost)
    why = unfit or few
    rows = list(_rows(a, b, terms.metrics))
    asked = [row.metric for row in rows if row.metric in terms.metrics]
    if kept == (True, True) and not unfit:  # how much was done is what was asked for
        settled = {row.metric for row in rows if all(row.n)} & {*_DONE}
        asked = [name for name in asked if name not in settled]
    rows = [_barred(row, why, why == few) for row in _judged(rows, asked, terms)]
    return Comparison(
        a=a.name,
        b=b.name,
        comparable=not work,
        differences=(*work, *differences.settings(left[0], right[0])),
        rows=tuple(rows),
        notes=(*missing, *_notes(a, b, work, kept if {*_DONE} & {*terms.metrics} else None)),
        order=order.letters(left, right),
        kept_up=kept,
    )


_CLOSED = ("closed", "journey")
_DONE = ("throughput", "tokens")


def _kept_up(side: Sequence[Snapshot]) -> bool:
    return all(metrics.kept_up(one["summary"]) for one in side)


def _unfit(a: Side, b: Side, different: bool) -> str:
    """Why nothing can be said however often it is repeated; empty if it can."""
    if different:
        return "different work"
    for sign, side in (("A", a), ("B", b)):
        if any(one["summary"].get("trust") == "invalid" for one in side.snapshots):
            return f"the figures of {sign} cannot be trusted"
        for one in side.snapshots:
            for note in one["summary"].get("notes", ()):
                if note["code"] == "altered":
                    return f"{one.get('run', '?')}: {note['text']}"
    return order.company(a.snapshots, b.snapshots)


def _too_few(m: int, n: int) -> str:
    if min(m, n) >= FEWEST:
        return ""
    return "1 run each" if m == n == 1 else f"{m} + {n} repeats: {FEWEST} + {FEWEST} are the fewest"


def _rows(a: Side, b: Side, asked: Sequence[str]) -> Iterable[Row]:
    """What either side has, and what is asked for: that neither has it is no reason to pass."""
    for metric in metrics.METRICS:
        left, right = (values(metric, side) for side in (a, b))
        if not left and not right and metric.name not in asked:
            continue
        yield Row(
            metric=metric.name,
            unit=metric.unit,
            a=middle(left),
            b=middle(right),
            n=(len(left), len(right)),
            a_values=tuple(left),
            b_values=tuple(right),
            beyond=(beyond(metric, a), beyond(metric, b)),
            bands=(band(metric, a), band(metric, b)),
            no_bands=(no_band(metric, a), no_band(metric, b)),
        )


def _judged(rows: Sequence[Row], asked: Sequence[str], terms: Terms) -> list[Row]:
    """The rows with their shifts, those asked for with a verdict."""
    shifts = {row.metric: one for row in rows if (one := _shift(row)) is not None}
    gated = [name for name in asked if name in shifts]
    worse = holm([shifts[name].p_worse for name in gated], terms.level)
    better = holm([shifts[name].p_better for name in gated], terms.level)
    levels = dict(zip(gated, zip(worse, better, strict=True), strict=True))
    strictest = terms.level / max(1, len(gated))
    found = []
    for row in rows:
        if row.metric in shifts:
            of = shifts[row.metric]
            row = _shifted(row, of, levels.get(row.metric, (terms.level, terms.level)))
            if row.metric in levels:
                row = _verdict(row, of, terms.margin_of(row.metric), levels[row.metric], strictest)
        elif row.metric in asked:
            who = "a side has" if any(row.n) else "the runs have"
            row = replace(row, word="inconclusive", why=f"{who} no {row.metric}")
        found.append(row)
    return found


def _barred(row: Row, why: str, few: bool) -> Row:
    """Without a verdict where there cannot be one; of `few` it is known what would help."""
    if not (row.word and why):
        return row
    return replace(row, word="inconclusive", why=why, more=row.more if few else None)


def _shift(row: Row) -> Shift | None:
    if row.unit == "%" or not all(row.n):
        return None
    return between(*_sides(row), metrics.BY_NAME[row.metric].larger_is_worse)


def _sides(row: Row) -> tuple[list[float], list[float]]:
    """The values; infinite where they are among the failed."""
    both = (row.a_values, row.b_values)
    a, b = ([math.inf if one is None else one for one in side] for side in both)
    return a, b


def _shifted(row: Row, found: Shift, levels: tuple[float, float]) -> Row:
    """With the shift and its bounds as the ratio of B to A less one."""
    up = metrics.BY_NAME[row.metric].larger_is_worse
    bounds = [(found.low(levels[0]), found.high(levels[1]))]
    bounds.append((found.low(LEVEL_INSIDE), found.high(LEVEL_INSIDE)))
    (low, high), (inside_low, inside_high) = (
        (_ratio(one, up), _ratio(other, up))[:: 1 if up else -1] for one, other in bounds
    )
    return replace(
        row,
        shift=_ratio(found.middle, up),
        low=low,
        high=high,
        inside_low=inside_low,
        inside_high=inside_high,
    )


def _ratio(log: float, up: bool) -> float | None:
    return math.expm1(log if up else -log) if math.isfinite(log) else None


def _verdict(
    row: Row, found: Shift, margin: float, levels: tuple[float, float], strictest: float
) -> Row:
    up = metrics.BY_NAME[row.metric].larger_is_worse
    limits = Limits(math.log1p(margin), -math.log1p(-margin))
    limits = limits if up else Limits(limits.good, limits.bad)
    said = word(found, limits, *levels)
    a, b = _sides(row)
    noise = spread(a, b)
    least = least_found(*((a, b) if up else (b, a)), limits.bad, strictest)
    more = further(found, noise, limits, strictest) if said == "inconclusive" else None
    mde = None if least is None else abs(math.expm1(least if up else -least))
    unknown = said == "inconclusive" and math.isnan(found.middle)
    why = f"{row.metric} is among the requests not answered well on both sides" if unknown else ""
    return replace(row, word=said, why=why, margin=margin, mde=mde, more=more)


def _notes(
    a: Side, b: Side, work: list[Difference], kept: tuple[bool, bool] | None
) -> Iterable[Note]:
    if work:
        names = ", ".join(dict.fromkeys(re.split(r"[.\[]", found.key)[0] for found in work))
        text = f"the two sides did different work ({names}): these deltas are not comparable"
        yield Note("different-work", text, "run the same scenario against both")
    sizes = [len(side.snapshots) for side in (a, b)]
    if sizes == [1, 1]:
        text = "one run a side: how much these figures move by themselves is not known"
        yield Note("single-runs", text, "run each side several times: --repeats 6")
    elif min(sizes) < FEWEST:
        text = f"{sizes[0]} + {sizes[1]} repeats give no verdict, however far apart the sides are"
        yield Note("few-repeats", text, f"make {FEWEST} of each at least: --repeats 6")
    if kept == (True, True):
        text = "both sides kept up: throughput is what was asked for, and has no verdict"
        yield Note("kept-up", text, "compare it in a closed loop, or ask for more than can be done")
    for side in (a, b):
        yield from doubts(side)
    yield from order.notes(a.snapshots, b.snapshots)
    for side in (a, b):
        yield from unbounded(side)
        yield from cards(side)


def terms_of(gates: Sequence[str], anyway: bool = False) -> Terms:
    """Terms as they are written: `p99=5%`, or `p99` with the usual margin; `p99_9`, as checks have
    it, is p99.9. SpecError if wrong."""
    usual = Terms(anyway=anyway)
    if not gates:
        return usual
    margins = {}
    for text in gates:
        typed, sign, share = text.partition("=")
        name = typed.strip().replace("p99_9", "p99.9")
        margins[name] = _share(share, text) if sign else usual.margin
        if name not in metrics.GATED:
            raise SpecError(
                f"--gate {text}: there is no margin for {name!r}",
                f"known: {', '.join(metrics.GATED)}",
            )
    return replace(usual, metrics=tuple(margins), margins=margins)


def _share(text: str, gate: str) -> float:
    number = text.strip().removesuffix("%").strip()
    try:
        found = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        found = math.nan
    if not 0 < found < 1:
        raise SpecError(
            f"--gate {gate}: {text!r} is no margin", "between 0 and 100 %, like --gate p99=5%"
        )
    return found
