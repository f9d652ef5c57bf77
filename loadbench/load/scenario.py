"""A scenario as a load, for those who run it under Locust's own command line."""

from loadbench import alerts, spec
from loadbench.errors import SpecError
from loadbench.load.ready import Load, make_ready
from loadbench.plan import planned
from loadbench.targets.ask import Asker


def ready(name: str, host: str | None) -> Load:
    """The scenario of this name or path against `host`, else against its own target.

    Raises SpecError and TargetError.
    """
    found = spec.load(name).spec
    url = host or found.target.url
    if url.startswith("local:"):
        model = url.removeprefix("local:")
        raise SpecError(
            f"scenario {name!r} wants an engine of its own ({url})",
            f"start it with `loadbench serve {model}` and give its address as --host",
        )
    with Asker(url, found.target.protocol, found.target.tls, found.target.headers) as asker:
        endpoint = asker.describe(found.target)
    rules = alerts.changed(alerts.built_in(False), [])
    limit = alerts.latency_limit(rules, found.checks)
    return make_ready(planned(found, endpoint, found.load.resolve(), limit))
