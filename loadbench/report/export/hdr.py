"""A run's latencies in HdrHistogram's own files, for its tools and viewers.

    .hlog   a histogram a second (V2, base64), as HistogramLogWriter writes them
    .hgrm   the percentiles of the whole run, as outputPercentileDistribution prints them

Both hold the requests answered well, in ms from their due time. What failed lies beyond any number
and has no place in these formats: how many those were stands in a comment, as do the bands of the
usual percentiles in .hgrm; a log's seconds are too short to have any. Of answers that come token
by token the log has two further series, by their tags: first_token and token_gap.
"""

import io
from collections.abc import Iterator
from datetime import UTC, datetime

from hdrh.histogram import HdrHistogram

from loadbench.assurance import QUANTILES
from loadbench.histogram import Histogram
from loadbench.report.export.source import Source
from loadbench.units import MS, count

_LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'


def hlog_bytes(found: Source) -> bytes:
    """The log: times relative to the run's beginning, maxima in ms, values in ns."""
    began = found.began_s
    when = datetime.fromtimestamp(began, UTC).isoformat(sep=" ", timespec="milliseconds")
    lines = [
        f"#[loadbench {found.summary.run}: latency in ns from the due time; {_missing(found)}]",
        "#[Histogram log format version 1.2]",
        f"#[StartTime: {began:.3f} (seconds since epoch), {when}]",
        f"#[BaseTime: {began:.3f} (seconds since epoch)]",
        _LEGEND,
    ]
    for window in found.windows():
        lines.append(_line(window.second, window.latency))
        if window.stream:
            lines.append(_line(window.second, window.stream.first, "first_token"))
            lines.append(_line(window.second, window.stream.gaps, "token_gap"))
    return ("\n".join(lines) + "\n").encode()


def _line(second: int, values: Histogram, tag: str = "") -> str:
    """An interval; one with a tag is of a series of its own."""
    tagged = f"Tag={tag}," if tag else ""
    return f"{tagged}{second:.3f},1.000,{(values.maximum or 0) / MS:.3f},{values.encode()}"


def hgrm_bytes(found: Source) -> bytes:
    """The percentiles in ms, five steps for each halving of the distance to 100 %."""
    dense = HdrHistogram.decode(found.latency().encode())
    file = io.BytesIO()
    dense.output_percentile_distribution(file, MS, 5)
    text = file.getvalue().decode()
    # the package divides the mean by the unit and forgets the deviation beside it
    head, mark, rest = text.partition("StdDeviation   = ")
    if mark:
        after = rest.partition("]")[2]
        text = f"{head}{mark}{dense.get_stddev() / MS:12.3f}]{after}"
    comments = [_missing(found), *_bands(found)]
    return (text + "".join(f"#[{line}]\n" for line in comments)).encode()


def _bands(found: Source) -> Iterator[str]:
    """How sure the usual percentiles are: those of the answered, as all that stands above."""
    for name, (low, high) in found.bands("answered_ms").items():
        above = "" if high is None else f"{high:.3f}"
        yield f"{name} at 95 %: {low:.3f} … {above}".rstrip()
    for name, why in found.why_none("answered_ms", QUANTILES).items():
        yield f"{name} has no band: {why}"


def _missing(found: Source) -> str:
    if not found.summary.missed:
        return "all requests were answered well"
    missed, asked = count(found.summary.missed), count(found.summary.asked)
    return f"{missed} of {asked} requests not answered well are not in it"
