"""The table [alerts] of a scenario: where a run tells of its alerts, beside its log and the screen.

What has to stay secret is named, never written: `$NAME` is taken from the environment when it is
needed, so neither the scenario nor a snapshot of it holds more than the name. Whether a scenario
may have that, and how messages are sent, is the runner's business.
"""

import shlex
from typing import Annotated, Any
from urllib.parse import urlsplit

from loadbench import environment, units
from loadbench.errors import SpecError
from loadbench.loadspec import Duration, Section, written

_MOST, _MOST_WORDS = 4096, 64  # characters, words of a command
_LONGEST_NS = 60 * units.SECOND


def _webhook(raw: Any) -> Any:
    if not isinstance(raw, str) or not raw:
        return raw
    parts = urlsplit(environment.NAME.sub("x", raw))
    hint = 'write it like "https://host/path"; $NAME is taken from the environment'
    if parts.scheme not in ("http", "https") or not parts.hostname or len(raw) > _MOST:
        if raw.startswith("$"):  # all of it is secret: looked at when it is used
            return raw
        raise SpecError("that is not the address of a webhook", hint)
    if parts.username is not None or not raw.isprintable():
        raise SpecError("a webhook's address holds no password", 'token = "$NAME" sends one')
    return raw


def _token(raw: Any) -> Any:
    if isinstance(raw, str) and raw and not environment.NAME.fullmatch(raw):
        raise SpecError("a token is never written into a scenario", 'name it: token = "$NAME"')
    return raw


def _command(raw: Any) -> Any:
    words = [raw] if isinstance(raw, str) else raw
    if isinstance(words, list | tuple) and words and (not words[0] or len(words) > _MOST_WORDS):
        raise SpecError("that is not a command", 'write it like ["notify-send", "loadbench"]')
    return tuple(words) if isinstance(words, list) else words


def _timeout(raw: Any) -> Any:
    found = units.parse_duration(raw)
    if not 0 < found <= _LONGEST_NS:
        raise SpecError(f"{raw!r} is no time to wait for an answer", "1 ms to 60 s")
    return raw


class AlertsSpec(Section):
    """Each alert that begins to fire or ends goes to all that is named here."""

    webhook: Annotated[str, *written(_webhook)] = ""  # gets it as JSON, by POST
    token: Annotated[str, *written(_token)] = ""  # `$NAME`: the webhook's bearer token
    command: Annotated[tuple[str, ...], *written(_command, "array")] = ()  # JSON on its stdin
    timeout: Annotated[Duration, *written(_timeout)] = 5 * units.SECOND  # of each

    @property
    def foreign(self) -> str:
        """In a sentence what must be allowed before: a command that is run, or that something of
        the environment is sent away; or empty."""
        if self.command:
            return f"[alerts] runs a command: {shlex.join(self.command)[:120]}"
        if self.token or environment.names(self.webhook):
            return "[alerts] sends a value of your environment to its webhook"
        return ""

    def address(self) -> tuple[str, str]:
        """(webhook, token) with the values of the variables they name. SpecError if one is not
        set."""
        webhook, token = (
            environment.filled(text, "[alerts]") for text in (self.webhook, self.token)
        )
        return webhook, token
