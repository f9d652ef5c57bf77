"""One batch through a model's launcher: staged and started, and later what came of it.

The counterpart of `execution` for devices that work by themselves; a batch that fails is handed to
that, which finds out whose fault it was. When to launch and when to wait is `instance`'s business.
"""

from collections.abc import Callable, Sequence

from loadbench.engine.backends import Flight, Launcher, Model
from loadbench.engine.buckets import Sizes, padded
from loadbench.engine.device.broken import fault_of
from loadbench.engine.execution import Piece, Tried, blamed, checked, stack
from loadbench.engine.job import Job, shapes_of
from loadbench.engine.tensors import Array, Refused

Clock = Callable[[], int]


class Launched:
    """A batch in flight, or one that failed when it was started."""

    def __init__(self, model: Model, jobs: Sequence[Job], more: int) -> None:
        self._model = model
        self._jobs = jobs
        self._rows = sum([job.rows for job in jobs])
        self._more = more
        self._flight: Flight | None = None
        self._error: BaseException | None = None

    def start(self, launcher: Launcher) -> bool:
        """False: it has to be run instead."""
        rows = self._rows + self._more
        shapes = {name: (rows, *shape) for name, shape in shapes_of(self._jobs[0]).items()}
        try:
            self._flight = launcher.launch(
                shapes, lambda arrays: stack(self._model, self._jobs, self._more, arrays)
            )
        except BaseException as error:  # noqa: BLE001  whatever it raises is the model's fault
            self._error = error
            return True
        return self._flight is not None

    @property
    def failed(self) -> bool:
        """Whether it never flew."""
        return self._flight is None

    @property
    def done(self) -> bool:
        """Whether nothing is left to be waited for."""
        try:
            return self._flight is None or self._flight.done()
        except Exception:  # noqa: BLE001  a device that failed; to wait for it says the same
            return True

    def land(self, clock: Clock) -> Tried:
        """Waits for it; its times are the device's."""
        outputs: dict[str, Array] = {}
        fault: Refused | None = None
        memory, error, raised = False, self._error, None
        self._error = None
        if self._flight is not None:
            try:
                outputs = self._flight.wait()
                outputs, fault = checked(self._model, outputs, self._rows, self._more)
            except BaseException as caught:  # noqa: BLE001  as above
                error = caught
        if error is not None:
            fault, memory, raised = blamed(error)
        took = 0 if fault or self._flight is None else self._flight.compute_ns
        ended, broken = clock(), fault_of(raised)
        piece = Piece(
            self._jobs, self._rows, 0, took, ended, outputs, fault, memory, self._more, broken
        )  # fmt: skip
        return Tried(piece, raised)

    @property
    def gap_ns(self) -> int:
        """How long the device stood idle before it."""
        return self._flight.gap_ns if self._flight is not None else 0


def launch(model: Model, jobs: Sequence[Job], sizes: Sizes) -> Launched | None:
    """Starts a batch, padded to the next of `sizes`. None: the model cannot, or not now."""
    launcher: Launcher | None = getattr(model, "launcher", None)
    if launcher is None or not model.batched:
        return None
    rows = sum([job.rows for job in jobs])
    launched = Launched(model, jobs, padded(sizes, rows) - rows)
    return launched if launched.start(launcher) else None
