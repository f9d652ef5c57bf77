"""The table [target.metrics] of a scenario: where a server of others tells of its inside, and by
which names."""

import re
from urllib.parse import urlsplit

from pydantic import field_validator

from loadbench.errors import SpecError
from loadbench.loadspec import Section
from loadbench.targets.figures import FIGURES, expression

_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_PAGES = 4  # all are read each second


def without_password(url: str, hint: str) -> str:
    """The address as it is; it stands in the names of folders, in logs and in snapshots. ValueError
    if it holds a name or a password, with the hint where else they can be."""
    try:
        place = urlsplit(url).netloc
    except ValueError as error:
        said = "it is no address: write it like http://host:8000 or http://[::1]:8000"
        raise ValueError(said) from error  # a password may stand in it
    if "@" in place:
        raise ValueError(f"an address holds no name and no password: {hint}")
    return url


def _fault(url: str) -> str:
    """What cannot be asked for; empty for an address that can be."""
    try:
        where = urlsplit(url)
        (where.hostname or "").encode("idna")
        known = where.scheme in ("http", "https") and where.hostname and where.port != 0
    except ValueError as error:
        return f" ({error})"
    return "" if known and url.isprintable() else " of a page"


class MetricsSpec(Section):
    """Names are expressions as `targets.exposition` has them; those of servers that are known need
    not be given."""

    url: str | list[str] = "auto"  # where Prometheus would ask, one page or several; "off": nowhere
    requests: str = ""  # answered, since the server started
    failed: str = ""
    queue: str = ""  # time, of all requests together or as a histogram
    compute: str = ""
    batch: str = ""  # rows by batch, a histogram
    waiting: str = ""  # requests, now
    process: str | list[str] = ""  # labels that tell processes apart, besides the usual ones

    @property
    def given(self) -> dict[str, str]:
        """The figures whose names the scenario gives."""
        return {key: text for key in FIGURES if (text := getattr(self, key))}

    @property
    def labels(self) -> tuple[str, ...]:
        """Those that the scenario says tell processes apart."""
        found = [self.process] if isinstance(self.process, str) else self.process
        return tuple(filter(None, found))

    @property
    def urls(self) -> list[str]:
        """The pages that the scenario names; none where they are to be found, or not to be read."""
        if isinstance(self.url, list):
            return self.url
        return [] if self.url in ("auto", "off") else [self.url]

    @property
    def secure(self) -> bool:
        """Whether one of those pages is spoken to by https."""
        return any(urlsplit(url).scheme == "https" for url in self.urls)

    @field_validator("url")
    @classmethod
    def _are_addresses(cls, url: str | list[str]) -> str | list[str]:
        if url in ("auto", "off"):
            return url
        found = url if isinstance(url, list) else [url]
        if not 1 <= len(found) <= _MOST_PAGES:
            raise ValueError(f"one to {_MOST_PAGES} pages")
        for one in found:
            without_password(
                one, "target.headers go to it if it is at the target's own host and port"
            )
            if fault := _fault(one):
                words = '"http://host:8002/metrics", several of them, "auto" or "off"'
                raise ValueError(f"{one!r} is no address{fault}: {words}")
        return url

    @field_validator("process")
    @classmethod
    def _are_labels(cls, process: str | list[str]) -> str | list[str]:
        for one in [process] if isinstance(process, str) else process:
            if one and not _LABEL.fullmatch(one):
                raise ValueError(f'{one!r} is no name of a label: write it like process = "rank"')
        return process

    @field_validator(*FIGURES)
    @classmethod
    def _is_an_expression(cls, text: str, info: object) -> str:
        if text:
            try:
                expression(getattr(info, "field_name", ""), text)
            except SpecError as error:
                raise ValueError("; ".join(filter(None, (error.message, error.hint)))) from error
        return text
