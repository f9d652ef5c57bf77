"""The inside view of servers that tell of themselves in Prometheus's format: what a server did
between two readings. Which names are read, `figures` says.

Counters count since the server started. Where one is smaller than before, whatever counts for the
same model has begun anew: then all of it is new. So it is where the page tells when its process
started, and that is another moment. A name that is gone is a gap, also that of a model while those
of others go on. Counts that were missed are in the reading in which they are back; a mean is not,
for its time and its number would be of different spans.

Clients make a label's series when it is first used: a series that is new has counted since the
reading before, unless its process is new on the page, or it stands for others under other labels.
Then it may be of any age, and counts from its first reading on. A counter that falls and is back at
once where it was is none that was restarted: several processes answer for the page by turns, and
what came between two readings is not known.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from loadbench.machine import Gpu
from loadbench.model import Note, Part, Server
from loadbench.targets.cards import cards
from loadbench.targets.exposition import ON_PAGE, Expression, Labels, Page, Term
from loadbench.targets.figures import MODEL_LABELS, TIMES, Wanted, mixed
from loadbench.targets.restarted import restarted

# Labels that tell processes apart. Those of one host are on its page from their first request on,
# and so are never older than that; those of several may join it at any age.
_PROCESS = ("engine", "instance", "pod", "node", "hostname", "Hostname", ON_PAGE)
_OF_HOST = ("pid", "worker", "worker_id")
_WHOSE = (*MODEL_LABELS, "version", "model_version", *_PROCESS, *_OF_HOST)
_STARTED = "process_start_time_seconds"  # of Prometheus's own client libraries
_JITTER_S = 1.5  # some clients add it to the boot time, which Linux may tell a second off
_RETURNS = 2  # one alone may be a server that was restarted in the first seconds of its load
# Beyond the first a float does not count one by one any more; beyond the second are 292 years. A
# counter is not below zero either: that is no figure, as NaN is none.
_MOST = 1 << 53
_MOST_NS = 1 << 63


def _series(
    term: Term, model: str, found: Page, suffix: str = "", ns: int | None = None
) -> Mapping[Labels, float]:
    """The term's series, without those of other models; but a term that names its models itself
    knows better, as of a model that others are made of. `ns` is what one of a time's unit is."""
    fitting = {
        labels: value
        for labels, value in (term.series(found, suffix) or {}).items()
        if 0 <= value <= (_MOST_NS / ns if ns else _MOST)
    }
    if not model or any(name in MODEL_LABELS for name, _, _ in term.labels):
        return fitting
    return {labels: value for labels, value in fitting.items() if not _of_another(labels, model)}


def _of_another(labels: Labels, model: str) -> bool:
    models = {value for label, value in labels if label in MODEL_LABELS}
    return bool(models) and model not in models


class Place(NamedTuple):
    """Where a count stands: of which figure, the part of it ("", "_sum" or "_count"), the number of
    the term, the labels of the series."""

    key: str
    suffix: str
    number: int
    labels: Labels

    @property
    def whose(self) -> Labels:
        """What counts, and begins anew, together with it."""
        return tuple((name, value) for name, value in self.labels if name in _WHOSE)

    @property
    def kind(self) -> tuple[str, str, int]:
        return self.key, self.suffix, self.number


def _process(labels: Labels) -> Labels:
    return tuple((name, value) for name, value in labels if name in _PROCESS)


Counts = Mapping[Place, float]


class Reading(NamedTuple):
    """What a server has counted until now, and how it is at the moment. `gone` is what it told
    before, and did not tell in this reading; `fell` what had been more before, as it was then."""

    counts: Counts
    waiting: int | None
    gpus: tuple[Gpu, ...]
    gone: frozenset[Place] = frozenset()
    renamed: frozenset[Place] = frozenset()  # of those that are gone: they go by other labels now
    started: Mapping[Labels, float] = {}  # when each process did, of those that say so
    processes: frozenset[Labels] = frozenset()  # that the page has told of, by their labels
    fell: Counts = {}
    returns: int = 0  # how often all that fell was back at once


def read(found: Page, asked: Wanted) -> Reading:
    """The figures of one page."""
    several = mixed(found, asked.vocabulary, asked.shared)
    left_out = ("waiting", *asked.shared) if several else ("waiting",)
    counts = {
        Place(key, suffix, number, labels): value
        for key, one in asked.figures.items()
        if key not in left_out
        for number, term in enumerate(one.terms)
        for suffix in ("", "_sum", "_count")
        for labels, value in _series(
            term, asked.model, found, suffix, one.ns if suffix != "_count" else None
        ).items()
    }
    waiting = _now(asked, found)
    return Reading(
        counts,
        None if waiting is None else round(waiting),
        cards(found),
        started=found.get(_STARTED, {}),
        processes=frozenset(_process(labels) for series in found.values() for labels in series),
    )


def _now(asked: Wanted, found: Page) -> float | None:
    """Of the requests that wait; None where nothing tells of them now."""
    one = asked.figures.get("waiting")
    series = [(term.sign, _series(term, asked.model, found)) for term in one.terms] if one else []
    known = [(sign, values) for sign, values in series if values]
    return sum(sign * sum(values.values()) for sign, values in known) if known else None


def together(earlier: Reading, later: Reading) -> Reading:
    """The later one, with what is gone from it as it was: what it counted is not to be new when it
    is back. Of whoever began anew it is gone for good."""
    anew = _began_anew(earlier, later)
    known = {
        place: value
        for place, value in earlier.counts.items()
        if place in later.counts or place.whose not in anew
    }
    gone = frozenset(known.keys() - later.counts.keys())
    figures = _renamed(earlier, later)
    renamed = earlier.renamed | {place for place in gone if place.key in figures}
    return later._replace(
        counts={**known, **later.counts},
        gone=gone,
        renamed=renamed & gone,
        started={**earlier.started, **later.started},
        processes=earlier.processes | later.processes,
        fell=_fell(earlier, later),
        returns=earlier.returns + _returned(earlier, later),
    )


def difference(earlier: Reading, later: Reading, asked: Wanted) -> Server:
    """What the server did between two readings."""
    anew = _began_anew(earlier, later)
    if _doubtful(earlier, later, anew):
        return Server(asked.source, requests=None, rows=None, batches=None, failed=None)
    late = _late(earlier, later, anew)
    counts = {place: value for place, value in later.counts.items() if place not in late}
    later = later._replace(counts=counts)
    new: dict[tuple[str, str], float] = {}
    for place, value in later.counts.items():
        before = 0.0 if place.whose in anew else earlier.counts.get(place, 0.0)
        sign = asked.figures[place.key].terms[place.number].sign
        kind = place.key, place.suffix
        new[kind] = new.get(kind, 0.0) + sign * (value - before)

    def count(key: str, *parts: str) -> int | None:
        if key not in asked.figures or _gone(earlier, later, key):
            return None
        return _first(new, [(key, part) for part in parts])

    requests = count("requests", "", "_count")
    cached = count("cached", "") or 0
    if requests is not None:
        cached = min(requests, cached)
    known: dict[str, Any] = {
        key: _part(new, key, asked.figures[key], (requests or 0) - cached)
        for key in TIMES
        if key in asked.figures and not _patchy(earlier, later, key, new)
    }
    whole, compute = known.pop("whole", None), known.get("compute")
    if whole is not None and compute is not None:
        compute = _of_all_stages(earlier, later, anew, asked, whole.count) or compute
        known["compute"] = compute
        if "queue" not in asked.figures and compute.mean_ns is not None:
            left = whole.total_ns - compute.mean_ns * whole.count
            known["queue"] = _mean(whole.count, left)
    batches = "batch" in asked.figures and not _patchy(earlier, later, "batch", new)
    return Server(
        source=asked.source,
        requests=requests,
        failed=count("failed", ""),
        rows=_first(new, [("batch", "_sum")]) if batches else None,
        batches=_first(new, [("batch", "_count")]) if batches else None,
        waiting=later.waiting,
        cached=cached,
        cache_misses=count("cache_misses", "") or 0,
        **known,
    )


def _of_all_stages(
    earlier: Reading, later: Reading, anew: frozenset[Labels], asked: Wanted, requests: int
) -> Part | None:
    """The compute of that many requests, each of which goes through all stages: those count
    batches, of which one may have more than another. None if no batch of any has
    ended, and for a total of time."""
    stages: dict[str, dict[str, float]] = {}
    for place, value in later.counts.items():
        if place.key == "compute":
            before = 0.0 if place.whose in anew else earlier.counts.get(place, 0.0)
            found = stages.setdefault(dict(place.labels).get("stage", ""), {})
            found[place.suffix] = found.get(place.suffix, 0.0) + value - before
    means = [
        found["_sum"] / found["_count"]
        for found in stages.values()
        if found.get("_count", 0.0) > 0 and "_sum" in found
    ]
    ns = asked.figures["compute"].ns
    return _mean(requests, sum(means) * requests * ns) if means and ns else None


def _first(new: Mapping[tuple[str, str], float], kinds: Iterable[tuple[str, str]]) -> int:
    """The first that is told: some tell nothing of what has not come about yet. Names taken from
    one another may leave less than nothing, where they are not counted at the same moment."""
    return max(0, round(next((new[kind] for kind in kinds if kind in new), 0.0)))


def _gone(earlier: Reading, later: Reading, key: str) -> bool:
    """Whether a name that the figure is made of was told before, and is not there at all."""
    here = {place.kind for place in later.counts}
    return any(place.key == key and place.kind not in here for place in earlier.counts)


def _began_anew(earlier: Reading, later: Reading) -> frozenset[Labels]:
    """Of whom anything is less than before, or whose process is another: one that was restarted
    under load may soon have counted more than it had."""
    others = [
        frozenset(labels)
        for labels, moment in later.started.items()
        if abs(earlier.started.get(labels, moment) - moment) > _JITTER_S
    ]
    fell = _fell(earlier, later)
    return frozenset(
        place.whose
        for place in later.counts
        if place in fell or any(labels.issubset(place.labels) for labels in others)
    )


def _fell(earlier: Reading, later: Reading) -> Counts:
    """What is less than before, as it was before."""
    return {
        place: before
        for place, before in earlier.counts.items()
        if place in later.counts and later.counts[place] < before
    }


def _returned(earlier: Reading, later: Reading) -> bool:
    """Whether all that fell in the reading before is where it was again, or beyond; or whether the
    process started before the one that told last. One that was restarted does neither."""
    back = [later.counts.get(place, -1.0) >= before for place, before in earlier.fell.items()]
    older = (
        moment < earlier.started.get(labels, moment) - _JITTER_S
        for labels, moment in later.started.items()
    )
    return (bool(back) and all(back)) or any(older)


def _doubtful(earlier: Reading, later: Reading, anew: Collection[Labels]) -> bool:
    """Whether the two may be of different processes, neither of which began between them."""
    if _by_turns(earlier, later) or _returned(earlier, later):
        return True
    return earlier.returns > 0 and bool(anew)


def _by_turns(earlier: Reading, later: Reading) -> bool:
    """Whether several processes answer for the page."""
    return earlier.returns + _returned(earlier, later) >= _RETURNS


def _late(earlier: Reading, later: Reading, anew: Collection[Labels]) -> frozenset[Place]:
    """What is new, and has not counted since the reading before alone. Where nothing of its name
    was told before nothing was, and those whose process began anew count from zero."""
    before, renamed = _by_kind(earlier.counts), _renamed(earlier, later)
    return frozenset(
        place
        for place in later.counts.keys() - earlier.counts.keys()
        if place.kind in before
        and place.whose not in anew
        and (place.key in renamed or _process(place.labels) not in earlier.processes)
    )


def _renamed(earlier: Reading, later: Reading) -> frozenset[str]:
    """The figures of which no series is there any more, but others that count no less: the same
    ones, under other labels. What they went by before those is counted there already."""
    before = _by_kind({
        place: value for place, value in earlier.counts.items() if place not in earlier.renamed
    })  # fmt: skip
    now = _by_kind(later.counts)
    kept = {place.key for place in earlier.counts.keys() & later.counts.keys()}
    kinds: dict[str, list[bool]] = {}
    for kind, value in before.items():
        kinds.setdefault(kind[0], []).append(0 < value <= now.get(kind, -1.0))
    return frozenset(key for key, same in kinds.items() if key not in kept and all(same))


def _by_kind(counts: Counts) -> dict[tuple[str, str, int], float]:
    total: dict[tuple[str, str, int], float] = {}
    for place, value in counts.items():
        total[place.kind] = total.get(place.kind, 0.0) + value
    return total


def remarks(earlier: Reading, later: Reading, where: str) -> Iterator[Note]:
    """What there is to say of two readings of the pages there."""
    anew = _began_anew(earlier, later)
    if _by_turns(earlier, later):
        yield Note(
            "inside-by-turns",
            f"the counters of {where} fall and are back at once: several processes answer for it by"
            " turns, each with its own, so from here on no figures of the server are told",
            "what was told since they fell first is wrong; give its processes a registry that they"
            " share, as prometheus_client's multiprocess mode, or run one",
        )
    if _doubtful(earlier, later, anew):
        return
    if anew:
        yield restarted(where)
    if late := sorted(_late(earlier, later, anew)):
        labels = ", ".join(f'{name}="{value}"' for name, value in late[0].labels)
        yield Note(
            "inside-late",
            f"{where} tells of {{{labels}}} only now, and not what that counted before: it is in"
            " the figures from here on",
            "has a process joined, or were labels changed? Of a process that is new its first"
            " second is missing",
        )


def _patchy(
    earlier: Reading, later: Reading, key: str, new: Mapping[tuple[str, str], float]
) -> bool:
    """Whether something that a mean is made of was gone in one of two readings. A total of time is
    over the requests that the model was asked, which have to be there as well."""
    keys = (key,) if (key, "_sum") in new else (key, "requests", "cached")
    known = [place for place in earlier.counts if place.key in keys]
    here = {place.kind for place in later.counts}
    asked = {place.labels for place in later.counts if place.key == "requests"}
    for place in known:
        if place in later.counts:
            if place in earlier.gone:
                return True
        # one of several series may be gone for good, of a model that was unloaded
        elif place not in earlier.gone or place.kind not in here or place.labels in asked:
            return True
    return False


def _part(
    new: Mapping[tuple[str, str], float], key: str, one: Expression, requests: int
) -> Part | None:
    """A histogram's or summary's own count, or a total of time over what the model answered."""
    assert one.ns is not None
    if (key, "_sum") in new:
        count = round(new.get((key, "_count"), 0.0) / max(1, len(one.terms)))
        return _mean(count, new[key, "_sum"] * one.ns)
    if (key, "") in new:
        return _mean(requests, new[key, ""] * one.ns)
    return None


def _mean(count: int, total_ns: float) -> Part | None:
    """None for less than no time: of names taken from one another, at different moments."""
    return Part(count, round(total_ns)) if count >= 0 and total_ns >= 0 else None
