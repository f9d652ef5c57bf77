"""What the commands mean that change a run's alert rules while it goes on. Pure.

    {"command": "alert", "when": "p99 > 200 ms", "for": "10s"}     changed, or added
    {"command": "alert", "when": "p99 > 200 ms", "for": "off"}     no longer

It is the form that a scenario's `[[alert]]` has: same quantity and side replaces.
"""

from collections.abc import Sequence
from typing import Any

from loadbench import alerts, units
from loadbench.errors import SpecError
from loadbench.model import Rule

COMMANDS = ("alert", "acknowledge")
_MOST, _LONGEST = 40, 200  # rules; characters of one


def rewritten(command: dict[str, Any], rules: Sequence[Rule]) -> tuple[tuple[Rule, ...], str]:
    """The rules from now on, and what was changed in words. ValueError if it is no rule, or
    changes nothing."""
    when, length = command.get("when"), command.get("for", "5s")
    if not isinstance(when, str) or len(when) > _LONGEST:
        raise ValueError('give a rule: {"command": "alert", "when": "p99 > 100 ms", "for": "5s"}')
    if not isinstance(length, str):
        raise ValueError('"for" is a time like "5s", or "off"')
    off = length.strip() == "off"
    try:
        wanted = alerts.parse_rule(when, 0 if off else units.parse_duration(length))
    except SpecError as error:
        raise ValueError(f"{error.message}: {error.hint}") from error
    before = alerts.matching(rules, wanted)
    after = alerts.changed(rules, [(wanted, off)])
    if after == tuple(rules):
        raise ValueError("there is no such rule" if off else "the rule is so already")
    if len(after) > _MOST:
        raise ValueError(f"no more than {_MOST} rules")
    if before is None:
        return after, f"alert added: {alerts.describe(wanted)}"
    if off:
        return after, f"alert off: {alerts.describe(before)}"
    return after, f"alert changed: {alerts.describe(wanted)} (was {alerts.condition(before)})"
