"""System shared memory: tensors that a client on this machine leaves in POSIX regions.

Off unless asked for. A client can change, shrink or remove a region at any moment, also amid a
request; so nothing is mapped, where a region that shrank would kill the process. What a request
needs of one is read and written at that request's offsets as from a file, at the cost of one copy.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loadbench.engine.tensors import Array, Refused, from_bytes, require_size, to_bytes

REGION = "shared_memory_region"  # parameters of inputs and outputs
_OFFSET, _SIZE = "shared_memory_offset", "shared_memory_byte_size"

PREFIX = "/loadbench"
MOST_BYTES = 4 << 30  # of all regions together
MOST_REGIONS = 4096
MOST_INPUT = 1 << 30  # bytes of a request's inputs; the queue takes no more
_FOLDER = Path("/dev/shm")  # where Linux keeps what shm_open makes
_LONGEST = 255  # of a key and of a region's name


class Place(NamedTuple):
    """Where in which region a tensor is."""

    region: str
    offset: int
    size: int


class SharedInput(NamedTuple):
    """An input that is in a region."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    place: Place


class Shared(NamedTuple):
    """What of a request is in regions."""

    inputs: tuple[SharedInput, ...]
    outputs: dict[str, Place]  # by name


class _Region(NamedTuple):
    key: str
    offset: int
    size: int
    file: int


class Regions:
    """The regions that clients have registered, by the names they gave them.

    Used from the event loop's thread only.
    """

    def __init__(self, prefix: str = PREFIX) -> None:
        """`prefix` is what the keys of regions must begin with: others' memory stays theirs."""
        self._prefix = prefix
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Opens a region that is there. Raises Refused."""
        if not name or len(name) > _LONGEST:
            raise Refused(400, "a shared memory region needs a name of at most 255 characters")
        if name in self._regions:
            raise Refused(400, f"shared memory region {name!r} is already registered")
        if not key.startswith(self._prefix):
            raise Refused(
                400, f"the key {key!r} does not begin with {self._prefix!r}: the engine opens no "
                "others (--shared-memory-prefix)",
            )  # fmt: skip
        own = key.removeprefix("/")
        if not own or "/" in own or "\0" in own or own in (".", "..") or len(key) > _LONGEST:
            raise Refused(400, f"{key!r} is no key of POSIX shared memory")
        if offset < 0 or size < 1:
            raise Refused(400, f"{size} bytes at offset {offset} are no region")
        held = sum(region.size for region in self._regions.values())
        if held + size > MOST_BYTES or len(self._regions) >= MOST_REGIONS:
            raise Refused(
                400, f"{len(self._regions)} regions of {held} bytes are registered; {MOST_REGIONS} "
                f"of {MOST_BYTES} bytes may be",
            )  # fmt: skip
        self._regions[name] = _Region(key, offset, size, _opened(own, key, offset + size))

    def unregister(self, name: str) -> None:
        """Forgets a region, or all of them where `name` is empty. An unknown one is no error."""
        gone = [name] if name in self._regions else [] if name else list(self._regions)
        for each in gone:
            os.close(self._regions.pop(each).file)

    def status(self, name: str) -> list[dict[str, Any]]:
        """One region, or all of them where `name` is empty. Raises Refused."""
        if name and name not in self._regions:
            raise Refused(404, f"there is no shared memory region {name!r}")
        return [
            {"name": each, "key": region.key, "offset": region.offset, "byte_size": region.size}
            for each, region in self._regions.items()
            if name in ("", each)
        ]

    def read(self, place: Place) -> bytes:
        """A copy of the bytes there. Raises Refused."""
        region, start = self._find(place)
        try:
            found = os.pread(region.file, place.size, start)
        except OSError as error:
            raise _untouched(place, "read", error) from error
        if len(found) != place.size:
            raise Refused(400, f"shared memory region {place.region!r} has become smaller")
        return found

    def write(self, place: Place, data: bytes) -> None:
        """Puts the bytes there. Raises Refused if they do not fit."""
        if len(data) > place.size:
            raise Refused(
                400, f"an output of {len(data)} bytes does not fit into the {place.size} of "
                f"shared memory region {place.region!r}",
            )  # fmt: skip
        region, start = self._find(place)
        try:
            written = os.pwrite(region.file, data, start)
        except OSError as error:  # memory is taken when it is written to, and there may be no more
            raise _untouched(place, "written to", error) from error
        if written != len(data):
            raise Refused(400, f"shared memory region {place.region!r} took {written} bytes only")

    def _find(self, place: Place) -> tuple[_Region, int]:
        """The region, and where in its file the place begins."""
        region = self._regions.get(place.region)
        if region is None:
            raise Refused(400, f"there is no shared memory region {place.region!r}")
        if place.offset + place.size > region.size:
            raise Refused(
                400, f"{place.size} bytes at offset {place.offset} lie beyond the {region.size} "
                f"bytes of shared memory region {place.region!r}",
            )  # fmt: skip
        start = region.offset + place.offset
        if start + place.size > os.fstat(region.file).st_size:
            raise Refused(400, f"shared memory region {place.region!r} has become smaller")
        return region, start


def _untouched(place: Place, what: str, error: OSError) -> Refused:
    why = error.strerror or error
    return Refused(400, f"shared memory region {place.region!r} cannot be {what}: {why}")


def _opened(own: str, key: str, least: int) -> int:
    """The region's file. Raises Refused."""
    if not _FOLDER.is_dir():
        raise Refused(501, "this system keeps shared memory where loadbench cannot read it")
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        file = os.open(_FOLDER / own, flags)
    except OSError as error:
        raise Refused(400, f"cannot open shared memory {key!r}: {error.strerror}") from error
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_size < least:
        os.close(file)
        raise Refused(400, f"shared memory {key!r} has {found.st_size} bytes, not {least}")
    return file


def inputs_of(regions: Regions | None, shared: Shared) -> dict[str, Array]:
    """The inputs that are in regions, as they are now. Raises Refused."""
    if regions is None:
        raise _off()
    size = sum(each.place.size for each in shared.inputs)
    if size > MOST_INPUT:
        raise Refused(400, f"the inputs have {size} bytes, {MOST_INPUT} they may have")
    for each in shared.inputs:  # before anything is read
        require_size(each.name, each.datatype, each.place.size, each.shape)
    return {
        each.name: from_bytes(
            each.name, each.datatype, memoryview(regions.read(each.place)), each.shape
        )
        for each in shared.inputs
    }


def put(
    regions: Regions | None,
    shared: Shared,
    chosen: Sequence[tuple[str, str, bool]],
    outputs: dict[str, Array],
) -> None:
    """Writes those of the chosen outputs (name, datatype, …) that are to be in regions. Raises
    Refused."""
    if regions is None:
        raise _off()
    for name, datatype, _ in chosen:
        if name in shared.outputs:
            regions.write(shared.outputs[name], to_bytes(outputs[name], datatype))


def shared_of(
    inputs: Sequence[SharedInput], wishes: Mapping[str, Mapping[str, Any]]
) -> Shared | None:
    """What of a request is in regions, of whose outputs `wishes` are the parameters; None: nothing
    is. Raises Refused."""
    places = {name: place_of(f"output {name!r}", asked) for name, asked in wishes.items()}
    outputs = {name: place for name, place in places.items() if place is not None}
    return Shared(tuple(inputs), outputs) if inputs or outputs else None


def place_of(what: str, parameters: Mapping[str, Any]) -> Place | None:
    """Where the parameters say that a tensor is; None: in the message. Raises Refused."""
    region = parameters.get(REGION)
    if region is None:
        return None
    offset, size = parameters.get(_OFFSET, 0), parameters.get(_SIZE)
    if not isinstance(region, str) or type(offset) is not int or type(size) is not int:
        raise Refused(400, f"{what}: {REGION} is a name, and {_SIZE} and {_OFFSET} are numbers")
    if offset < 0 or size < 0:
        raise Refused(400, f"{what}: {size} bytes at offset {offset} are no place")
    return Place(region, offset, size)


def _off() -> Refused:
    return Refused(400, "shared memory is off: start the engine with --shared-memory")


def answer(regions: Regions | None, path: str, body: bytes) -> list[dict[str, Any]] | None:
    """What the calls below /v2/systemsharedmemory and /v2/cudasharedmemory give: a status, or
    nothing. Raises Refused."""
    kind, _, rest = path.removeprefix("/v2/").partition("/")
    words = rest.split("/")
    name = words[1] if len(words) == 3 and words[0] == "region" else ""
    what = words[-1]
    if len(words) != (3 if name else 1) or what not in ("status", "register", "unregister"):
        raise Refused(404, f"there is no {path}")
    if kind == "cudasharedmemory":
        if what == "register":
            raise Refused(501, "CUDA shared memory is not supported: use system shared memory")
        return [] if what == "status" else None
    if regions is None:
        if what == "unregister":  # clients begin with it, whether they will use any or not
            return None
        if what == "status":
            return []
        raise _off()
    if what == "status":
        return regions.status(name)
    if what == "register":
        regions.register(name, *_asked(body))
    else:
        regions.unregister(name)
    return None


class _Asked(msgspec.Struct):
    key: str
    byte_size: int
    offset: int = 0


def _asked(body: bytes) -> tuple[str, int, int]:
    try:
        asked = msgspec.json.decode(body, type=_Asked)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(400, f"no registration of shared memory: {error}") from error
    if max(asked.offset, asked.byte_size) >= 1 << 62:
        raise Refused(400, "no such region can be")
    return asked.key, asked.offset, asked.byte_size
