"""A device as the batcher sees it: how much room a batch has there now, and how long it takes.

Fitted at the warm-up, looked after every second (`survey`): another process that takes memory makes
batches smaller, a clock that is throttled makes planned times longer. Both end with their cause.
"""

from collections.abc import Mapping, Sequence

from loadbench.engine.backends import Model
from loadbench.engine.buckets import Sizes
from loadbench.engine.device import open_device
from loadbench.engine.device.broken import Verdict, fault_of
from loadbench.engine.device.lock import claim, runtime_folder
from loadbench.engine.device.seam import Device, Memory, State
from loadbench.engine.device.turns import turns_of
from loadbench.engine.room import MARGIN, MEMORY, OOM, Footprint, Room, knee
from loadbench.engine.service import ServiceTimes
from loadbench.errors import SpecError
from loadbench.model import Ground, Note
from loadbench.spec import EngineSpec


class Place:
    """One device and what instances of one model find on it. Not safe among threads by itself, but
    for `look`."""

    def __init__(
        self,
        device: Device,
        room: Room,
        service: ServiceTimes,
        instances: int = 1,
        sizes: Sizes = (),
    ) -> None:
        self.device = device
        self.turns = turns_of(device.name)
        self.room = room
        self.service = service
        self.sizes = sizes
        self.footprint: Footprint | None = None
        self.state = State()
        self.verdict = Verdict()
        self.busy = 0  # batches that run, or are launched already
        self._instances = instances
        self._rows = 0  # in the batches that run
        self._resting: int | None = None  # bytes in use while nothing runs
        self._full_clock = 0  # MHz

    def begins(self, rows: int) -> None:
        """A batch of so many rows, padding included, starts here."""
        self.busy += 1
        self._rows += rows

    def ends(self, rows: int) -> None:
        self.busy -= 1
        self._rows -= rows

    def ran(self) -> None:
        """Something ran well."""
        self.room.ran()
        self.verdict.ran()

    def fit(self, peaks: Mapping[int, int], fastest: Mapping[int, int], free: bool) -> list[Note]:
        """Learns from the warm-up: the memory (bytes) and the shortest times (ns) of batches by
        their rows. With `free` nobody has asked for a size, and the knee of the times limits it:
        on cards only, since on a CPU whatever else runs there bends the few times of a warm-up."""
        self.footprint = Footprint.fit(peaks)
        if self.footprint is not None:  # which knows better than what was lacking at some sizes
            self.room.limit(OOM, None)
        self.apply(self.look())
        best = None if self.device.name == "cpu" else knee(fastest)
        if best is None:
            return []
        text = f"batches of more than {best} rows gain less than 3 % a row"
        if not free:
            return [Note("knee", text, f"engine.max_batch = {best} answers sooner")]
        self.room.limit("knee", best)
        return [Note("knee", f"{text}: larger ones are not made", "engine.max_batch allows them")]

    def ask(self, rows: int, anew: bool) -> None:
        """So many rows are asked for; `anew`: by someone who knows better than the knee."""
        self.room.limit("max_batch", rows)
        if anew:
            self.room.limit("knee", None)

    def look(self) -> tuple[Memory | None, State]:
        """Reads the device, which may take some milliseconds; for `apply`."""
        try:
            memory = self.device.memory() if self.footprint else None
            return memory, self.device.state()
        except RuntimeError as error:
            fault = fault_of(error)
            if not fault:
                raise
            self.verdict.failed(fault)
            return None, self.state

    def apply(self, found: tuple[Memory | None, State]) -> None:
        """Adapts to what `look` saw."""
        memory, self.state = found
        if memory is not None and self.footprint is not None:
            self.room.limit(MEMORY, self._rows_in(memory, self.footprint))
        self.service.clocked(self._slowdown())

    def ground(self) -> Ground:
        """For people."""
        return Ground(
            device=self.device.name,
            limit=self.room.most,
            bound=self.room.bound,
            throttle=self.state.throttle,
            slowdown=self._slowdown(),
            others=self.state.others,
            uuid=self.device.uuid,
        )

    def _rows_in(self, memory: Memory, footprint: Footprint) -> int:
        """How many rows each instance may have, were all to run a batch at once.

        What a batch that runs now has in use can be had for the next one. How much that is lies
        between nothing and its peak; it must not be taken for weights, nor weights for it.
        """
        running = self.busy * footprint.fixed + self._rows * footprint.per_row
        least = max(0, memory.used - round(running))
        known = least if self._resting is None else max(self._resting, least)
        self._resting = min(known, memory.used)
        room = memory.free + memory.held - self._resting
        return footprint.rows((1 - MARGIN) * room / self._instances)

    def _slowdown(self) -> float:
        """How many times slower than at its full speed the device's clock is, if it is throttled.

        Idle cards lower their clock by themselves, which says nothing about the next batch.
        """
        clock = self.state.clock_mhz
        if not clock:
            return 1.0
        if not self.state.throttle or not self._full_clock:
            self._full_clock = max(self._full_clock, clock)
        return max(1.0, self._full_clock / clock) if self.state.throttle else 1.0


def places(models: Sequence[Model], settings: EngineSpec, most: int) -> list[Place]:
    """A place for each model; those on the same device share it. `most` rows are asked for."""
    sizes = bucket_sizes(models[0], settings)
    shared: dict[str, Place] = {}
    names = [model.device for model in models]
    for name in names:
        if name not in shared:
            why = "max_batch" if most == settings.max_batch else "model"
            shared[name] = Place(
                open_device(name, settings.sim),
                Room(most, why, sizes),
                ServiceTimes(most, sizes),
                names.count(name),
                sizes,
            )
    return [shared[name] for name in names]


def bucket_sizes(model: Model, settings: EngineSpec) -> Sizes:
    """The sizes that batches are padded to, rising; empty: any size is fine. SpecError if the model
    runs other ones."""
    own = tuple(sorted(model.metadata.get("buckets", ())))
    asked = tuple(sorted({size for size in settings.buckets if size <= settings.max_batch}))
    if not model.batched or not asked:
        return own if model.batched else ()
    if own and not set(asked) <= set(own):
        raise SpecError(
            f"engine.buckets = {list(asked)}: {model.name} runs batches of {list(own)} only",
            "leave engine.buckets out, or choose among them",
        )
    return asked


def disputes(found: Sequence[Place]) -> list[Note]:
    """Cards that another engine has claimed before."""
    folder = runtime_folder()
    notes = []
    for place in dict.fromkeys(found):
        if holder := claim(place.device.uuid, folder):
            text = f"another engine serves on {place.device.name} too: {holder}"
            notes.append(Note("other-engine", text, "stop it and run again: each slows the other"))
    return notes
