"""Prometheus's text format as servers tell it, and the expressions that name figures in it.

    nv_inference_queue_duration_us{model="mlp"}        all series that fit, added up
    request_seconds{code!="200"}                       of a histogram or summary: its sum and count
    infer_us + input_us - queue_us                     of several names
    work_total in ms                                   the unit of a time whose name does not say it

What the figures mean is for `metrics` to say.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from loadbench.errors import SpecError

_NAME = r"[A-Za-z_:][A-Za-z0-9_:]*"
_LABEL = r'[A-Za-z_][A-Za-z0-9_]*\s*!?=\s*"[^"]*"'
_TERM = re.compile(rf"\s*([+-]?)\s*({_NAME})\s*(?:\{{\s*({_LABEL}(?:\s*,\s*{_LABEL})*)?\s*\}})?\s*")
_MATCH = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)\s*(!?=)\s*"([^"]*)"')
_UNIT = re.compile(r"\s+in\s+(ns|us|µs|ms|s)\s*$")
_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_ENDINGS = (
    (re.compile(r"_(ns|nanoseconds?)$"), 1),
    (re.compile(r"_(us|microseconds?)$"), 1_000),
    (re.compile(r"_(ms|milliseconds?)$"), 1_000_000),
    (re.compile(r"_(s|seconds?)$"), 1_000_000_000),
)

# whole lines of them; they are most of a large page, and nothing is read of them
_BUCKET = re.compile(rf"^{_NAME}_bucket[ \t{{].*\n", re.MULTILINE)

ON_PAGE = "on page"  # a label as no server can have it
Labels = tuple[tuple[str, str], ...]
Page = Mapping[str, Mapping[Labels, float]]  # name, without `_total` → labels → value


class Term(NamedTuple):
    """One name of an expression, and the labels its series must or must not have."""

    sign: int
    name: str
    labels: tuple[tuple[str, bool, str], ...]  # name, whether equal, value

    def series(self, page: Page, suffix: str = "") -> Mapping[Labels, float] | None:
        """Of the series that fit; None if there is no such name."""
        found = page.get(self.name + suffix)
        if found is None:
            return None
        return {labels: value for labels, value in found.items() if self._fits(dict(labels))}

    def _fits(self, labels: Mapping[str, str]) -> bool:
        return all((labels.get(name, "") == value) is equal for name, equal, value in self.labels)


class Expression(NamedTuple):
    """Names added up; `ns` is what one of a time's unit is."""

    terms: tuple[Term, ...]
    ns: int | None = None


def parsed(text: str) -> Expression:
    """Raises SpecError."""
    unit = _UNIT.search(text)
    rest = text[: unit.start()] if unit else text
    terms: list[Term] = []
    at = 0
    while at < len(rest) or not terms:
        found = _TERM.match(rest, at)
        if found is None or (terms and not found[1]):
            raise SpecError(
                f"{text!r} names no metric",
                'write it like NAME, NAME{label="value"}, or several with + and - between them',
            )
        labels = tuple((m[1], m[2] == "=", m[3]) for m in _MATCH.finditer(found[3] or ""))
        terms.append(Term(-1 if found[1] == "-" else 1, plain(found[2]), labels))
        at = found.end()
    return Expression(tuple(terms), _NS[unit[1]] if unit else _told(terms))


def _told(terms: Iterable[Term]) -> int | None:
    """What the names say of their unit."""
    found = {ns for term in terms for ending, ns in _ENDINGS if ending.search(term.name)}
    return found.pop() if len(found) == 1 else None


def plain(name: str) -> str:
    """A counter's name is the same with and without its ending."""
    return name.removesuffix("_total")


def page(text: str, buckets: bool = False) -> Page:
    """A page of metrics; names that have no series yet, as before the first request, have an empty
    mapping. Raises ValueError if it is none. What is no number is left out, and so are `buckets`
    of histograms unless they are wanted."""
    # with its package come servers of its own, which nobody needs who only checks an expression
    from prometheus_client.parser import text_string_to_metric_families

    text = text if buckets else _BUCKET.sub("", text)
    found: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            found.setdefault(plain(family.name), {})
            if family.type in ("histogram", "summary"):
                found.setdefault(f"{family.name}_sum", {})
            for name, labels, value, *_ in family.samples:
                if math.isfinite(value):
                    found.setdefault(plain(name), {})[tuple(sorted(labels.items()))] = value
    except IndexError as error:  # of labels that break off, which the package does not expect
        raise ValueError("it breaks off amid a line") from error
    return found


def joined(pages: Mapping[str, Page]) -> Page:
    """The pages of several servers, by where each was found, as one. Series are told apart as
    Prometheus itself does it: by a label `instance`. Where the server has one, expressions may name
    it: that stays, beside another for the page."""
    found: dict[str, dict[Labels, float]] = {}
    for where, one in pages.items():
        for name, series in one.items():
            into = found.setdefault(name, {})
            for labels, value in series.items():
                told = dict(labels)
                place = ON_PAGE if "instance" in told else "instance"
                into[tuple(sorted({**told, place: where}.items()))] = value
    return found
