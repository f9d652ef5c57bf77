"""A conclusion as GitHub's workflow commands: lines that show as annotations of the job.

What failed is an error, what has no verdict a warning, with the smallest regression that may have
gone unseen. Data is escaped as GitHub's own toolkit does, so that no name can end its line and
begin a command.
"""

from collections.abc import Iterator

from loadbench.printable import harmless
from loadbench.report.conclusion import Conclusion

_MOST = 9  # of each kind: GitHub shows ten a step


def annotations(found: Conclusion) -> list[str]:
    """One line each, without their ends."""
    errors = [*_errors(found)]
    warnings = [*_warnings(found)]
    kind = "warning" if found.state == "no verdict" else "notice"  # the rest has one
    return [
        *(_command("error", title, text) for title, text in _bounded(errors)),
        *(_command(kind, title, text) for title, text in _bounded(warnings)),
    ]


def _errors(found: Conclusion) -> Iterator[tuple[str, str]]:
    if found.state == "error":
        text = "\n".join(filter(None, (found.sentence, found.hint)))
        what = "there is no baseline for it" if found.comparison else "the run could not be made"
        yield f"loadbench {found.scenario}: {what}", text
    for one in found.findings:
        if one.state == "failed" and found.state == "failed":
            kind = "check failed" if one.about == "check" else "regression"
            yield f"loadbench {found.scenario}: {kind}: {one.name}", one.text


def _warnings(found: Conclusion) -> Iterator[tuple[str, str]]:
    """One for all that has no verdict: it is mostly one reason."""
    if found.state == "no verdict":
        text = "\n".join(filter(None, (found.sentence, found.missed)))
        yield f"loadbench {found.scenario}: no verdict", text
        return
    for one in found.findings:
        if one.state == "no verdict":
            text = "\n".join(filter(None, (one.text, found.missed)))
            yield f"loadbench {found.scenario}: no verdict: {one.name}", text


def _bounded(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if len(found) <= _MOST:
        return found
    rest = len(found) - _MOST
    return [*found[:_MOST], (f"{rest} more", "; ".join(title for title, _ in found[_MOST:]))]


def _command(kind: str, title: str, text: str) -> str:
    return f"::{kind} title={_property(title)}::{_data(text)}"


def _data(text: str) -> str:
    text = harmless(text)
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
