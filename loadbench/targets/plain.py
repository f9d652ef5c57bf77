"""Plain HTTP: any method and path; an answer is good if its status is 2xx and it came whole."""

from loadbench.errors import SpecError
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets.wire import Form, Headers, Prepared, http_request

_FRAMING = ("content-length", "transfer-encoding", "connection", "expect", "upgrade")


def check(_headers: Headers, _body: bytes) -> Form:
    """Nothing is known of the body."""
    return Form()


def prepare(endpoint: Endpoint, request: RequestPlan) -> Prepared:
    """The one request of a kind. Raises SpecError for headers that HTTP cannot carry."""
    for name, value in request.headers.items():
        check_header(request.name, name, value)
    body = request.body.encode()
    data = http_request(endpoint, endpoint.method, endpoint.path, request.headers, body)
    return Prepared(request.name, data, check)


def check_path(path: str) -> None:
    """Raises SpecError for a path that would break the first line of a request."""
    if not path.startswith("/") or any(not "!" <= char <= "~" for char in path):
        raise SpecError(
            f"target.path {path!r} is not one that HTTP can carry",
            "it begins with / and holds no spaces; other characters are written as %20 and so on",
        )


def check_header(request: str, name: str, value: str) -> None:
    """Raises SpecError for a header that would break the framing of the request."""
    bad = not name.isascii() or not name.replace("-", "").replace("_", "").isalnum()
    bad = bad or any(char in value for char in "\r\n\0")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        bad = True
    if bad:
        raise SpecError(f"request {request!r}: header {name!r} is not one that HTTP can carry")
    if name.lower() in _FRAMING:
        raise SpecError(
            f"request {request!r}: header {name!r} is set by loadbench itself", "leave it out"
        )
