"""What has been changed about a run by hand and stands: how the load is steered, and by which
settings a local engine brings its batches together. Every mark of such a change carries the whole
of it, so that whoever reads a log from any place on knows how the run is driven."""

from loadbench import units
from loadbench.value import Value


class Settings(Value, frozen=True):
    """The settings of a batcher that can be changed while it serves. `since_ns` is the moment of
    the monotonic clock from which they count; None: from the beginning."""

    max_batch: int
    policy: str
    slo_ns: int | None = None
    max_wait_ns: int = 0  # only of `fixed`
    hold: bool = False  # only of `deadline` and `failfast`
    since_ns: int | None = None

    @property
    def texts(self) -> dict[str, str]:
        """Each as people write it, those that count under the policy."""
        found = {
            "max_batch": str(self.max_batch),
            "policy": self.policy,
            "slo": "none" if self.slo_ns is None else units.exact_duration(self.slo_ns),
        }
        if self.policy == "fixed":
            found["max_wait"] = units.exact_duration(self.max_wait_ns)
        if self.policy in ("deadline", "failfast"):
            found["hold"] = "true" if self.hold else "false"
        return found


class Standing(Value, frozen=True):
    """How a run is driven from a mark on."""

    rate: float | None = None  # per second; held instead of the scenario's
    scale: float = 1.0  # times the scenario's load
    paused: bool = False  # nothing falls due
    spike: float | None = None  # per second, until …
    spike_until_s: int | None = None  # … this second of the run
    engine: Settings | None = None  # None: as the run began


def differences(before: Settings, after: Settings) -> str:
    """`max_batch 32 → 16, slo 100 ms → 50 ms`; empty if nothing differs that counts."""
    old, new = before.texts, after.texts
    return ", ".join(
        f"{key} {old[key]} → {text}" if key in old else f"{key} {text}"
        for key, text in new.items()
        if old.get(key) != text
    )


def more(before: Standing, after: Standing, second: int, planned: float | None) -> bool:
    """Whether more load is asked for from a second on. `planned` is the rate without a hand on it;
    None: there is none, as in a closed loop."""
    return _asked(after, second, planned or 1.0) > _asked(before, second, planned or 1.0)


def _asked(found: Standing, second: int, planned: float) -> float:
    if found.paused:
        return 0.0
    if found.spike is not None and second < (found.spike_until_s or 0):
        return found.spike
    return found.scale * planned if found.rate is None else found.rate


def load_words(found: Standing, second: int) -> list[str]:
    """What stands of the load at a second of the run; empty: it follows its scenario."""
    told = []
    if found.rate is not None:
        told.append(f"{units.significant(found.rate)}/s by hand")
    if found.scale != 1:
        told.append(f"× {found.scale:.4g}")
    if found.spike is not None and second < (found.spike_until_s or 0):
        told.append(f"spike {units.significant(found.spike)}/s")
    if found.paused:
        told.append("arrivals paused")
    return told
