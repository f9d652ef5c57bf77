"""A run as the line that NVIDIA's perf_analyzer writes with -f, for what reads its tables.

As there, latency counts from the sending of a request, of those answered well; whole µs. Our
columns mean what theirs do: `Server Queue` has the wait for a batch, `Network+Server Send/Recv`
what the server's own times leave of the mean, with what a client spends on sending and receiving,
which is not measured apart. Behind their columns stand ours: the 95 % bands of the percentiles, and
why one has none. A server that tells no times has no server columns, as with a service
kind of perf_analyzer that has no statistics.
"""

import csv
import io

from loadbench.report.export.source import Source
from loadbench.report.parts import compute_split, mean_split
from loadbench.streams import RESTS

_PERCENTILES = ("p50", "p90", "p95", "p99")


def perf_analyzer_bytes(found: Source) -> bytes:
    """The file: a heading and one row."""
    cells = {**_load(found), **_parts(found), **_latencies(found)}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(cells)
    writer.writerow(cells.values())
    return text.getvalue().encode()


def _load(found: Source) -> dict[str, str]:
    summary = found.summary
    spec = found.snapshot.get("spec")
    load = spec.get("load", {}) if isinstance(spec, dict) else {}
    if load.get("arrivals") == "closed":
        first = {"Concurrency": str(load.get("concurrency", ""))}
    else:
        first = {"Request Rate": _rate(summary.rate["asked"])}
    return {**first, "Inferences/Second": _rate(summary.rate["done"])}


def _parts(found: Source) -> dict[str, str]:
    server, mean = found.summary.server, found.summary.service_ms["mean"]
    if server is None or mean is None:
        return {"Client Send": "0", "Network+Server Send/Recv": _us(mean), "Client Recv": "0"}
    parts = mean_split(found.summary)  # perf_analyzer's are of all requests, too
    rest = next((parts[name] for name in RESTS if name in parts), mean)
    inner = compute_split(found.summary)
    if "infer" not in inner:  # not told, or by names of the server's own
        inner = {"infer": parts.get("compute", 0.0)}
    return {
        "Client Send": "0",
        "Network+Server Send/Recv": _us(rest),
        "Server Queue": _us(parts.get("queue", 0.0) + parts.get("batch wait", 0.0)),
        "Server Compute Input": _us(inner.get("input", 0.0)),
        "Server Compute Infer": _us(inner["infer"]),
        "Server Compute Output": _us(inner.get("output", 0.0)),
        "Client Recv": "0",
    }


def _latencies(found: Source) -> dict[str, str]:
    service = found.summary.service_ms
    bands, whys = found.bands("service_ms"), found.why_none("service_ms", _PERCENTILES)
    sides: dict[str, str] = {}
    for name in _PERCENTILES:
        low, high = bands.get(name, (None, None))
        sides |= {f"{name} low": _us(low), f"{name} high": _us(high)}
    told = "; ".join(f"{name}: {why}" for name, why in whys.items())
    latencies = {f"{name} latency": _us(service[name]) for name in _PERCENTILES}
    return {**latencies, **sides, "No band": told}


def _rate(per_s: float | None) -> str:
    return "" if per_s is None else f"{per_s:.6g}"


def _us(ms: float | None) -> str:
    return "" if ms is None else str(int(ms * 1000))
