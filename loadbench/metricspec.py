"""The table [target.metrics] of a scenario: where a server of others tells of its inside, and by
which names."""

from urllib.parse import urlsplit

from pydantic import field_validator

from loadbench.errors import SpecError
from loadbench.loadspec import Section
from loadbench.targets.metrics import FIGURES, expression


def without_password(url: str, hint: str) -> str:
    """The address as it is; it stands in the names of folders, in logs and in snapshots. ValueError
    if it holds a name or a password, with the hint where else they can be."""
    if "@" in urlsplit(url).netloc:
        raise ValueError(f"an address holds no name and no password: {hint}")
    return url


class MetricsSpec(Section):
    """Names are expressions as `targets.exposition` has them; those of servers that are known need
    not be given."""

    url: str = "auto"  # where Prometheus would ask; "off": nowhere
    requests: str = ""  # answered, since the server started
    failed: str = ""
    queue: str = ""  # time, of all requests together or as a histogram
    compute: str = ""
    batch: str = ""  # rows by batch, a histogram
    waiting: str = ""  # requests, now

    @property
    def given(self) -> dict[str, str]:
        """The figures whose names the scenario gives."""
        return {key: text for key in FIGURES if (text := getattr(self, key))}

    @field_validator("url")
    @classmethod
    def _is_one(cls, url: str) -> str:
        if url not in ("auto", "off") and not url.startswith(("http://", "https://")):
            raise ValueError(f'{url!r} is no address: "http://host:8002/metrics", "auto" or "off"')
        return without_password(
            url, "target.headers go to it if it is at the target's own host and port"
        )

    @field_validator(*FIGURES)
    @classmethod
    def _is_an_expression(cls, text: str, info: object) -> str:
        if text:
            try:
                expression(getattr(info, "field_name", ""), text)
            except SpecError as error:
                raise ValueError("; ".join(filter(None, (error.message, error.hint)))) from error
        return text
