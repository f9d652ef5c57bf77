"""One version of a model put together: opened, warmed up, with its batcher and its rule.

Where models come from is the business of `store`, what leads to them that of `repository`.
"""

from collections.abc import Callable
from typing import NamedTuple

from loadbench.engine import log
from loadbench.engine.backends import Model
from loadbench.engine.batcher import Batcher, Loop, Terms
from loadbench.engine.cache import ResponseCache
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.faults import Faults
from loadbench.engine.models import open_instances
from loadbench.engine.place import bucket_sizes, disputes, places
from loadbench.engine.policy import Level, Rule
from loadbench.engine.protocol import Contract
from loadbench.engine.service import ServiceTimes
from loadbench.engine.shared import Regions
from loadbench.engine.split import MOST_BATCHES
from loadbench.engine.statistics import Account
from loadbench.engine.unused import unused
from loadbench.engine.warmup import warm_up
from loadbench.engine.watch import watch
from loadbench.engine.watch.slow import SlowLog
from loadbench.model import Note
from loadbench.spec import EngineSpec

QUEUE_ROWS = 2048  # where no SLO says how many can still be served in time
QUEUE_BATCHES = 64
QUEUE_MOST = 65_536
QUEUE_BYTES = 1 << 30


class Wanted(NamedTuple):
    """What is to be opened, and as what it is to be known."""

    name: str
    version: str | None  # None: the version that the file names
    what: str  # as `open_model` takes it
    settings: EngineSpec
    trust: bool
    regions: Regions | None = None


def assemble(
    wanted: Wanted, account: Callable[[str], Account], loop: Loop, *, disturbed: bool = False
) -> Endpoint:
    """Opens and warms up; the endpoint's batcher is yet to be started. `account` gives the books
    of a version, `disturbed` says that other work runs beside the warm-up.

    Raises SpecError and RunError.
    """
    settings = wanted.settings
    models = open_instances(wanted.what, settings, trust=wanted.trust)
    model = models[0]
    rule = batching(model, settings)
    found = places(models, settings, rule.max_batch)
    disputed = disputes(found)
    unasked = "max_batch" not in settings.model_fields_set
    warm = warm_up(models, found, rule.max_batch, free=unasked, disturbed=disturbed)
    model.notes = (*model.notes, *disputed, *warm.notes, *unused(settings, model))
    times = found[0].service
    version = wanted.version or model.version
    waiting = queue_rows(settings, rule, times)
    contract = Contract.of(model, rule.max_batch, request_rows(settings, rule, waiting))
    contract = contract._replace(model=wanted.name, version=version, regions=wanted.regions)
    terms = Terms(rule, waiting, QUEUE_BYTES, settings.slo, found)
    books = account(version)
    watched = watch(models, settings.watch, _told(books, loop))
    if settings.watch.slow is not None:
        books.slow = SlowLog(settings.watch.slow)
    batcher = Batcher(watched.models, terms, times, books, loop)
    faults = Faults.of(settings.fake) if model.platform == "fake" else None
    endpoint = Endpoint(model, contract, batcher, faults, warm.median_ns)
    endpoint.watcher = watched.watcher
    batcher.failing = batcher.failing._replace(together=settings.on_error == "fail")
    if settings.cache:
        title = f"{wanted.name} {version}"
        endpoint.cache = ResponseCache(settings.cache, title, list(contract.inputs))
    return endpoint


def _told(books: Account, loop: Loop) -> Callable[[Note], None]:
    """Writes what comes up on stderr and into the books, which are the event loop's."""

    def tell(note: Note) -> None:
        log.write(f"note: {note.text}")
        loop.call_soon_threadsafe(books.remark, note)

    return tell


def batching(model: Model, settings: EngineSpec) -> Rule:
    """The batcher's rule: the settings, as far as the model goes along."""
    most = min(settings.max_batch, model.max_batch or settings.max_batch)
    if not model.batched:
        return Rule("none", 1)
    if sizes := bucket_sizes(model, settings):
        most = max((size for size in sizes if size <= most), default=sizes[0])
    levels = [
        Level(found.timeout, found.override, found.action == "delay", found.requests)
        for number in range(1, settings.priorities + 1)
        for found in [settings.level.get(number, settings.queue_policy)]
    ]
    normal = settings.default_priority or (settings.priorities + 1) // 2
    preferred = settings.preferred
    hold = settings.hold and settings.policy in ("deadline", "failfast")
    return Rule(settings.policy, most, settings.max_wait, preferred, tuple(levels), normal, hold)


def queue_rows(settings: EngineSpec, rule: Rule, service: ServiceTimes) -> int:
    """How many rows may wait: what can be done within the SLO; without one, 64 full batches and
    at least 2048 rows, so that a short standstill does not turn requests away."""
    if settings.queue is not None:
        return settings.queue
    if settings.slo is None:
        return max(QUEUE_ROWS, QUEUE_BATCHES * rule.max_batch)
    per_batch = max(service.table[rule.max_batch], 1)
    within = -(-settings.slo * rule.max_batch * settings.copies // per_batch)
    return min(max(within, 2 * rule.max_batch), QUEUE_MOST)


def request_rows(settings: EngineSpec, rule: Rule, waiting: int) -> int:
    """How many rows one request may have: never more than may wait, or it could never be taken."""
    return min(settings.max_request_rows or MOST_BATCHES * rule.max_batch, waiting)
