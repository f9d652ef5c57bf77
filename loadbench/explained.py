"""Which causes (`diagnoses`) can be behind which quantity of an alert."""

_HEAT = ("changed", "other-process", "idle-gpu", "overload")
_WAITS = (
    "changed", "generator-late", "standstill", "other-process", "throttled", "memory", "cpu",
    "idle-gpu", "small-batches", "slower", "overload", "generator-full", "outside",
)  # fmt: skip
# of a quantity: the causes that it is itself about, and the others that can be behind it, None for
# all. What is not in here can have all
EXPLAINED_BY: dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]] = {
    "silence": (("silent",), ("generator-late", "memory", "cpu", "generator-full")),
    # what the target does makes no generator late
    "lateness": (("generator-late",), ("changed", "unsent", "memory", "cpu", "generator-full")),
    "errors": (("errors", "unsent"), (
        "changed", "generator-late", "standstill", "other-process", "throttled", "memory", "cpu",
        "slower", "overload",
    )),
    "gpu_utilization": (("idle-gpu",), (*_WAITS, "unsent", "errors")),
    "gpu_memory": (("memory",), ("changed", "other-process")),
    "memory": (("memory",), ("changed",)),
    "cpu": (("cpu",), ("changed", "generator-full", "overload")),
    "gpu_temperature": (("throttled",), _HEAT),
    "gpu_power": (("throttled",), _HEAT),
    "throughput": (("as-asked",), None),
    # what failed is open no more, nor has it tokens between which time passes
    "queue_growth": ((), _WAITS),
    "in_flight": ((), _WAITS),
    "token_gap_p99": ((), _WAITS),
}  # fmt: skip
