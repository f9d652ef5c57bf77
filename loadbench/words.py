"""The verdict in words: why an alert fires. First what was measured, with its numbers, the cause
first; then one guess, marked `Likely`, and what to try.

The same stretch of a run is told in the same words live, in the log, at the end of the run and in
what is sent out. The list of causes is `diagnoses`. Single slow requests are not looked at, nor
whether a run can be trusted (`trust`).
"""

from typing import NamedTuple

from loadbench import units
from loadbench.alerts import QUANTITIES, limit_text, show
from loadbench.diagnoses import diagnoses
from loadbench.episodes import FOLLOWS, LIKELY, TRY
from loadbench.explained import EXPLAINED_BY
from loadbench.model import AlertChange, Rule
from loadbench.quantities import NEWEST, SPAN_S
from loadbench.sentences import finished
from loadbench.situation import Situation, parts_ms, stretches
from loadbench.units import percent, significant

_SLOWER = 1.3  # times as long: another time
_ABOUT_TIME = ("p50", "p95", "p99", "queue_growth", "in_flight", "throughput")


class Verdict(NamedTuple):
    """Sentences for people: `said` is measured, `likely` a guess ("" for none)."""

    said: tuple[str, ...]
    likely: str
    hint: str
    code: str

    @property
    def lines(self) -> tuple[str, ...]:
        """All of it, as it stands in the log."""
        guess = (finished(f"{LIKELY}{self.likely}"),) if self.likely else ()
        return (*self.said, *guess, finished(f"{TRY}{self.hint}"))


def explain(situation: Situation, rule: Rule, change: AlertChange | None = None) -> Verdict:
    """Why a rule fires, or fired. `change` is where it stands; None if it never did."""
    found = diagnoses(situation)
    first = found[0]
    failed = bool(situation.now.failed or situation.now.unsent or situation.now.lost)
    own, _ = EXPLAINED_BY.get(rule.quantity, ((), None))
    again = any(finding.code in own for finding in found[:2])
    head = [] if change is None else [_headline(rule, change, failed, again)]
    split = _split(situation) if rule.quantity in _ABOUT_TIME else ""
    said = (*head, *filter(None, [split]), *(finding.text for finding in found[:2]))
    return Verdict(said, first.guess, first.hint, first.code)


def _headline(rule: Rule, change: AlertChange, failed: bool, again: bool) -> str:
    """`p99 latency: up to 184 ms (limit 100 ms) for the last 22 s.`, and of a long episode which
    seconds the sentences after it are of; so too where they tell the same quantity `again`: a rule
    looks at ten seconds, they at others. A percentile without a number lies among what failed, or
    where nothing did, among what is open for longer than the limit."""
    ended = change.state != "firing"
    title = QUANTITIES[rule.quantity].title
    limit = f"limit {limit_text(rule)}"
    peak = show(rule, change.peak)
    since = change.second if change.since is None else change.since
    length = units.duration(max(1, change.second - since + (not ended)) * units.SECOND)
    if rule.quantity == "silence":
        return f"No figures came for {peak} ({limit})."
    side = "up" if rule.above else "down"
    among = "among the failed" if failed else "among those still unanswered"
    far = among if change.peak is None else f"{side} to {peak}"
    if again and rule.quantity not in NEWEST:
        far += f" in {SPAN_S} s"
    text = f"{title}: {far} ({limit}) for {'' if ended else 'the last '}{length}"
    looked_at, _ = stretches(change, rule)
    if looked_at.begin <= since and not again:
        return f"{text}."
    begin, end = (units.clock(second * units.SECOND) for second in looked_at)
    worst = ended and change.worst is not None and looked_at.begin > since
    of = "its worst, " if worst else ""
    return f"{text}{FOLLOWS}of {of}{begin}-{end}."


def _split(now: Situation) -> str:
    """`Queue wait makes up 71 % of the mean request; compute is unchanged (6.4 ms).`"""
    parts, mean = now.parts_ms, now.mean_ms
    if not parts or not mean:
        return ""
    rest = "what the server does not tell" if now.untold else "outside the server"
    parts[rest] = max(0.0, mean - sum(parts.values()))
    name = max(parts, key=lambda name: parts[name])
    title = "Queue wait" if name == "queue" else name[:1].upper() + name[1:]
    made = f"{title} makes up {percent(min(1.0, parts[name] / mean))} % of the mean request"
    text = f"{made} ({significant(mean)} ms)" if name == "compute" else made
    compute, before = parts.get("compute"), parts_ms(now.before.server if now.before else None)
    if compute is None or name == "compute":
        return f"{text}."
    if (earlier := before.get("compute")) is None:
        return f"{text}; compute takes {significant(compute)} ms."
    if max(compute, earlier) < _SLOWER * max(min(compute, earlier), 1e-9):
        return f"{text}; compute is unchanged ({significant(compute)} ms)."
    return f"{text}; compute took {significant(earlier)} ms before, now {significant(compute)} ms."
