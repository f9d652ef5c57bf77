"""What an error says of the device: that it had no memory left, or that it has failed for good.

After some faults (a kernel's failed assertion, a bus error) a process can use its CUDA context no
more: every call fails until the process is started anew. What one request brought about can not be
told from that at once, so it takes a row of such faults with nothing that ran between them.
"""

REPEATS = 3
_MARKS = (
    "CUDA error", "CUDA failure", "CUDNN failure", "CUBLAS failure", "CUDNN_STATUS_EXECUTION_FAILED"
)  # fmt: skip
# Of torch's allocators, CUDA, cuBLAS, cuDNN, ONNX Runtime's arenas. Words: what runs the model
# (TorchScript for one) may have put an error of its own around theirs.
_FULL = (
    "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "DefaultCPUAllocator",
    "Failed to allocate memory", "bad_alloc", "BFCArena",
)  # fmt: skip


def lacks_memory(text: str) -> bool:
    """Whether an error with this text is one for want of memory, which passes."""
    return any(words in text for words in _FULL)


def fault_of(error: BaseException | None) -> str:
    """What the device said, in a line, if the error or a cause of it is the device's fault."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # causes may go round in a circle
        seen.add(id(error))
        text = str(error)
        kinds = [kind.__name__ for kind in type(error).__mro__]
        if "AcceleratorError" in kinds or any(mark in text for mark in _MARKS):
            return "" if lacks_memory(text) else (text.strip().splitlines() or [kinds[0]])[0]
        error = error.__cause__
    return ""


class Verdict:
    """What is held of a device by what became of its batches. `broken` says why it is unfit."""

    def __init__(self) -> None:
        self.broken = ""
        self._faults = 0

    def failed(self, fault: str) -> None:
        """It failed a batch, or a part of one, and said this."""
        self._faults += 1
        if self._faults >= REPEATS:
            self.broken = fault

    def ran(self) -> None:
        """Something ran."""
        if self._faults:
            self._faults, self.broken = 0, ""
