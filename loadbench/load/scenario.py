"""A scenario as a load, for those who run it under Locust's own command line."""

from collections.abc import Sequence

from loadbench import alerts, spec
from loadbench.bounds import require_bounded
from loadbench.errors import SpecError
from loadbench.load.ready import Load, make_ready
from loadbench.plan import Endpoint, planned
from loadbench.targets.ask import Asker
from loadbench.targetspec import TargetSpec


def ready(name: str, host: str | None) -> Load:
    """The scenario of this name or path against `host`, else against its own target with all of
    its replicas.

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
    aimed = found.target.model_copy(update={"url": url, "replicas": ()} if host else {})
    require_bounded(found.model_copy(update={"target": aimed}))
    endpoint, *replicas = _asked(found.target, [url, *(() if host else found.target.replicas)])
    rules = alerts.changed(alerts.built_in(False), [])
    limit = alerts.latency_limit(rules, found.checks)
    return make_ready(planned(found, endpoint, found.load.resolve(), limit, replicas))


def _asked(target: TargetSpec, urls: Sequence[str]) -> list[Endpoint]:
    found: list[Endpoint] = []
    for url in urls:
        with Asker(url, target.protocol, target.tls, target.headers) as asker:
            told = asker.describe(target, found[0] if found else None)
        found.append(told)
    return found
