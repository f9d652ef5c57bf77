"""Libraries of custom operators: whether they may be loaded, and torch's.

Their code is compiled and runs as they are loaded, so they need the user's trust wherever they are
named. ONNX Runtime takes them session by session: that is its backend's business.
"""

from collections.abc import Sequence
from pathlib import Path

from loadbench.errors import SpecError


def require(libraries: Sequence[str], trust: bool) -> None:
    """SpecError unless every one is there and may be run."""
    for library in libraries:
        if not trust:
            raise SpecError(
                f"engine.libraries: loading {library} runs its code",
                "add --trust if you know where it is from",
            )
        if not Path(library).is_file():
            raise SpecError(f"engine.libraries: {library} is not a file", "give its path")


def load_into_torch(libraries: Sequence[str]) -> None:
    """Makes their operators known to torch. SpecError if one cannot be loaded."""
    import torch

    for library in libraries:
        try:
            torch.ops.load_library(str(Path(library).resolve()))  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError) as error:
            raise cannot(library, error) from error


def cannot(library: str, error: Exception) -> SpecError:
    """The error for a library that is none, or not for this runtime."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return SpecError(
        f"engine.libraries: {library} cannot be loaded: {lines[0][:300]}",
        "was it built for this runtime, version and machine?",
    )
