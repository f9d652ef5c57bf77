"""Whose counts on a page of metrics are whose: which processes tell of themselves there, which of
them began anew between two readings, joined, or are gone. What they counted is for `metrics`.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from loadbench.machine import Gpu
from loadbench.model import Note
from loadbench.targets.exposition import ON_PAGE, Labels
from loadbench.targets.figures import MODEL_LABELS
from loadbench.targets.restarted import restarted

# Labels that tell processes apart. Those of one host are on its page from their first request on,
# and so are never older than that; those of several may join it at any age.
_PROCESS = ("engine", "instance", "pod", "node", "hostname", "Hostname", ON_PAGE)
_OF_HOST = ("pid", "worker", "worker_id")
_WHOSE = (*MODEL_LABELS, "version", "model_version", *_PROCESS, *_OF_HOST)
_NAMED = "process "  # how a label is marked that the scenario names: as no server can have it
STARTED = "process_start_time_seconds"  # of Prometheus's own client libraries
_JITTER_S = 1.5  # some clients add it to the boot time, which Linux may tell a second off
_SHOWN = 4  # processes, in a note
_MANY, _ALMOST = 100, 0.9  # a few are soon counted again
_RETURNS = 2  # one alone may be a server that was restarted in the first seconds of its load


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
        return tuple(
            (name, value) for name, value in self.labels if name in _WHOSE or _is_named(name)
        )

    @property
    def kind(self) -> tuple[str, str, int]:
        return self.key, self.suffix, self.number


def process_of(labels: Labels) -> Labels:
    """What tells a process that may join at any age from others."""
    return tuple((name, value) for name, value in labels if name in _PROCESS or _is_named(name))


def identity(labels: Labels) -> Labels:
    """What tells a process from others; nothing where no label does."""
    known = (*_PROCESS, *_OF_HOST)
    return tuple((name, value) for name, value in labels if name in known or _is_named(name))


def marked(labels: Labels, named: Collection[str]) -> Labels:
    """With the marks of those that the scenario says tell processes apart."""
    if not named:
        return labels
    return tuple((_NAMED + name if name in named else name, value) for name, value in labels)


def _is_named(name: str) -> bool:
    return name.startswith(_NAMED)


def _shown(labels: Labels) -> str:
    return ", ".join(f'{name.removeprefix(_NAMED)}="{value}"' for name, value in labels)


Counts = Mapping[Place, float]


class Reading(NamedTuple):
    """What a server has counted until now, and how it is at the moment. `gone` is what it told
    before, and did not tell in this reading; `fell` what had been more before, as it was then;
    `there` are the processes that the page tells of, `ended` those that are gone from it, as long
    as none has come in their stead."""

    counts: Counts
    waiting: int | None
    gpus: tuple[Gpu, ...]
    gone: frozenset[Place] = frozenset()
    renamed: frozenset[Place] = frozenset()  # of those that are gone: they go by other labels now
    started: Mapping[Labels, float] = {}  # when each process did, of those that say so
    processes: frozenset[Labels] = frozenset()  # that the page has told of, by their labels
    fell: Counts = {}
    returns: int = 0  # how often all that fell was back at once
    there: frozenset[Labels] = frozenset()
    ended: frozenset[Labels] = frozenset()


def began_anew(earlier: Reading, later: Reading) -> frozenset[Labels]:
    """Of whom anything is less than before, or whose process is another: one that was restarted
    under load may soon have counted more than it had."""
    less, started = fell(earlier, later), others(earlier, later)
    return frozenset(
        place.whose
        for place in later.counts
        if place in less or any(labels.issubset(place.labels) for labels in started)
    )


def others(earlier: Reading, later: Reading) -> list[frozenset[tuple[str, str]]]:
    """The labels of the processes that say they started at another moment."""
    return [
        frozenset(labels)
        for labels, moment in later.started.items()
        if abs(earlier.started.get(labels, moment) - moment) > _JITTER_S
    ]


def fell(earlier: Reading, later: Reading) -> Counts:
    """What is less than before, as it was before."""
    return {
        place: before
        for place, before in earlier.counts.items()
        if place in later.counts and later.counts[place] < before
    }


def slipped(earlier: Reading, later: Reading) -> Place | None:
    """Something that fell by little, as did all that fell: whoever was restarted has not counted
    almost all of it again between two readings."""
    less = fell(earlier, later)
    if not less or max(less.values()) < _MANY or others(earlier, later):
        return None
    little = all(later.counts[place] > _ALMOST * before for place, before in less.items())
    return max(less, key=lambda place: less[place]) if little else None


def returned(earlier: Reading, later: Reading) -> bool:
    """Whether all that fell in the reading before is where it was again, or beyond; or whether the
    process started before the one that told last. One that was restarted does neither."""
    back = [later.counts.get(place, -1.0) >= before for place, before in earlier.fell.items()]
    older = (
        moment < earlier.started.get(labels, moment) - _JITTER_S
        for labels, moment in later.started.items()
    )
    return (bool(back) and all(back)) or any(older)


def doubtful(earlier: Reading, later: Reading, anew: Collection[Labels]) -> bool:
    """Whether the two may be of different processes, neither of which began between them."""
    if by_turns(earlier, later) or returned(earlier, later):
        return True
    if slipped(earlier, later) or unclear(earlier, later):
        return True
    return earlier.returns > 0 and bool(anew)


def by_turns(earlier: Reading, later: Reading) -> bool:
    """Whether several processes answer for the page."""
    return earlier.returns + returned(earlier, later) >= _RETURNS


def late(earlier: Reading, later: Reading, anew: Collection[Labels]) -> frozenset[Place]:
    """What is new, and has not counted since the reading before alone. Where nothing of its name
    was told before nothing was, and those whose process began anew count from zero."""
    before, moved = by_kind(earlier.counts), renamed(earlier, later)
    return frozenset(
        place
        for place in later.counts.keys() - earlier.counts.keys()
        if place.kind in before
        and place.whose not in anew
        and (place.key in moved or process_of(place.labels) not in earlier.processes)
    )


def renamed(earlier: Reading, later: Reading) -> frozenset[str]:
    """The figures of which no series is there any more, but others that count no less: the same
    ones, under other labels. What they went by before those is counted there already."""
    before = by_kind({
        place: value for place, value in earlier.counts.items() if place not in earlier.renamed
    })  # fmt: skip
    now = by_kind(later.counts)
    kept = {place.key for place in earlier.counts.keys() & later.counts.keys()}
    kinds: dict[str, list[bool]] = {}
    for kind, value in before.items():
        kinds.setdefault(kind[0], []).append(0 < value <= now.get(kind, -1.0))
    return frozenset(key for key, same in kinds.items() if key not in kept and all(same))


def by_kind(counts: Counts) -> dict[tuple[str, str, int], float]:
    total: dict[tuple[str, str, int], float] = {}
    for place, value in counts.items():
        total[place.kind] = total.get(place.kind, 0.0) + value
    return total


def unclear(earlier: Reading, later: Reading) -> tuple[Place, Place] | None:
    """One that fell and one that did not, of which it is not known whether one process counts both.
    It does where their labels say so, and it may where the second is no more than all that has been
    counted anew: a few failures, as before. Else it is likely another's: from zero it would be all
    that it ever counted."""
    less = fell(earlier, later)
    alike = {place.labels for place in less}
    new: dict[tuple[tuple[str, str, int], Labels], float] = {}
    for place in less:
        key = place.kind, place.whose
        new[key] = new.get(key, 0.0) + later.counts[place]
    for place in earlier.counts.keys() & later.counts.keys() - less.keys():
        if later.counts[place] <= new.get((place.kind, place.whose), later.counts[place]):
            continue
        if not any(_one_of(place.labels, labels) for labels in alike):
            fallen = (one for one in less if (one.kind, one.whose) == (place.kind, place.whose))
            return min(fallen), place
    return None


def _one_of(a: Labels, b: Labels) -> bool:
    """Whether one has all labels of the other, which then counts that as well."""
    return set(a) <= set(b) or set(b) <= set(a)


def ended(earlier: Reading, later: Reading) -> frozenset[Labels]:
    """The processes of which nothing is told any more."""
    counted = {identity(place.labels) for place in earlier.counts}
    return (earlier.ended | (earlier.there & counted)) - later.there


def replaced(earlier: Reading, later: Reading) -> tuple[list[Labels], list[Labels]] | None:
    """The processes that are gone, and those that count in their stead; None where none came."""
    gone = ended(earlier, later)
    counted = {identity(place.labels) for place in later.counts.keys() - earlier.counts.keys()}
    came = counted & later.there - earlier.there
    return (sorted(gone), sorted(came)) if gone and came else None


def remarks(earlier: Reading, later: Reading, where: str) -> Iterator[Note]:
    """What there is to say of two readings of the pages there."""
    anew = began_anew(earlier, later)
    if by_turns(earlier, later):
        yield Note(
            "inside-by-turns",
            f"the counters of {where} fall and are back at once: several processes answer for it by"
            " turns, each with its own, so from here on no figures of the server are told",
            "what was told since they fell first is wrong; give its processes a registry that they"
            " share, as prometheus_client's multiprocess mode, or run one",
        )
    elif (back := slipped(earlier, later)) and not returned(earlier, later):
        yield Note(
            "inside-back",
            f"of {where} {{{_shown(back.labels)}}} went back by little, from"
            f" {earlier.counts[back]:.10g} to {later.counts[back]:.10g}: that is no restart, so no"
            " figures are told of that second",
            "a counter never falls: is it a gauge, or do several processes answer for the page?",
        )
    elif apart := unclear(earlier, later):
        one, other = (set(place.labels) for place in apart)
        names = sorted({name for name, _ in one ^ other})
        yield Note(
            "inside-unclear",
            f"of {where} {{{_shown(apart[0].labels)}}} began anew and {{{_shown(apart[1].labels)}}}"
            " did not: those seem to be processes of their own, which none of the labels known for"
            " that tells apart. No figures are told of that second",
            f'name the label: [target.metrics] process = "{names[0]}"',
        )
    if doubtful(earlier, later, anew):
        return
    if anew:
        yield restarted(where)
    if changed := replaced(earlier, later):
        gone, came = ("; ".join(map(_shown, each[:_SHOWN])) for each in changed)
        yield Note(
            "process-replaced",
            f"of {where} a process was replaced: {gone} is gone, and {came} counts in its stead",
            "why did it end? What it counted between the reading before and its end is in no"
            " figure",
        )
    if new := sorted(late(earlier, later, anew)):
        yield Note(
            "inside-late",
            f"{where} tells of {{{_shown(new[0].labels)}}} only now, and not what that counted"
            " before: it is in the figures from here on",
            "has a process joined, or were labels changed? Of a process that is new its first"
            " second is missing",
        )
