"""How sure the figures of a run are, in words: percentiles with bands, and what these rest on."""

import re

from loadbench.assurance import Band, Certainty
from loadbench.judge.bands import Bands
from loadbench.quantities import SPAN_S
from loadbench.streams import CHECKS
from loadbench.summary import CheckResult, Summary
from loadbench.units import count, percent, significant

# why the percentiles that alerts are told with have no ±
OF_ALERTS = f"percentiles of alerts are of {SPAN_S} s each: too short for ±"
_IN_A_NOTE = re.compile(r"\((p\d[\d.]*)\)")  # of how late the generator was
_SIGNS = {"passed": "✓", "failed": "✗", "no data": "○"}


def check_name(name: str) -> str:
    """As people read it: `p99.9`, `on time`."""
    return name.replace("_", " ").replace("p99 9", "p99.9")


def place(check: str) -> tuple[str, str]:
    """Where a summary has a percentile that is checked: (`latency_ms`, `p99`), of times of tokens
    (`first_token_ms`, `p99`)."""
    what, _, percentile = check.rpartition("_")
    return (f"{what}_ms", percentile) if check in CHECKS else ("latency_ms", check)


def bands_of(summary: Summary, what: str) -> Bands:
    """The bands of the percentiles of `latency_ms`, `service_ms`, `first_token_ms` …; those that
    have one."""
    return summary.bands_ms if what == "latency_ms" else summary.more_bands_ms.get(what, {})


def check_words(
    check: CheckResult, missed: float | None, band: tuple[float, float | None] | None = None
) -> str:
    """`✓ p99 46.2 ±1.1 ms < 100 ms`: on what was measured. `missed`: the share not answered well;
    `band` that of the percentile, in ms."""
    name = check_name(check.name)
    if check.state == "no data":
        return f"○ {name} {check.text}: no data"
    if check.value is None:
        value = f"> {significant(check.limit)} ms ({percent(missed)} % not answered well)"
        return f"{_SIGNS[check.state]} {name} {value}"
    value = percent(check.value) if check.unit == "%" else significant(check.value)
    value += within(check.value, band)
    unit = check.unit if check.unit.startswith("/") else f" {check.unit}"
    return f"{_SIGNS[check.state]} {name} {value}{unit} {check.text}"


def within(value: float | None, found: tuple[float, float | None] | None) -> str:
    """` ±1.1`, ` (≥ 44.1)` where nothing bounds it above; "" without a band. All in ms."""
    if value is None or found is None:
        return ""
    around = Band(*found).around(value)
    if around is None:
        return f" (≥ {significant(found[0])})"
    return f" ±{significant(around, 2)}"


def effect_words(found: Certainty, asked: int) -> str:
    """By how much requests depend on each other, or why that is not known."""
    if found.effect is None or found.effective is None:
        return found.why
    said = f"{count(asked)} requests say as much as {count(found.effective)} independent ones"
    return f"{said} (design effect {significant(found.effect, 2)})"


def rests_on(
    found: Certainty, asked: int, bands: bool, missing: dict[str, str] | None = None
) -> str:
    """What the bands rest on, or why there are none: of all, or of those `missing` (percentile →
    why)."""
    text = f"{'± holds at 95 %' if bands else 'no bands'}: {effect_words(found, asked)}"
    by_why: dict[str, list[str]] = {}
    for name, why in (missing or {}).items():
        by_why.setdefault(why, []).append(name)
    return text + "".join(f"; none of {', '.join(names)}: {why}" for why, names in by_why.items())


def of_notes(summary: Summary) -> list[str]:
    """The ± of the percentiles that its notes are told with, or why they have none."""
    names = dict.fromkeys(name for note in summary.notes for name in _IN_A_NOTE.findall(note.text))
    return [_late(name, summary) for name in names]


def _late(name: str, summary: Summary) -> str:
    key = name.replace(".", "_")
    value = summary.lateness_ms.get(key)
    sure = within(value, summary.more_bands_ms.get("lateness_ms", {}).get(key))
    if value is not None and sure:
        return f"the {name} by which requests were late: {significant(value)}{sure} ms"
    why = summary.no_bands.get("lateness_ms", {}).get(key) or summary.certainty.why
    return f"no ± of the {name} by which requests were late: {why or 'too few requests'}"
