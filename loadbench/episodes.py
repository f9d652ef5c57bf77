"""Episodes: the times at which alert rules were beyond their limits, as a history tells them.

One is pending, then fires, then ends; one that never fired is none. Made from a log's changes of
state, one after the other.
"""

from msgspec.structs import replace

from loadbench.model import AlertChange, Rule
from loadbench.value import Value

_MOST = 500
LIKELY, TRY = "Likely: ", "Try: "  # how sentences of a verdict begin
FOLLOWS = "; what follows is "  # and how the first goes on: `of 04:40-05:10.`


class Spell(Value, frozen=True):
    """`rule` is as it was at its last change; `fired` None while it is pending, `ended` None while
    it goes on, `value` and `peak` None where a percentile falls among the failed."""

    rule: Rule
    began: int
    fired: int | None = None
    ended: int | None = None
    value: float | None = None
    peak: float | None = None
    context: str = ""
    words: tuple[str, ...] = ()
    acknowledged: bool = False
    worst: int | None = None  # in which second it was at its peak

    @property
    def firing(self) -> bool:
        return self.fired is not None and self.ended is None

    def seconds(self, now: int) -> int:
        """How long it lasted, or has lasted until now."""
        return max(1, (now if self.ended is None else self.ended) - self.began)


def following(spells: tuple[Spell, ...], rule: Rule, change: AlertChange) -> tuple[Spell, ...]:
    """The episodes after one more change of a rule's state."""
    at = next(
        (
            index
            for index in range(len(spells) - 1, -1, -1)
            if spells[index].rule.name == rule.name and spells[index].ended is None
        ),
        None,
    )
    before = spells[at] if at is not None else None
    after = _after(before, rule, change)
    rest = spells if at is None else spells[:at] + spells[at + 1 :]
    if after is None:
        return rest
    if at is None:
        return (*rest[1 - _MOST :], after)
    return (*rest[:at], after, *rest[at:])


def _after(before: Spell | None, rule: Rule, change: AlertChange) -> Spell | None:
    """The rule's open episode after the change; None if there is none, or it never fired."""
    if change.limit is not None:
        rule = replace(rule, limit=change.limit)
    began = change.second if change.since is None else change.since
    if change.state == "pending":
        return Spell(rule, began, value=change.value, peak=change.peak)
    if change.state != "firing":
        if before is None or before.fired is None:
            return None
        words = change.words or before.words
        end, peak, worst = change.second, change.peak, change.worst
        return replace(before, ended=end, peak=peak, words=words, worst=worst)
    if before is None or before.fired is None:
        told = Spell(rule, began, change.second, None, change.value, change.peak, change.context)
        seen = change.acknowledged
        return replace(told, words=change.words, acknowledged=seen, worst=change.worst)
    return replace(
        before,
        peak=change.peak,
        worst=change.worst,
        words=change.words or before.words,
        acknowledged=before.acknowledged or change.acknowledged,
    )


def likely(words: tuple[str, ...]) -> str:
    """The guess among a verdict's sentences, with its mark; "" if there is none."""
    return next((line for line in words if line.startswith(LIKELY)), "")
