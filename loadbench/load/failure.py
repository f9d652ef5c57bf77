"""How a request fails: the names under which failures are counted, and what each of them means.

| name | means |
|---|---|
| `refused` `unreachable` | nobody listens there · there is no way to it |
| `connect_timeout` | not connected within `target.connect_timeout` |
| `first_byte_timeout` | sent, and not one byte of an answer within `target.timeout` |
| `timeout` | an answer began and did not end in that time, or the request did not get out |
| `reset` | the server broke the connection off (RST), at any time |
| `closed` | the server ended the connection before a byte of an answer |
| `truncated` | the server ended it, or its own half of it, amid the answer |
| `http_NNN` | a whole answer, its status other than 2xx |
| `grpc_NAME` | a call that ended with a status other than OK: `grpc_UNAVAILABLE` and so on |
| `no_region` | the server knows nothing (any more) of the memory that the load shares with it |
| `bad_answer` | 2xx, but not what was asked for; or not HTTP at all |
| `wrong_output` | what was asked for, but with other contents than are expected |
| `over_long` | more bytes than its framing said, or more than loadbench takes of one answer |
| `no_ports` `no_files` | of this machine: ephemeral ports or file descriptors have run out |

Any other error of the operating system goes by its own name in lower case (`eperm`).
"""

import errno
import re

REFUSED = "refused"
CONNECT_TIMEOUT = "connect_timeout"
FIRST_BYTE_TIMEOUT = "first_byte_timeout"
TIMEOUT = "timeout"
RESET = "reset"
CLOSED_EARLY = "closed"
TRUNCATED = "truncated"
WHOLE = ("http_", "grpc_", "wrong_output")  # how names of failures begin that cost no connection

_ERRORS = {
    errno.ECONNREFUSED: REFUSED,
    errno.ECONNRESET: RESET,
    errno.ECONNABORTED: RESET,
    errno.EPIPE: RESET,
    errno.EHOSTUNREACH: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EADDRNOTAVAIL: "no_ports",
    errno.EMFILE: "no_files",
    errno.ENFILE: "no_files",
}
_FORGOTTEN = re.compile(rb"(?i)\b(find|no) shared memory region:? *\W?loadbench-\d+-[0-9a-f]{8}\b")
_IN_WORDS = "grpc_UNKNOWN"  # in a stream, which goes on
_UNKNOWN = ("http_400", "http_404", "grpc_INVALID_ARGUMENT", "grpc_NOT_FOUND", _IN_WORDS)


def may_be_forgotten(failure: str) -> bool:
    """Whether servers so refuse a request whose memory they do not know."""
    return failure in _UNKNOWN


def forgotten(said: bytes) -> bool:
    """Whether the server says that it does not know memory of ours (`Region.name`), as Triton and
    this engine do."""
    return _FORGOTTEN.search(said) is not None


def of_error(number: int, connecting: bool) -> str:
    """The name of an error of the operating system."""
    if number == errno.ETIMEDOUT:
        return CONNECT_TIMEOUT if connecting else TIMEOUT
    return _ERRORS.get(number) or errno.errorcode.get(number, f"error_{number}").lower()
