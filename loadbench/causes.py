"""Why a request was slow: its way in stretches of time, and one sentence of cause.

The sentences are a fixed list (`CAUSES`): each is said only where what is in the log shows it, and
where nothing does, that is said. What is looked for first is the stretch that was longest beyond
what is usual; then what the log has to explain just that stretch.

Pure: a request, and what is known of the run around it (`Around`), in; a `Cause` out.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from loadbench import units
from loadbench.model import Part, Sample, Start, Window
from loadbench.ride import WHY_CLOSED
from loadbench.streams import NETWORK, RESTS, STREAMED, UNTOLD, rest
from loadbench.trust import cause as standstill
from loadbench.value import Value

# How a request's time is cut, in order; last what the server's own parts leave (`streams.rest`). Of
# a server that tells nothing server and network are not told apart: that is its answer, or where it
# comes piece by piece, its first token and the others.
LATE, HELD, SENDING = "late", "held", "sending"
QUEUE, WAIT, COMPUTE = "queue", "batch wait", "compute"
ANSWER, FIRST, OTHERS = "answer", "first token", "the others"
PARTS = (LATE, HELD, SENDING, QUEUE, WAIT, COMPUTE, *RESTS, ANSWER, FIRST, OTHERS)
_HOT = 0.95  # of a machine's cores, from where whoever wants one has to wait
_LONGEST = 60  # seconds before its end that are looked at
_UNUSUAL = 2.0  # times the usual
_NOT_SLOW = 1.5  # times the median of all: nothing stands out

CAUSES = {
    "generator-stall": "generator late {time}: not the server's fault ({why}, for {stood})",
    "generator-late": "generator late {time}: not the server's fault",
    "answer-unread": "{time} outside of queue, batch and compute; the load generator stood still"
    " for {stood} in that second: {why}",
    "untold-unread": "the target does not tell where {time} went; the load generator stood still"
    " for {stood} in that second: {why}",
    "connections": "waited {time} for a free connection: all {connections} were busy",
    "connecting": "connecting and sending took {time}",
    "failed": "failed as {failure} after {time}",
    "after-full": "arrived {after} after a full batch of {rows} closed, and waited {time} for it",
    "after-batch": "arrived {after} after a batch of {rows} closed ({reason}), and waited {time}",
    "behind-cold": "waited {time} for a cold shape: the batch before it was the first of its kind",
    "slow-before": "arrived {after} after a batch of {rows} closed, and waited {time} for it:"
    " {usual} is usual",
    "backlog": "waited {time} behind others: it was there before the batch before its own closed",
    "queue": "waited {time} in the server's queue",
    "held-back": "held back {time}: rode in a batch of {rows} ({reason})",
    "batch-wait": "held back {time} for a batch",
    "cold": "its batch ran a cold shape: {time}, the first of its kind ({usual} is usual)",
    "throttled": "its batch computed {time} while the GPU was throttled ({why})",
    "shared-gpu": "its batch computed {time} while others used the GPU (pid {why})",
    "slow-compute": "its batch of {rows} computed {time}; {usual} is usual",
    "compute": "its batch of {rows} computed {time}",
    "server": "the server took {time} for it, by its own account",
    "server-part": "the server took {time} for it, by its own account: most of it {part}, {most}",
    "busy-machine": "{time} passed outside of queue, batch and compute: CPU {why} % busy",
    "busy-untold": "the target does not tell where {time} went; the CPU here was {why} % busy",
    "outside": "nothing explains {time} outside of queue, batch and compute",
    "untold": "the target does not tell where {time} went",
    "first-token": "its first token took {time}: the target does not tell where they went",
    "tokens": "the tokens after the first took {time}: the target does not tell where they went",
    "usual": "nothing stands out: it took {time}, half of all took {usual}",
}  # fmt: skip


class Cause(Value, frozen=True):
    """A key of `CAUSES`, and the sentence with its numbers."""

    code: str
    text: str


class Around(Value, frozen=True):
    """What is known of the time of a request: the windows of the seconds from due to done, in
    order, what was usual in the stretch that is looked at, and how the run was begun."""

    windows: tuple[Window, ...] = ()
    usual: Window | None = None
    start: Start | None = None

    @property
    def then(self) -> Window | None:
        """When it ended."""
        return self.windows[-1] if self.windows else None


def latency(sample: Sample) -> int:
    """From due to done, in ns."""
    return sample.done - sample.due


def second(sample: Sample, start: Start | None) -> int | None:
    """Of the run, in which it ended; None if the log does not tell when the run began."""
    if start is None or start.origin_ns is None:
        return None
    return (sample.done - start.origin_ns) // units.SECOND


def seconds(sample: Sample, start: Start | None) -> range:
    """Of the run, from the one in which it was due to the one in which it ended."""
    last = second(sample, start)
    if last is None:
        return range(0)
    return range(last - min(_LONGEST, -(-latency(sample) // units.SECOND)), last + 1)


def tells(sample: Sample) -> bool:
    """Whether the server told anything of where its time went."""
    told = (sample.queue_ns, sample.batch_wait_ns, sample.compute_ns)
    return any(part is not None for part in told)


def stretches(sample: Sample) -> list[tuple[str, int]]:
    """(name, ns) of its way from due to done, without those that took no time; they add up to its
    latency. What a server tells of more time than there was is cut."""
    found = [(HELD if sample.held else LATE, sample.begun - sample.due)]
    found.append((SENDING, sample.sent - sample.begun))
    left = sample.done - sample.sent
    if not tells(sample):
        if sample.first is None:
            found.append((ANSWER, left))
        else:
            first = min(left, max(0, sample.first - sample.sent))
            found += [(FIRST, first), (OTHERS, left - first)]
        return [(name, length) for name, length in found if length > 0]
    for name, told in (
        (QUEUE, sample.queue_ns),
        (WAIT, sample.batch_wait_ns),
        (COMPUTE, sample.compute_ns),
    ):
        length = min(left, max(0, told or 0))
        found.append((name, length))
        left -= length
    known = [QUEUE] * (sample.queue_ns is not None) + [COMPUTE] * (sample.compute_ns is not None)
    found.append((rest(known, sample.first is not None), left))
    return [(name, length) for name, length in found if length > 0]


def explain(sample: Sample, around: Around) -> Cause:
    """The sentence for one request."""
    if sample.failure:
        return _say("failed", time=latency(sample), failure=sample.failure)
    parts = dict(stretches(sample))
    usual = _usual(around.usual)
    beyond = {name: length - usual.get(name, 0) for name, length in parts.items()}
    longest = max(beyond, key=lambda name: beyond[name], default="")
    if stood := _stood(longest, parts, around.windows):
        return stood
    median = around.usual.latency.quantile(0.5) if around.usual else None
    if median is not None and latency(sample) < _NOT_SLOW * median:
        return _say("usual", time=latency(sample), usual=median)
    time = parts.get(longest, 0)
    if longest == LATE:
        return _say("generator-late", time=time)
    if longest == HELD:
        connections = around.then.connections if around.then else 0
        return _say("connections", time=time, connections=connections or "of them")
    if longest == SENDING:
        return _say("connecting", time=time)
    if longest == QUEUE:
        return _queued(sample, time, usual.get(COMPUTE))
    if longest == WAIT:
        return _held_back(sample, time)
    if longest == COMPUTE:
        return _computed(sample, time, usual.get(COMPUTE), around)
    return _outside(longest, time, around.then)


def slowest(
    windows: Sequence[Window], whole: Window, start: Start | None, most: int
) -> Iterator[tuple[Sample, Cause]]:
    """The slowest requests of a run and why, the slowest first. `windows` are its seconds."""
    by_second = {window.second: window for window in windows}
    for sample in whole.slowest[:most]:
        then = tuple(by_second[at] for at in seconds(sample, start) if at in by_second)
        yield sample, explain(sample, Around(then, whole, start))


def plainly(sample: Sample, cause: Cause, start: Start) -> dict[str, Any]:
    """One of them for the summary; its names are stable."""
    ride = sample.ride
    return {
        "request": sample.request,
        "second": second(sample, start),
        "latency_ms": latency(sample) / units.MS,
        "failure": sample.failure,
        "parts_ms": {name: length / units.MS for name, length in stretches(sample)},
        "batch": None if sample.batch is None else {
            "rows": sample.batch,
            "number": ride.number if ride else None,
            "closed": ride.closed if ride else None,
        },
        "cause": cause.code,
        "text": cause.text,
    }  # fmt: skip


def _stood(longest: str, parts: dict[str, int], windows: Sequence[Window]) -> Cause | None:
    """Whether the load generator stood still for most of that stretch: it sent the request late, or
    read its answer late. Short standstills are not looked into, and have no cause."""
    if longest not in (LATE, SENDING, *RESTS, ANSWER, FIRST, OTHERS):
        return None
    found = max(windows, key=lambda window: window.stall_ns, default=None)
    if found is None or not found.stall_cause or found.stall_ns < parts[longest] / 2:
        return None
    code = "answer-unread" if _told(longest) else "untold-unread"
    if longest == LATE:
        code = "generator-stall"
    why = standstill(found.stall_cause)[0]
    return _say(code, time=parts[longest], stood=found.stall_ns, why=why)


def _queued(sample: Sample, time: int, compute_ns: int | None) -> Cause:
    ride = sample.ride
    if ride is None or ride.after_ns is None:
        return _say("queue", time=time)
    waited = (sample.queue_ns or 0) + (sample.batch_wait_ns or 0)
    after = ride.after_ns - waited  # the batch before was closed so long before it came
    if after < 0:
        return _say("backlog", time=time)
    long = compute_ns is not None and time > _UNUSUAL * compute_ns
    if ride.before_first and (long or compute_ns is None):
        return _say("behind-cold", time=time)
    if long:
        words = {"after": after, "time": time, "usual": compute_ns}
        return _say("slow-before", rows=ride.before_rows, **words)
    code = "after-full" if ride.before_closed == "full" else "after-batch"
    return _say(
        code, after=after, time=time, rows=ride.before_rows, reason=_words(ride.before_closed)
    )


def _held_back(sample: Sample, time: int) -> Cause:
    if sample.ride is None:
        return _say("batch-wait", time=time)
    return _say("held-back", time=time, rows=sample.batch, reason=_words(sample.ride.closed))


def _words(closed: str) -> str:
    return WHY_CLOSED.get(closed, closed)


def _computed(sample: Sample, time: int, usual: int | None, around: Around) -> Cause:
    slow = usual is not None and time > _UNUSUAL * usual
    if slow and sample.ride is not None and sample.ride.first:
        return _say("cold", time=time, usual=usual)
    throttle, others = _ground(around)
    if slow and throttle:
        return _say("throttled", time=time, why=", ".join(throttle))
    if slow and others:
        return _say("shared-gpu", time=time, why=", ".join(map(str, others)))
    rows = sample.batch or "unknown size"
    if sample.ride is None and sample.batch is None:
        part = max(sample.parts, key=sample.parts.__getitem__, default="")
        if not part:
            return _say("server", time=time)
        return _say("server-part", time=time, part=part, most=sample.parts[part])
    if slow:
        return _say("slow-compute", time=time, usual=usual, rows=rows)
    return _say("compute", time=time, rows=rows)


def _told(name: str) -> bool:
    """Whether the server's own parts are known beside this stretch, and outside of it."""
    return name not in (UNTOLD, ANSWER, FIRST, OTHERS)


_OUTSIDE = {NETWORK: "outside", STREAMED: "outside", FIRST: "first-token", OTHERS: "tokens"}


def _outside(longest: str, time: int, then: Window | None) -> Cause:
    machine = then.machine if then else None
    cpu = machine.cpu if machine else None
    if cpu is not None and cpu >= _HOT:
        code = "busy-machine" if _told(longest) else "busy-untold"
        return _say(code, time=time, why=units.percent(cpu))
    return _say(_OUTSIDE.get(longest, "untold"), time=time)


def _ground(around: Around) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """What throttled the card then, and the processes of others on it."""
    throttle: list[str] = []
    others: list[int] = []
    then, start = around.then, around.start
    for ground in then.server.grounds if then and then.server else ():
        throttle += ground.throttle
        others += ground.others
    for card in then.machine.gpus if then and then.machine else ():
        if start is not None and start.device == f"cuda:{card.index}":
            throttle += card.throttle
            others += [pid for pid, _ in card.processes]
    return tuple(dict.fromkeys(throttle)), tuple(dict.fromkeys(others))


def _usual(window: Window | None) -> dict[str, int]:
    """The median of each stretch of which the log has one; of what lies outside the server, what
    they leave of the median request."""
    if window is None:
        return {}
    server = window.server
    parts = (server.queue, server.batch_wait, server.compute) if server else (None, None, None)
    found = dict(zip((QUEUE, WAIT, COMPUTE), map(_middle, parts), strict=True))
    found[LATE] = window.lateness.quantile(0.5)
    known = {name: value for name, value in found.items() if value is not None}
    whole = window.latency.quantile(0.5)
    if COMPUTE in known and whole is not None:
        known |= dict.fromkeys(RESTS, max(0, whole - sum(known.values())))
    return known


def _middle(part: Part | None) -> int | None:
    if part is None or not part.count:
        return None
    return part.histogram.quantile(0.5) if part.histogram else round(part.mean_ns or 0)


_TIMES = ("time", "stood", "after", "usual", "most")


def _say(code: str, **words: object) -> Cause:
    told = {
        name: f"{units.ms(value)} ms" if name in _TIMES and isinstance(value, int) else value
        for name, value in words.items()
    }
    return Cause(code, CAUSES[code].format(**told))
