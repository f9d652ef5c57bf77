"""The alerts of a run as text: when each fired, and below those of most weight why."""

from msgspec.structs import replace

from loadbench.alerts import QUANTITIES, limit_text, show
from loadbench.episodes import FOLLOWS, LIKELY, TRY
from loadbench.model import Rule
from loadbench.summary import Episode, Summary
from loadbench.units import SECOND, clock

_EXPLAINED = 5  # alerts with their verdict
_NOT_THE_TARGET = ("lateness", "silence", "cpu", "memory")


def alert_lines(summary: Summary, rules: tuple[Rule, ...]) -> list[str]:
    known = {rule.name: rule for rule in rules}
    lines = []
    ranked = sorted(summary.alerts, key=lambda found: _weight(found, summary, known))
    told = [found for found in ranked if found.verdict][:_EXPLAINED]
    for found in summary.alerts:
        lines.append(f"  ▲ {_episode(found, known)}")
        if any(found is one for one in told):
            lines += _why(found)
    if more := sum(bool(found.verdict) for found in summary.alerts) - len(told):
        lines.append(f"  · why {more} more of them fired stands in run.json")
    return ["", *lines] if lines else []


def _weight(found: Episode, summary: Summary, rules: dict[str, Rule]) -> tuple[bool, float]:
    """What the target does comes before what is measured of the machine and of us; then, the longer
    an alert lasted the more it says."""
    rule = rules.get(found.rule)
    end = summary.seconds if found.ended is None else found.ended
    return (rule.quantity if rule else found.rule) in _NOT_THE_TARGET, found.began - end


def _why(found: Episode) -> list[str]:
    """The verdict below an alert: what was measured, then the guess and what to try."""
    _, _, of = found.verdict[0].partition(FOLLOWS) if found.verdict else ("", "", "")
    measured = [line for line in found.verdict[1:] if not line.startswith((LIKELY, TRY))]
    guessed = [line for line in found.verdict if line.startswith((LIKELY, TRY))]
    if of and measured:  # the rest of its first sentence stands in the line above
        measured[0] = f"{of[:1].upper()}{of[1:].rstrip('.')}: {measured[0]}"
    return [f"    {' '.join(part)}" for part in (measured, guessed) if part]


def _episode(found: Episode, rules: dict[str, Rule]) -> str:
    rule = rules.get(found.rule)
    if rule and found.limit is not None:  # it may have been changed since
        rule = replace(rule, limit=found.limit)
    title = QUANTITIES[rule.quantity].title if rule else found.rule
    began = clock(found.began * SECOND)
    ended = clock(found.ended * SECOND) if found.ended is not None else "the end"
    text = f"alert {title}: {began} to {ended}"
    if rule:
        sign = ">" if rule.above else "<"
        peak = "" if found.peak is None else f", peak {show(rule, found.peak)}"
        text = f"alert {title} {sign} {limit_text(rule)}: {began} to {ended}{peak}"
    return f"{text} ({found.context})" if found.context else text
