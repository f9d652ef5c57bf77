"""What of a request says to which sequence it belongs (KServe v2, Triton's sequence extension).

The requests of a stateful model come in sequences: each is told its number, and which one begins
and which one ends it. All requests are made before a run, so each is made in its four places with a
number that stands for the real one, which is put in as it is sent: both have the same length.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from loadbench.errors import SpecError
from loadbench.plan import Endpoint, RequestPlan

ID, START, END = "sequence_id", "sequence_start", "sequence_end"
FIRST, LAST = 1, 2  # places, added up: 0 amid a sequence, 3 one of its own
MARK = 1_234_567_890_123_456
LOWEST, HIGHEST = 10**15, 10**16 - 1  # numbers of 16 digits, which are 8 bytes as a varint
_SEVEN = 0x7F


class Split(NamedTuple):
    """A request around the number of its sequence."""

    before: bytes
    after: bytes


def places(request: RequestPlan) -> Iterator[RequestPlan]:
    """The request in each place of a sequence, by its number. SpecError for parameters of
    its own that say the same."""
    from msgspec.structs import replace

    for name in (ID, START, END):
        if name in request.parameters:
            raise SpecError(
                f"request {request.name!r}: sequence sets {name!r} itself",
                "leave one of them out",
            )
    for place in range(4):
        said: Mapping[str, bool | int] = {
            ID: MARK, START: bool(place & FIRST), END: bool(place & LAST)
        }  # fmt: skip
        yield replace(request, parameters={**request.parameters, **said})


def split(endpoint: Endpoint, data: bytes) -> Split:
    """A prepared request around the mark."""
    before, mark, after = data.partition(written(endpoint, MARK))
    assert mark, "a request that does not carry the number of its sequence"
    return Split(before, after)


def written(endpoint: Endpoint, number: int) -> bytes:
    """A sequence's number as it stands in a request."""
    if endpoint.protocol != "grpc":
        return b"%d" % number
    found = bytearray()
    while number > _SEVEN:
        found.append(number & _SEVEN | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
