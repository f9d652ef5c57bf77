"""One model's versions: which are loaded, which of them answers what, and what each has done.

Requests that name no version go to the current one; a canary takes a share of them, a shadow runs
them too. Changes are made between two requests, on the event loop's thread, so that each request
has exactly one version. Loading is the business of `repository`.
"""

import re
from typing import Any, NamedTuple

import msgspec

from loadbench.engine.arrivals import ArrivalLog
from loadbench.engine.canary import Canary
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.exchange import Inferring
from loadbench.engine.orders import Directions
from loadbench.engine.shadow import Mirror
from loadbench.engine.statistics import Account
from loadbench.engine.store import Stamp
from loadbench.engine.tensors import Refused
from loadbench.inside import EngineStatistics
from loadbench.model import Note
from loadbench.spec import EngineSpec

ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}")
RETIRED = 16  # versions no longer loaded that are told of
ALIASES = 32


class Loaded(NamedTuple):
    """A version that is ready, and what it was made of."""

    number: str
    endpoint: Endpoint
    settings: EngineSpec
    stamp: Stamp


class Row(NamedTuple):
    """A line of the index."""

    name: str
    version: str
    state: str
    reason: str


class Versions:
    """The versions of one model."""

    def __init__(self, name: str, arrivals: ArrivalLog | None) -> None:
        self.name = name
        self.loaded: dict[str, Loaded] = {}
        self.current = ""
        self.wanted: set[str] = set()  # loaded whether they are current or not
        self.canary: Canary | None = None
        self.mirror: Mirror | None = None
        self.aliases: dict[str, str] = {}
        self.leaving: dict[str, Loaded] = {}  # drained, until the last request is answered
        self.states: dict[str, tuple[str, str]] = {}  # of versions not loaded: state, reason
        self.reasons: dict[str, str] = {}  # of loaded ones
        self._arrivals = arrivals
        self._books: dict[str, Account] = {}
        self._retired: dict[str, dict[str, Any]] = {}

    # ---- who answers

    def find(self, version: str) -> Loaded | None:
        """A version by its number or an alias; the current one for an empty name."""
        return self.loaded.get(self._number(version))

    def _number(self, version: str) -> str:
        if not version or (version == "stable" and version not in self.aliases):
            return self.current
        if version == "latest" and version not in self.aliases:
            return max(self.loaded, key=int, default="")
        return self.aliases.get(version, version)

    def names(self) -> list[str]:
        """The versions, the oldest first."""
        return sorted(self.loaded, key=int)

    def routes(self) -> dict[str, Inferring]:
        """Who answers infer calls, by the version in the path; "" for calls that name none."""
        found: dict[str, Inferring] = {}
        for alias in ("stable", "latest", *self.aliases, *self.loaded):
            if loaded := self.find(alias):
                found[alias] = loaded.endpoint
        if self.canary or self.mirror:
            found[""] = self.canary or self.mirror  # type: ignore[assignment]
        elif current := self.find(""):
            found[""] = current.endpoint
        return found

    def books(self, version: str) -> Account:
        """What a version has done; it goes on counting when the version is loaded again."""
        if version not in self._books:
            self._books[version] = Account(self._arrivals)
        return self._books[version]

    def all_books(self) -> list[Account]:
        """Of all versions that are remembered."""
        return list(self._books.values())

    # ---- changes

    def put(self, loaded: Loaded) -> None:
        """A version that is ready, in the place of one of the same number."""
        self._end_trial(loaded.number)
        if old := self.loaded.get(loaded.number):
            self.leaving[loaded.number] = old
        self.loaded[loaded.number] = loaded
        self.reasons.pop(loaded.number, None)
        self.states.pop(loaded.number, None)
        self._retired.pop(loaded.number, None)

    def use(self, number: str) -> None:
        """Requests without a version go to this one from now on, all of them."""
        self.end_trial()
        self.current = number
        self.reasons.pop(number, None)

    def keep(self) -> None:
        """Whatever is neither wanted nor current, nor on trial nor has an alias, leaves."""
        kept = {self.current, *self.wanted, *self.aliases.values(), *self._on_trial()}
        for number in self.loaded.keys() - kept:
            self.remove(number)

    def remove(self, number: str) -> None:
        """The version takes no more requests. Another one becomes current if it was."""
        self._end_trial(number)
        self.wanted.discard(number)
        self.leaving[number] = self.loaded.pop(number)
        self.aliases = {name: found for name, found in self.aliases.items() if found != number}
        self.reasons.pop(number, None)
        if self.current == number:
            self.current = max(self.loaded, key=int, default="")

    def left(self, number: str) -> None:
        """The last request of a version that was removed is answered."""
        gone = self.leaving.pop(number)
        if number not in self.loaded:
            self.states[number] = ("UNAVAILABLE", "unloaded")
            self._retired[number] = self._told(gone, "unloaded")
            for oldest in list(self._retired)[:-RETIRED]:
                del self._retired[oldest], self._books[oldest]
                self.states.pop(oldest, None)

    def direct(self, asked: Directions, seed: int) -> None:
        """Changes who answers: all that is asked, or nothing. Raises Refused."""
        current = self.current if asked.version is None else asked.version
        if asked.version is not None:
            self._require(current)
        for alias, number in asked.aliases.items():
            if not ALIAS.fullmatch(alias):
                raise Refused(400, f"{alias!r} is no alias: small letters, digits, - and _")
            if number is not None:
                self._require(number)
        named = (self.aliases | asked.aliases).items()
        aliases = {alias: number for alias, number in named if number is not None}
        if len(aliases) > ALIASES:
            raise Refused(400, f"{ALIASES} aliases are all that a model may have")
        if asked.trial is not None:
            self._require_twin(asked.trial, current)
        self.aliases = aliases
        if asked.version is not None:
            self.use(current)
        if asked.trial is not None:
            self.try_out(asked.trial, asked.share, seed)
        elif asked.ends:
            self.end_trial()
        if asked.version is not None:
            self.keep()

    def _require(self, number: str) -> None:
        if number not in self.loaded:
            raise Refused(404, f"{self.name} has no version {number!r}")

    # ---- trials

    def try_out(self, number: str, share: float | None, seed: int) -> None:
        """A canary with that share, or a shadow without one. Raises Refused."""
        new, old = self._require_twin(number, self.current)
        self.end_trial()
        self.reasons.pop(number, None)
        if share is not None:
            self.canary = Canary(old.endpoint, new.endpoint, share, seed)
            return
        self.mirror = Mirror(old.endpoint, new.endpoint)
        new.endpoint.batcher.account = Account()  # nobody asked for what it does

    def _require_twin(self, number: str, current: str) -> tuple[Loaded, Loaded]:
        """That version and the one that is to be current: two of the same signature."""
        new, old = self.find(number), self.loaded.get(current)
        if new is None or old is None or new is old:
            raise Refused(400, f"version {number} is not another version than the current one")
        for what in ("inputs", "outputs"):
            if getattr(new.endpoint.signature, what) != getattr(old.endpoint.signature, what):
                raise Refused(400, f"the {what} of version {number} are others than of version "
                                   f"{old.number}")  # fmt: skip
        return new, old

    def end_trial(self) -> None:
        """No canary and no shadow any more."""
        self.canary = None
        if self.mirror is not None:
            self.mirror.close()
            version = self.mirror.new.signature.version
            self.mirror.new.batcher.account = self.books(version)
            self.mirror = None

    def judge(self) -> str:
        """Gives the canary up if it is bad; says why, or nothing."""
        if self.canary is None or not (why := self.canary.verdict()):
            return ""
        number = self.canary.new.endpoint.signature.version
        self.end_trial()
        self.reasons[number] = f"rolled back: {why}"
        text = f"{self.name} version {number} was rolled back: {why}"
        self.books(number).remark(Note("rolled-back", text, "see what it logged; load another"))
        return text

    def _on_trial(self) -> list[str]:
        trials = [self.canary.new.endpoint] if self.canary else []
        trials += [self.mirror.new] if self.mirror else []
        return [endpoint.signature.version for endpoint in trials]

    def _end_trial(self, number: str) -> None:
        """Ends a trial that the version has part in."""
        if number in (self.current, *self._on_trial()):
            self.end_trial()

    # ---- what is told

    def role(self, number: str) -> tuple[str, float]:
        """What a version is here for, and its share of the requests that name no version."""
        on_trial = number in self._on_trial()
        given = self.canary.share if self.canary else 0.0
        if number == self.current:
            return "current", 1.0 - given
        if on_trial:
            return ("canary", given) if self.canary else ("shadow", 0.0)
        return ("loaded" if number in self.loaded else "unloaded"), 0.0

    def rows(self) -> list[Row]:
        """The index of this model."""
        states = {
            number: ("READY", self.reasons.get(number, "")) for number in self.loaded
        }  # fmt: skip
        for number in self.leaving.keys() - self.loaded.keys():
            states[number] = ("UNLOADING", "")
        for number, (state, reason) in self.states.items():
            if number not in states:
                states[number] = (state, reason)
            elif reason and not states[number][1]:
                states[number] = (states[number][0], reason)
        return [Row(self.name, number, *states[number]) for number in sorted(states, key=_order)]

    def statistics(self) -> list[dict[str, Any]]:
        """Of all versions, those included that are no longer loaded: totals never shrink."""
        present = [*self.loaded.values()]
        present += [gone for number, gone in self.leaving.items() if number not in self.loaded]
        told = {loaded.number: self._told(loaded, *self.role(loaded.number)) for loaded in present}
        return [found for _, found in sorted({**self._retired, **told}.items(), key=_order)]

    def _told(self, loaded: Loaded, role: str, share: float = 0.0) -> dict[str, Any]:
        found = loaded.endpoint.statistics()
        ours: EngineStatistics = found["loadbench"]
        shadow = self.mirror.told() if self.mirror and role == "shadow" else None
        reason = self.reasons.get(loaded.number, "")
        recent = () if role == "unloaded" else ours.recent
        found["loadbench"] = msgspec.structs.replace(
            ours, role=role, share=share, reason=reason, shadow=shadow, recent=recent
        )
        return found


def _order(found: Any) -> int:
    """By version; what has no number yet comes first."""
    number = found[0] if isinstance(found, tuple) else found
    return int(number) if number.isdecimal() else -1
