"""Figures of others, computed with: what cannot be ends as one error."""

from collections.abc import Iterator
from contextlib import contextmanager

from loadbench.errors import SpecError


@contextmanager
def believable(what: str) -> Iterator[None]:
    """Turns what comes of figures that cannot be (10^300 requests in a second, a text for a number)
    into a SpecError about `what`. An error of our own would look the same, so the text allows it.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise SpecError(
            f"{what}: its figures cannot be: {error!r}",
            "was it damaged? if not, please report it: it is an error of loadbench",
        ) from error
