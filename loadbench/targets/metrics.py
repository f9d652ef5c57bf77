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

from collections.abc import Iterable, Mapping
from typing import Any

from loadbench.model import Part, Server
from loadbench.targets.cards import cards
from loadbench.targets.exposition import Expression, Labels, Page, Term
from loadbench.targets.figures import MODEL_LABELS, TIMES, Wanted, mixed
from loadbench.targets.processes import (
    STARTED,
    Place,
    Reading,
    began_anew,
    doubtful,
    ended,
    fell,
    identity,
    late,
    marked,
    others,
    process_of,
    renamed,
    replaced,
    returned,
)

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


def read(found: Page, asked: Wanted) -> Reading:
    """The figures of one page."""
    several = mixed(found, asked.vocabulary, asked.shared)
    left_out = ("waiting", *asked.shared) if several else ("waiting",)
    counts = {
        Place(key, suffix, number, marked(labels, asked.process)): value
        for key, one in asked.figures.items()
        if key not in left_out
        for number, term in enumerate(one.terms)
        for suffix in ("", "_sum", "_count")
        for labels, value in _series(
            term, asked.model, found, suffix, one.ns if suffix != "_count" else None
        ).items()
    }
    waiting = _now(asked, found)
    told = {marked(labels, asked.process) for series in found.values() for labels in series}
    return Reading(
        counts,
        None if waiting is None else round(waiting),
        cards(found),
        started={marked(one, asked.process): at for one, at in found.get(STARTED, {}).items()},
        processes=frozenset(map(process_of, told)),
        there=frozenset(filter(None, map(identity, told))),
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
    anew = began_anew(earlier, later)
    known = {
        place: value
        for place, value in earlier.counts.items()
        if place in later.counts or place.whose not in anew
    }
    gone = frozenset(known.keys() - later.counts.keys())
    figures = renamed(earlier, later)
    moved = earlier.renamed | {place for place in gone if place.key in figures}
    return later._replace(
        counts={**known, **later.counts},
        gone=gone,
        renamed=moved & gone,
        started={**earlier.started, **later.started},
        processes=earlier.processes | later.processes,
        # whoever says that it started anew will soon be where it was
        fell={} if others(earlier, later) else fell(earlier, later),
        returns=earlier.returns + returned(earlier, later),
        ended=ended(earlier, later) if not replaced(earlier, later) else frozenset(),
    )


def difference(earlier: Reading, later: Reading, asked: Wanted) -> Server:
    """What the server did between two readings."""
    anew = began_anew(earlier, later)
    if doubtful(earlier, later, anew):
        return Server(asked.source, requests=None, rows=None, batches=None, failed=None)
    joined = late(earlier, later, anew)
    counts = {place: value for place, value in later.counts.items() if place not in joined}
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


def _patchy(
    earlier: Reading, later: Reading, key: str, new: Mapping[tuple[str, str], float]
) -> bool:
    """Whether something that a mean is made of was gone in one of two readings. A total of time is
    over the requests that the model was asked, which have to be there as well."""
    keys = (key,) if (key, "_sum") in new else (key, "requests", "cached")
    known = [place for place in earlier.counts if place.key in keys]
    here = {place.kind for place in later.counts}
    asked = {place.labels for place in later.counts if place.key == "requests"}
    # of a process that is gone all is, and what the others tell is whole without it
    over = ended(earlier, later) if all(identity(place.labels) for place in known) else ()
    for place in known:
        if identity(place.labels) in over and place.kind in here:
            continue
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
