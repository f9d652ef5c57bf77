"""The end of a run as text: checks first, all figures under one alignment. Plain characters, no
colours: it is read in CI logs, mails and files as often as in terminals."""

from pathlib import Path
from typing import Any

from loadbench import runlog, units
from loadbench.judge.checks import unjudged
from loadbench.model import Machine, Rule
from loadbench.report.alerted import alert_lines
from loadbench.report.certain import OF_ALERTS, check_words, of_notes, rests_on, within
from loadbench.report.columns import aligned
from loadbench.report.optimum import of_the_best
from loadbench.report.parts import compute_split, made_of, mean_split
from loadbench.report.series import series_text
from loadbench.report.slowest import slowest_text
from loadbench.serverside import TIMING
from loadbench.snapshots.reading import summarised
from loadbench.summary import CheckResult, Summary
from loadbench.times import Times
from loadbench.trust import cause
from loadbench.units import SECOND, clock, count, percent, significant

Bands = dict[str, tuple[float, float | None]]
_KINDS, _SAID = 8, 340  # of failures; characters of what came: how it began, and a refusal whole
_STATES = {"done": "■ done", "failed": "✗ failed", "killed": "✗ killed", "running": "● running"}


def run_text(folder: Path) -> str:
    """The page of a run, made from its log: also of one that was killed, or goes on; that of a
    series of repeats. Raises SpecError if nothing was recorded, or the log is damaged."""
    if runlog.is_series(folder):
        return series_text(folder)
    start, summary = summarised(folder)
    return summary_text(summary, start.rules, str(folder))


def summary_text(summary: Summary, rules: tuple[Rule, ...] = (), folder: str = "") -> str:
    """The whole page, without a newline at its end."""
    lines = [_head(summary), ""]
    for title, text in (
        ("CHECKS", _checks(summary)),
        ("LOAD", _load(summary)),
        ("FAILED", _failed(summary)),
        ("LATENCY", _latency(summary)),
        ("CERTAIN", _certain(summary)),
        ("ANSWERED", _answered(summary)),
        ("REQUESTS", _requests(summary)),
        ("TOKENS", _tokens(summary)),
        ("TIME", _time(summary)),
        ("ENGINE", _engine(summary)),
        ("PARTS", _parts(summary)),
        ("OPTIMUM", _optimum(summary)),
        ("MACHINE", _machine(summary)),
        ("LATE", _late(summary)),
        ("SLOWEST", f"\n{' ' * 12}".join(map(slowest_text, summary.slowest))),
    ):
        if text:
            lines.append(f"  {title:<9} {text}")
    lines += alert_lines(summary, rules) + _notes(summary)
    lines += [f"  · {text}" for text in _unsure(summary)]
    if folder:
        lines += ["", f"  {folder}"]
    return "\n".join(lines)


def _head(summary: Summary) -> str:
    length = units.duration(round(summary.seconds * SECOND))
    state = _STATES.get(summary.reason, f"■ stopped at {clock(round(summary.seconds * SECOND))}")
    parts = [f"loadbench {summary.run}", summary.target, summary.device, length, state]
    if summary.trust != "trusted":
        parts.append(f"▲ {summary.trust}")
    head = "   ".join(part for part in parts if part)
    signs = {"failed": "✗", "killed": "✗", "running": "●"}
    told = (summary.reason in signs or summary.reason == "done") and summary.text
    return f"{head}\n  {signs.get(summary.reason, '■')} {summary.text}" if told else head


def _checks(summary: Summary) -> str:
    """Of a run that nothing is judged by what was measured, without a verdict."""
    found = [_check(check, summary) for check in summary.checks]
    if found and (why := unjudged(summary)):
        measured = "    ".join(words.partition(" ")[2] for words in found)
        return f"▲ no verdict: {why}; measured: {measured}"
    return "    ".join(found)


def _check(check: CheckResult, summary: Summary) -> str:
    """`✓ p99 46.2 ms < 100 ms · not shown (≈ 12,000 more)`."""
    words = check_words(check, summary.missed_share)
    return " · ".join(filter(None, (words, check.sure)))


def _load(summary: Summary) -> str:
    rate = summary.rate
    share = summary.done / summary.asked if summary.asked else None
    parts = [
        f"asked {significant(rate['asked'])}/s",
        f"done {significant(rate['done'])}/s ({percent(share)} %)",
        f"{count(summary.asked)} requests",
    ]
    if summary.failed:
        parts.append(f"failed {count(sum(summary.failed.values()))}")
    for name in ("unsent", "unfinished", "lost"):
        number = getattr(summary, name)
        if number:
            open_now = name == "unfinished" and summary.reason == "running"
            parts.append(f"{'in flight' if open_now else name} {count(number)}")
    if not summary.missed:
        parts.append("none failed")
    if summary.on_time is not None:
        limit = significant(summary.limit_ms)
        parts.append(f"on time {percent(summary.on_time)} % (within {limit} ms)")
    return "   ".join(parts)


def _failed(summary: Summary) -> str:
    """A line for each kind of failure, the most frequent first, with its first example."""
    kinds = sorted(summary.failed.items(), key=lambda item: -item[1])
    lines = [_kind(name, number, summary) for name, number in kinds[:_KINDS]]
    if len(kinds) > _KINDS:
        rest = sum(number for _, number in kinds[_KINDS:])
        lines.append(f"{count(rest)} of {len(kinds) - _KINDS} more kinds")
    return f"\n{' ' * 12}".join(lines)


def _kind(name: str, number: int, summary: Summary) -> str:
    example = summary.examples.get(name)
    if example is None:
        return f"{count(number)} {name}"
    answer = f" · {example['answer']}" if example["answer"] else ""
    said = example["reason"] + answer
    said = f"{said[: _SAID - 1]}…" if len(said) > _SAID else said
    when = clock(example["second"] * SECOND)
    after = significant(example["after_ms"])
    return (
        f"{count(number)} {name}   first at {when}, {example['request']} after {after} ms: {said}"
    )


_NAMES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99_9": "p99.9", "max": "max"}


def _times(times: Times, missed: float | None = None, bands: Bands | None = None) -> str:
    """With a limit that requests `missed`, percentiles that they reach are beyond it."""
    bands = bands or {}
    shown = (f"{name} {_percentile(times, key, missed, bands)}" for key, name in _NAMES.items())
    return "   ".join(shown)


def _percentile(times: Times, key: str, missed: float | None, bands: Bands) -> str:
    value = times.get(key)
    if value is None and missed is not None:
        return f"> {significant(max([missed, *filter(None, times.values())]))}"
    return f"{significant(value)}{within(value, bands.get(key))}"


def _latency(summary: Summary) -> str:
    if not summary.asked:
        return "no requests were recorded"
    missing = summary.missed
    limit = summary.limit_ms if missing else None
    text = f"{_times(summary.latency_ms, limit, summary.bands_ms)} ms"
    return f"{text}   (from the time each request was due)"


def _certain(summary: Summary) -> str:
    if not summary.asked:
        return ""
    return rests_on(summary.certainty, summary.asked, bool(summary.bands_ms), _missing(summary))


def _missing(summary: Summary) -> dict[str, str]:
    """The latency's percentiles without a band, where others have one, and why."""
    found = summary.no_bands.get("latency_ms", {}) if summary.bands_ms else {}
    return {_NAMES[key]: why for key, why in found.items()}


def _unbounded(summary: Summary, name: str) -> str:
    """Why other figures have no bands, where that is not said of the latency already."""
    whys, latency = summary.no_bands.get(name, {}), summary.no_bands.get("latency_ms", {})
    fresh = dict.fromkeys(why for key, why in whys.items() if latency.get(key) != why)
    return f"   (no ± of some: {'; '.join(fresh)})" if fresh else ""


def _answered(summary: Summary) -> str:
    """Only where it differs: the percentiles without what was not answered well."""
    if not summary.missed or not summary.done:
        return ""
    times = _times(summary.answered_ms, None, summary.more_bands_ms.get("answered_ms"))
    alone = f"(of the {count(summary.done)} answered alone)"
    return f"{times} ms   {alone}{_unbounded(summary, 'answered_ms')}"


def _requests(summary: Summary) -> str:
    """Where there are several kinds, or several servers: each of them."""
    if len(summary.requests) < 2:
        return ""
    found = sorted(summary.requests.items(), key=lambda item: -item[1]["done"])
    rows: list[tuple[str, ...]] = [("", "done", "p50 ms", "p95", "p99", "failed")]
    for name, part in found[:_KINDS]:
        times, bands = part["latency_ms"], part["bands_ms"]
        failed = sum(part["failed"].values())
        missed = summary.limit_ms if failed else None
        shown = (_percentile(times, key, missed, bands) for key in ("p50", "p95", "p99"))
        rows.append((name, count(part["done"]), *shown, count(failed)))
    lines = aligned(rows, frozenset({0}))
    if len(found) > _KINDS:
        lines.append(f"and {len(found) - _KINDS} more kinds")
    known = summary.no_bands.get("latency_ms", {}).values()
    whys = (why for _, part in found[:_KINDS] for why in part.get("no_bands", {}).values())
    if fresh := [why for why in dict.fromkeys(whys) if why not in known]:
        lines.append(f"no ± of some: {'; '.join(fresh)}")
    return f"\n{' ' * 12}".join(lines)


def _tokens(summary: Summary) -> str:
    """When they came: a line for the first, one for the others."""
    found = summary.tokens
    if found is None:
        return ""
    lines = []
    for name, title, why in (
        ("first_token_ms", "first", "from the time each request was due"),
        ("token_gap_ms", "gap", "one after the other"),
    ):
        bands = summary.more_bands_ms.get(name, {})
        times = found[name]
        shown = "   ".join(
            f"{key} {significant(times[key])}{within(times[key], bands.get(key))}"
            for key in ("p50", "p95", "p99")
        )
        lines.append(f"{title:<5} {shown} ms   ({why}){_unbounded(summary, name)}")
    return f"\n{' ' * 12}".join([*lines, tokens_counted(found, "   ")])


def tokens_counted(found: dict[str, Any], between: str = " · ") -> str:
    """`870/s · 26,100 tokens (as the server counts) · 9,000 in prompts`: of a summary's tokens."""
    counted = "as the server counts" if found["counted"] is not None else "an event each"
    parts = [] if found["per_s"] is None else [f"{significant(found['per_s'])}/s"]
    parts.append(f"{count(found['generated'])} tokens ({counted})")
    if found["prompt"]:
        parts.append(f"{count(found['prompt'])} in prompts")
    return between.join(parts)


def _time(summary: Summary) -> str:
    parts = mean_split(summary)
    if not parts:
        return ""
    whole = sum(parts.values())
    inner = ", ".join(
        f"{name} {significant(value)}" for name, value in compute_split(summary).items()
    )
    within_ = {"compute": f" ({inner})"} if inner else {}
    shares = "   ".join(
        f"{name} {significant(value)} ms {percent(value / whole)} %{within_.get(name, '')}"
        for name, value in parts.items()
    )
    sampled = summary.server and summary.server["source"] == TIMING
    whose = "; the server's times are of a sample of answers" if sampled else ""
    return f"{shares}   (mean request{whose})"


def _engine(summary: Summary) -> str:
    server = summary.server
    if server is None or not server["batches"]:
        return ""
    batch = server["batch"]
    parts = [f"{significant(batch['mean'])} per batch"]
    if batch["max"]:
        told = "fill" in batch  # summaries of earlier releases have only today's limit
        parts[0] += f", {percent(batch['fill'] if told else batch['mean'] / batch['max'])} % full"
    parts.append(f"{count(server['batches'])} batches")
    closed = sorted(batch["closed"].items(), key=lambda item: -item[1])
    total = sum(batch["closed"].values())
    if total:
        parts.append(
            "closed: " + ", ".join(f"{reason} {percent(n / total)} %" for reason, n in closed[:4])
        )
    if server["shed"]:
        parts.append(f"shed {count(server['shed'])}")
    return "   ".join(parts)


def _parts(summary: Summary) -> str:
    server = summary.server
    if server is None:
        return ""
    misses = server.get("cache_misses", 0)  # logs of old have none
    return made_of(server["parts_ms"], server["cached"], server["requests"], misses)


def _optimum(summary: Summary) -> str:
    found = summary.optimum
    if found is None:
        return ""
    return f"{of_the_best(found)}   (within {significant(found['slo_ms'])} ms of reaching it)"


def _machine(summary: Summary) -> str:
    machine = summary.machine
    if machine is None:
        return ""
    parts = [_gpu(machine, index) for index in range(len(machine.gpus))]
    if machine.cpu is not None:
        parts.append(f"CPU {percent(machine.cpu)} %")
    if machine.memory_used is not None:
        used, total = machine.memory_used, machine.memory_total
        parts.append(f"memory {units.gigabytes(used)} of {units.gigabytes(total)} GB")
    for name, process in machine.processes.items():
        if process.cpu is not None:
            memory = f", {units.gigabytes(process.memory)} GB" if name == "engine" else ""
            parts.append(f"{name} {percent(process.cpu)} % of a core{memory}")
    return "   ".join(parts)


def _gpu(machine: Machine, index: int) -> str:
    card = machine.gpus[index]
    text = f"GPU {card.title}"
    if card.utilization is not None:
        text += f" {percent(card.utilization)} %"
    if card.memory_used is not None:
        used, total = card.memory_used, card.memory_total
        text += f"  {units.gigabytes(used)} of {units.gigabytes(total)} GB"
    if card.power_w is not None:
        text += f"  {significant(card.power_w)} W"
    return text


def _late(summary: Summary) -> str:
    late, generator = summary.lateness_ms, summary.generator
    parts = []
    if late["p99"] is not None:
        bands = summary.more_bands_ms.get("lateness_ms", {})
        p50, p99 = (
            f"{significant(late[key])}{within(late[key], bands.get(key))}" for key in ("p50", "p99")
        )
        parts.append(
            f"the generator sent p50 {p50}   p99 {p99}   max {significant(late['max'])} ms"
            f" after the due time{_unbounded(summary, 'lateness_ms')}"
        )
    if generator["stall_cause"]:  # short ones are not looked into
        why, _ = cause(generator["stall_cause"])
        parts.append(f"stood still for {significant(generator['stall_ms'])} ms: {why}")
    return "   ".join(parts)


def _unsure(summary: Summary) -> list[str]:
    """How sure the percentiles in the alerts and notes above are, once for all of them."""
    return [
        *([OF_ALERTS] if any(one.no_band for one in summary.alerts) else []),
        *of_notes(summary),
    ]


def _notes(summary: Summary) -> list[str]:
    if not summary.notes:
        return []
    lines = [""]
    for note in summary.notes:
        lines.append(f"  · {note.text}" + (f": {note.hint}" if note.hint else ""))
    return lines
