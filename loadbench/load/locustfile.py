"""People's own Locust files: imported and set up the way Locust's command line does it.

What is wrong with a file is said in one message with its line. Running it is `journey`'s.
"""

import contextlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import locust
from locust.argument_parser import get_parser
from locust.env import Environment
from locust.shape import LoadTestShape
from locust.user import User
from locust.util.load_locustfile import load_locustfile, load_locustfile_pytest

from loadbench.courtesy import OWN, elsewhere
from loadbench.errors import SpecError
from loadbench.load import abroad, headers
from loadbench.plan import Journey

_UNCAUGHT = "Uncaught exception in event handler"


class Complaints(logging.Handler):
    """Hears what listeners of the file raised: Locust logs that, and goes on."""

    def __init__(self, file: str) -> None:
        super().__init__(logging.ERROR)
        self.count = 0
        self.first = ""
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if error is not None and record.getMessage().startswith(_UNCAUGHT):
            self.count += 1
            self.first = self.first or told(error, self._file)


def told(error: BaseException, file: str) -> str:
    """`users.py line 12: KeyError: 'models'`: where in the file it came from, and what it was."""
    what = traceback.format_exception_only(error)[-1].strip()
    line = _line(error.__traceback__, file)
    if isinstance(error, SyntaxError) and error.filename:
        file, line = os.path.relpath(error.filename), error.lineno
        what = f"{type(error).__name__}: {error.msg}"
    what = " ".join(what.split())  # one line, also of what was written in several
    return f"{file} line {line}: {what}" if line else f"{file}: {what}"


def _line(trace: TracebackType | None, file: str) -> int | None:
    """The deepest line of the file in a traceback."""
    path = os.path.abspath(file)
    lines = [
        number
        for frame, number in traceback.walk_tb(trace)
        if os.path.abspath(frame.f_code.co_filename) == path
    ]
    return lines[-1] if lines else None


def set_up(
    journey: Journey, complaints: Complaints, end: Callable[[SpecError], None]
) -> Environment:
    """The environment with its runner, its file imported, its `init` listeners called. Raises
    SpecError. `end` is called with one when its users go where so many must not."""
    users, shapes = _imported(journey.file)
    chosen = _chosen(users, journey)
    options = _options(journey)
    try:
        environment = Environment(
            locustfile=Path(journey.file).name,
            user_classes=chosen,
            shape_class=shapes[0] if shapes else None,
            events=locust.events,
            host=journey.host or options.host,
            parsed_options=options,
            parsed_locustfiles=[journey.file],
            available_user_classes=users,
            available_shape_classes={type(shape).__name__: shape for shape in shapes},
            available_user_tasks={name: found.tasks for name, found in users.items()},
        )
    except ValueError as error:
        raise SpecError(f"{journey.file}: {error}") from error
    _require_few(environment, journey, end)
    headers.lend(journey.headers, chosen, environment.host)
    runner = environment.create_local_runner()
    environment.events.init.fire(environment=environment, runner=runner, web_ui=None)
    if complaints.count:  # Locust would not start either
        raise SpecError(complaints.first, "a listener of the file raised it, before the load began")
    return environment


def _require_few(
    environment: Environment, journey: Journey, end: Callable[[SpecError], None]
) -> None:
    """SpecError if a host which may be somebody else's would get more users than it is to: only the
    file knows which host that is, and whether a shape of its own says how many users there are.
    What it does not say beforehand is seen when a user goes there, and ends the load."""
    if journey.most is None or not (environment.shape_class or journey.users > journey.most):
        return
    for host in _hosts(environment):
        if elsewhere(host):
            raise _too_many(environment, journey, host)
    abroad.watch(lambda url: end(_too_many(environment, journey, url)))


def _too_many(environment: Environment, journey: Journey, host: str) -> SpecError:
    whose = f"{_origin(host)} may be somebody else's: it gets {journey.most} users at most"
    if environment.shape_class:
        shape = type(environment.shape_class).__name__
        return SpecError(f"{journey.file}: {shape} says how many users run, and {whose}", OWN)
    return SpecError(f"{journey.file}: {whose}, not {journey.users}", OWN)


def _origin(url: str) -> str:
    """Of an address what is no secret."""
    if "://" not in url:
        return url.rpartition("@")[2]
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _imported(file: str) -> tuple[dict[str, type[User]], list[LoadTestShape]]:
    sys.path.insert(0, os.getcwd())
    try:
        users, shapes = load_locustfile(os.path.abspath(file))
        users = users or load_locustfile_pytest(os.path.abspath(file))  # functions named test_…
    except SystemExit as error:
        raise SpecError(
            f"{file}: it ends itself while it is imported (exit {error.code})"
        ) from error
    except Exception as error:  # whatever the file may raise
        raise SpecError(told(error, file), "it fails in the same way under Locust") from error
    if not users:
        hint = "a Locust file has a class like: class Visitor(HttpUser)"
        raise SpecError(f"{file}: it has no users", hint)
    return users, shapes


def _chosen(users: dict[str, type[User]], journey: Journey) -> list[type[User]]:
    absent = [name for name in journey.user_classes if name not in users]
    if absent:
        raise SpecError(
            f"load.user_classes: {journey.file} has no {', '.join(absent)}",
            f"it has {', '.join(users)}",
        )
    return [users[name] for name in journey.user_classes or users]


def _options(journey: Journey) -> Any:
    """Locust's own options and those the file adds; the latter as `load.arguments` say."""
    words = ["--headless", "--users", str(journey.users)]
    words += ["--spawn-rate", str(spawn_rate(journey))]
    words += ["--host", journey.host] if journey.host else []
    words += ["--tags", *journey.tags] if journey.tags else []
    words += ["--exclude-tags", *journey.exclude_tags] if journey.exclude_tags else []
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return get_parser(default_config_files=[]).parse_args([*words, *journey.arguments])
    except SystemExit as error:
        text = said.getvalue().strip().rpartition("error: ")[2]
        hint = "options that the file adds are given as --set 'load.arguments=--name value'"
        raise SpecError(f"{journey.file}: {text}", hint) from error


def spawn_rate(journey: Journey) -> float:
    """Users per second; all in the first one, but no faster than Locust can be trusted to."""
    return journey.spawn_rate or float(min(journey.users, 100))


def hostless(environment: Environment) -> Iterator[str]:
    """The HTTP users that nobody told a host. Those that make it up as they begin do not count."""
    http = (locust.HttpUser, locust.FastHttpUser)
    for found in environment.user_classes:
        own = found.__init__ not in [kind.__init__ for kind in http]
        if issubclass(found, http) and not own and not (environment.host or found.host):
            yield found.__name__


def target(environment: Environment) -> str:
    """What the file aims at, as far as it says."""
    return ", ".join(map(_origin, _hosts(environment)))


def _hosts(environment: Environment) -> list[str]:
    hosts = [environment.host or found.host or "" for found in environment.user_classes]
    return list(dict.fromkeys(host for host in hosts if host))
