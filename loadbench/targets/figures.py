"""Which figures are read of a page of metrics, and from what: the names that are given, and those
of a vocabulary that its server speaks. What they come to is for `metrics` to say.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from loadbench.errors import SpecError
from loadbench.model import Note
from loadbench.targets.exposition import Expression, Page, Term, parsed
from loadbench.targets.vocabularies import VOCABULARIES, Vocabulary

FIGURES = ("requests", "failed", "queue", "compute", "batch", "waiting")
# `whole` is all of a request's time in the server: what its stages leave of it is its queue
TIMES = ("queue", "compute", "compute_input", "compute_output", "whole")
MODEL_LABELS = ("model", "model_name", "ModelName", "deployment")


class Wanted(NamedTuple):
    """Which figures are read, and from what; `source` says whose names they are. Without a `model`
    all series count, else those of no other; `notes` say how a figure comes about. Figures that are
    `shared` by all models are read as long as the `vocabulary` tells of one alone. The labels in
    `process` tell processes apart, besides those that are known to."""

    source: str
    figures: Mapping[str, Expression]
    model: str = ""
    notes: tuple[Note, ...] = ()
    shared: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None
    process: tuple[str, ...] = ()


def wanted(found: Page, given: Mapping[str, str], model: str = "") -> Wanted | None:
    """What to read of a server whose page is this one: the names that are given, beside those of a
    vocabulary that it speaks. None if there is nothing to read. Raises SpecError for what is given
    and no expression, or not there."""
    known = next((one for one in VOCABULARIES if any(map(one.speaks, found))), None)
    own = _better(known, found) if known else {}
    shared = (
        tuple(key for key in known.shared if key in own and not given.get(key)) if known else ()
    )
    own |= {key: text for key, text in given.items() if text}
    texts = {**known.figures, **own} if known else own
    doubt = mixed(found, known, shared)
    if doubt:
        texts = {key: text for key, text in texts.items() if key not in shared}
    figures = {key: expression(key, text) for key, text in texts.items()}
    for key in given:
        if key in figures and not any(there(term, found) for term in figures[key].terms):
            raise SpecError(
                f"target.metrics.{key}: the server tells of no {figures[key].terms[0].name!r}",
                "it tells of " + ", ".join(sorted(found)[:12]),
            )
    if "requests" not in figures:  # a total of time has no mean without their number
        figures = {key: one for key, one in figures.items() if not _is_total(key, one, found)}
    if known is None:
        return narrowed(Wanted("metrics", figures), found, model) if figures else None
    doubts = [note for key, note in known.doubts.items() if key not in own]
    doubts += [note for key, note in known.remarks.items() if key in own and not given.get(key)]
    notes = (doubt,) if doubt else tuple(doubts[:1])
    if not figures and not notes:
        return None
    asked = Wanted(f"metrics of {known.server}", figures, "", notes, shared, known)
    return narrowed(asked, found, model)


def mixed(found: Page, known: Vocabulary | None, shared: Collection[str]) -> Note | None:
    """What there is to say where a figure that is wanted counts for several models at once."""
    if known is None or not shared:
        return None
    labels = [pair for name in found if known.speaks(name) for one in found[name] for pair in one]
    if len({value for label, value in labels if label in MODEL_LABELS}) < 2:
        return None
    text = f"{known.server} counts the answers of all its models together, and it has several: of"
    text += " which they were is not told, so neither a queue is, nor a compute that is made of one"
    return Note("queue-untold", text, "both would be of a server with one model alone")


def _is_total(key: str, one: Expression, found: Page) -> bool:
    """Whether a figure is a time added up, without a count of its own."""
    return key in TIMES and not any(f"{term.name}_sum" in found for term in one.terms)


def _better(known: Vocabulary, found: Page) -> dict[str, str]:
    """What stands in for figures of the vocabulary on this page."""
    return {
        key: text
        for key, texts in known.better.items()
        for text in reversed(texts)  # the first of them is to remain
        if all(f"{term.name}_sum" in found for term in parsed(text).terms)
    }


def narrowed(asked: Wanted, found: Page, model: str) -> Wanted:
    """Of the model alone, from when a page tells of it: its series may vanish, and those of
    others are not to stand in for them. Some servers have none of a model until it is asked;
    some have other names for it."""
    return asked._replace(model=model) if model and tells_of(found, model) else asked


def tells_of(found: Page, model: str) -> bool:
    """Whether any series is of that model."""
    own = {(label, model) for label in MODEL_LABELS}
    return any(own & set(labels) for series in found.values() for labels in series)


def expression(key: str, text: str) -> Expression:
    """Of a figure. Raises SpecError, also for a time without a unit."""
    found = parsed(text)
    if key in TIMES and found.ns is None:
        raise SpecError(f"{text!r} does not say its unit", f'write it like "{text} in ms"')
    return found


def there(term: Term, found: Page) -> bool:
    """Whether the page has the name, or a histogram of that name."""
    return any(term.name + suffix in found for suffix in ("", "_sum"))
