"""A run as exports see it: its beginning, its Summary, its recorded seconds one by one."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.histogram import Histogram
from loadbench.judge.bands import Bands, Whys
from loadbench.model import Start, Window
from loadbench.report.certain import bands_of
from loadbench.snapshots.reading import summarised
from loadbench.summary import Summary


class Source(NamedTuple):
    """`snapshot` is run.json; {} where there is none that can be read."""

    folder: Path
    start: Start
    summary: Summary
    snapshot: dict[str, Any]

    @property
    def began_s(self) -> float:
        """Second 0 of the run, in seconds since 1970. SpecError if the log's time is none."""
        try:
            return datetime.fromisoformat(self.start.wall_time).timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise SpecError(f"{self.folder}: its beginning has no time: {error}") from error

    def bands(self, name: str) -> Bands:
        """Of the percentiles of `latency_ms`, `service_ms` …, in ms; those that have one."""
        return bands_of(self.summary, name)

    def why_none(self, name: str, percentiles: Iterable[str]) -> Whys:
        """Why others of these percentiles have none."""
        known, general = self.summary.no_bands.get(name, {}), self.summary.certainty.why
        bands = self.bands(name)
        return {
            one: known.get(one) or general or "too few requests"
            for one in percentiles
            if one not in bands
        }

    def windows(self) -> Iterator[Window]:
        """The seconds of the load and the drain; warm-up is in no figure."""
        for record in runlog.read(self.folder):
            if isinstance(record, Window) and record.stage != "warmup":
                yield record

    def latency(self) -> Histogram:
        """Of all requests answered well."""
        return Histogram.merged(window.latency for window in self.windows())


def source(folder: Path) -> Source:
    """Reads a run; of a series its only repeat. SpecError if it is damaged or nothing is in it."""
    folder = runlog.single(folder)
    start, summary = summarised(folder)
    try:
        snapshot = runlog.read_snapshot(folder)
    except SpecError:
        snapshot = {}  # the log alone is enough
    return Source(folder, start, summary, snapshot)
