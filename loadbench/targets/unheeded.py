"""Keys of [target] that somebody set and that its protocol knows nothing of: said once, so that
nobody waits for them. They are not refused, since a scenario may be turned to another server."""

from collections.abc import Iterator

from loadbench.model import Note
from loadbench.plan import Endpoint
from loadbench.targetspec import TargetSpec

_CALLED = {
    "kserve": "KServe v2", "grpc": "KServe v2 over gRPC", "openai": "an OpenAI-compatible server",
    "tensorflow": "TensorFlow Serving", "predict": "TensorFlow Serving over gRPC",
    "http": "plain HTTP",
}  # fmt: skip


def unheeded(endpoint: Endpoint, wanted: TargetSpec) -> tuple[Note, ...]:
    """A note for each such key that was set, and not left as it is."""
    return tuple(
        Note(
            "no-effect",
            f"target.{key} has no effect on {_CALLED[endpoint.protocol]}{why}",
            "leave it out",
        )
        for key, why in _keys(endpoint, wanted)
        if key in wanted.model_fields_set and getattr(wanted, key)
    )


def _keys(endpoint: Endpoint, wanted: TargetSpec) -> Iterator[tuple[str, str]]:
    protocol = endpoint.protocol
    if protocol not in ("http", "openai"):
        yield "path", ": the model says where it is asked"
    if endpoint.method != wanted.method or protocol != "http":
        yield "method", ": it is asked by POST"
    if protocol != "tensorflow":
        yield "layout", ": it is for TensorFlow Serving's REST"
    if protocol not in ("tensorflow", "predict"):
        yield "signature", ": it is for TensorFlow Serving"
    if protocol == "http" and not endpoint.model:
        yield "model", ": its path says what is asked"
