"""What calls that change models ask for, settled before anything is changed: which versions to
load, from where, by which settings, how the newest one begins; and who is to answer. Loading is the
business of `repository`, who answers that of `versions`."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from loadbench.engine.arrivals import ArrivalLog
from loadbench.engine.assembly import Wanted
from loadbench.engine.modelconfig import Configured, Versions, configured
from loadbench.engine.shared import Regions
from loadbench.engine.store import VERSION, Source, Store
from loadbench.engine.tensors import Refused
from loadbench.engine.uploads import Uploads
from loadbench.errors import LoadbenchError
from loadbench.spec import EngineSpec
from loadbench.units import parse_share

KNOWN = ("canary", "config", "shadow", "version")
DIRECTED = ("aliases", "canary", "shadow", "share", "version")
SHARE = 0.1  # of a canary for which none is said


class Offer(NamedTuple):
    """What the engine was started with."""

    models: tuple[str, ...]
    settings: EngineSpec
    trust: bool
    arrivals: ArrivalLog | None = None
    regions: Regions | None = None  # of shared memory; None: off


class Order(NamedTuple):
    """The versions to be served, the oldest first; `share` of the requests for the newest, as a
    canary (0: it takes over), `shadow` says that it only runs beside. `lasting`: the older ones are
    not there for its trial only."""

    wanted: tuple[Wanted, ...]
    lasting: bool
    share: float
    shadow: bool
    seed: int
    held: object = None  # while this is kept, so are files that came with the call


class Directions(NamedTuple):
    """Who is to answer. `share` is that of a canary (None: it is a shadow); no `trial`: the one
    there is `ends`, or all stays as it is. Aliases of None go."""

    version: str | None
    trial: str | None
    share: float | None
    ends: bool
    aliases: dict[str, str | None]


class Orders:
    """Reads load calls."""

    def __init__(self, offer: Offer, store: Store) -> None:
        self._offer = offer
        self._store = store
        self._uploads = Uploads()

    def of(self, name: str, parameters: Mapping[str, Any]) -> Order:
        """Raises Refused for what may not be asked, SpecError for what is wrong in files."""
        for key in parameters:
            if key not in KNOWN and not key.startswith("file:"):
                raise Refused(400, f"unknown parameter {key!r}: {', '.join(KNOWN)}")
        source = self._source(name, parameters)
        found = self._configured(source, parameters.get("config"))
        settings = found.settings
        asked = parameters.get("version")
        if asked is not None and not VERSION.fullmatch(str(asked)):
            raise Refused(400, f"{asked!r} is no version: they are whole numbers")
        share = share_of(parameters.get("canary", settings.canary))
        shadow = parameters.get("shadow", settings.shadow)
        if not isinstance(shadow, bool) or (shadow and share):
            raise Refused(400, "shadow is true or false, and not beside a canary")
        there = source.versions()
        versions: list[tuple[str | None, str]] = [(asked and str(asked), source.what)]
        if there:
            policy = found.versions or Versions(2 if share or shadow else 1)
            policy = policy if asked is None else Versions(None, (str(asked),))
            versions = [(number, there[number]) for number in policy.of([*there])]
        trust, regions = self._offer.trust, self._offer.regions
        wanted = tuple(
            Wanted(name, number, what, settings, trust, regions) for number, what in versions
        )
        lasting = found.versions is not None or not (share or shadow)
        return Order(wanted, lasting, share, shadow, settings.seed, source.held)

    def _source(self, name: str, parameters: Mapping[str, Any]) -> Source:
        files = {key: value for key, value in parameters.items() if key.startswith("file:")}
        if not files:
            if source := self._store.source(name):
                return source
            raise Refused(404, f"there is no model {name!r} below what the engine was started with")
        if not self._offer.trust:
            raise Refused(403, "files in a load call need an engine that was started with --trust")
        return self._uploads.take(name, files)

    def _configured(self, source: Source, given: Any) -> Configured:
        """The engine's settings, changed by the call or else by the model's config.json."""
        settings, trust = self._offer.settings, self._offer.trust
        if given is None:
            return configured(source.config(), settings, f"{source.name}/config.json", trust=trust)
        try:
            found = msgspec.json.decode(given) if isinstance(given, str) else given
        except (msgspec.DecodeError, RecursionError) as error:
            raise Refused(400, f"config is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise Refused(400, "config is no object")
        return configured(found, settings, "config")


def directions_of(asked: Mapping[str, Any]) -> Directions:
    """Reads a traffic call. Raises Refused."""
    for key in asked.keys() - set(DIRECTED):
        raise Refused(400, f"unknown {key!r}: {', '.join(DIRECTED)}")
    aliases = asked.get("aliases", {})
    if not isinstance(aliases, Mapping):
        raise Refused(400, "aliases maps names to versions")
    if "canary" in asked and "shadow" in asked:
        raise Refused(400, "a canary or a shadow, not both")
    if "share" in asked and "canary" not in asked:
        raise Refused(400, "a share is of a canary: name that, too")
    trial = asked.get("canary", asked.get("shadow"))
    return Directions(
        version=str(asked["version"]) if "version" in asked else None,
        trial=None if trial is None else str(trial),
        share=share_of(asked.get("share", SHARE)) if "canary" in asked else None,
        ends=trial is None and ("canary" in asked or "shadow" in asked),
        aliases={key: None if found is None else str(found) for key, found in aliases.items()},
    )


def share_of(found: Any) -> float:
    """A share as people and programs write it: 0.1 or "10 %". Raises Refused."""
    try:
        share = parse_share(found) if isinstance(found, str) else float(found)
    except (LoadbenchError, TypeError, ValueError):
        share = math.nan
    if isinstance(found, bool) or not 0 <= share <= 1:
        raise Refused(400, f'{found!r} is no share: 0 to 1, or "10 %"')
    return share
