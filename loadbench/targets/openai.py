"""OpenAI's chat and text completions, as vLLM, SGLang, llama.cpp, TGI, Ollama and many others speak
them: which models there are, prompts → requests, and what the events of a streamed answer say.

A prompt is a row's `prompt` or `messages`, a line of a text, or made up of so many words; a body of
one's own is sent as it is. Made-up prompts all differ from their first word on, also from those of
other runs: a server that keeps what it knows of equal beginnings would look faster than it is.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadbench import distribution
from loadbench.errors import SpecError
from loadbench.model import Note
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import plain
from loadbench.targets.dataset import Row, rows
from loadbench.targets.events import Events
from loadbench.targets.pool import POOL_MOST, gather
from loadbench.targets.wire import BadAnswer, Headers, Prepared, http_request

ROOT = "/v1"
CHAT = "/v1/chat/completions"
_POOL = 4096  # made-up prompts of one kind; after the last of them the first comes again
_WORDS, _TOKENS = "uniform(50, 200)", "128"  # of a request, where nothing is said
_MOST = 1_000_000  # of either
_HINT = 'give prompts: [[request]] data = "prompts.jsonl", each line {"prompt": "…"}'
STREAM = b"text/event-stream"
UNENDED = "the stream ended without a finish_reason and without [DONE]"
EMPTY = "the answer has no choices: nothing of a completion is in it"
_DONE = b"[DONE]"
OWN = ("words", "max_tokens", "options")  # of a request, which no other protocol knows
_LEAST, _NUMBERS = 100_000_000, 900_000_000  # first words: nine digits, as many tokens each
# A word is a token or two to most tokenizers; the number before it makes each prompt its own.
_VOCABULARY = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world",
    "school", "state", "family", "student", "group", "country", "problem", "hand", "part", "place",
    "case", "week", "company", "system", "program", "question", "work", "number", "night", "point",
    "home", "water", "room", "mother", "area", "money", "story", "fact", "month", "lot", "right",
    "study", "book", "eye", "job", "word", "business", "issue", "side", "kind", "head", "house",
    "service", "friend", "father", "power", "hour", "game", "line", "end", "member", "law",
)  # fmt: skip


# ---- what a server says of itself


def root(path: str) -> str:
    """Under what the API is, by the path of an address: some have it behind a path of theirs."""
    plain = path.partition("?")[0].rstrip("/")
    for last in ("/chat/completions", "/completions", "/models"):
        plain = plain.removesuffix(last)
    return plain if plain.endswith(ROOT) else ROOT


def models(found: object) -> list[str] | None:
    """The names in what it says at /v1/models; None if that is not how it speaks."""
    told = found.get("data") if isinstance(found, dict) else None
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
        return None
    return [str(one["id"]) for one in told if "id" in one]


# ---- requests


def only_of_it(endpoint: Endpoint, request: RequestPlan) -> None:
    """Raises SpecError for what no other protocol knows, and for what this one does not."""
    ours = endpoint.protocol == "openai"
    for key in ("dims", "expect", "check", "tolerance") if ours else OWN:
        if getattr(request, key):
            what = "has no use for a model that writes" if ours else "is only of OpenAI's API"
            raise SpecError(
                f"request {request.name!r}: {key} {what}",
                "leave it out" if ours else 'leave it out, or say [target] protocol = "openai"',
            )


class _Asked(NamedTuple):
    """What one request says: `prompt` or `messages`, and at most so many tokens."""

    where: str
    fields: Mapping[str, Any]
    most: int


def prepare(
    endpoint: Endpoint, request: RequestPlan, seed: list[int], most: int, firsts: int | None = None
) -> tuple[list[Prepared], list[Note]]:
    """The pool of a kind. The first words of made-up prompts are drawn by `firsts`; None: anew each
    time. Raises SpecError naming the key, and the file and line if a row is at fault."""
    if request.body or request.form:
        return plain.prepare(endpoint, request, seed[0], most)
    plain.only_http(request)
    draw = np.random.Generator(np.random.PCG64(seed))
    usual = POOL_MOST if request.data else _POOL
    number = min(request.pool or usual, most)
    tokens = _drawn(request, "max_tokens", request.max_tokens or _TOKENS, draw, number + 1)
    if request.data:
        asked = _given(request, tokens)
    else:
        own = np.random.Generator(np.random.PCG64(None if firsts is None else [firsts, *seed]))
        asked = _made_up(request, draw, tokens[:number], own)
    chat = _is_chat(request.path or endpoint.path)
    made = (_request(endpoint, request, chat, one) for one in asked)
    return gather(request, made, number)


def _drawn(
    request: RequestPlan, key: str, text: str, draw: np.random.Generator, number: int
) -> NDArray[np.int64]:
    found = distribution.parse(text).whole(draw, number)
    if found.min() < 1 or found.max() > _MOST:
        raise SpecError(
            f"request {request.name!r}: {key} {text} gives {found.min():,} to {found.max():,}",
            f'1 to {_MOST:,} can be: {key} = "{text} clipped 1..2048"',
        )
    return found


def _given(request: RequestPlan, tokens: NDArray[np.int64]) -> Iterator[_Asked]:
    """A request for each row of the data; a row's own max_tokens goes before."""
    for row, usual in zip(rows(request.data), tokens.tolist(), strict=False):
        most = row.fields.get("max_tokens", usual)
        if isinstance(most, str) and most.isdigit():  # of a table
            most = int(most)
        if not isinstance(most, int) or not 1 <= most <= _MOST:
            raise SpecError(f"{row.where}: max_tokens is {most!r}", f"1 to {_MOST:,} can be")
        yield _Asked(row.where, _said(row), most)


def _said(row: Row) -> dict[str, Any]:
    fields = row.fields
    if isinstance(fields.get("messages"), list):
        return {"messages": fields["messages"]}
    for key in ("prompt", "line", "text"):
        if isinstance(fields.get(key), str):
            return {"prompt": fields[key]}
    known = f"it has {', '.join(fields)}" if fields else "it is no object"
    raise SpecError(f"{row.where}: neither prompt nor messages: {known}", _HINT)


def _made_up(
    request: RequestPlan,
    draw: np.random.Generator,
    tokens: NDArray[np.int64],
    own: np.random.Generator,
) -> Iterator[_Asked]:
    """All by the seed but the first words, which are this pool's own."""
    firsts = own.choice(_NUMBERS, len(tokens), replace=False) + _LEAST
    lengths = _drawn(request, "words", request.words or _WORDS, draw, len(tokens))
    each = zip(firsts.tolist(), lengths.tolist(), tokens.tolist(), strict=True)
    for index, (first, length, most) in enumerate(each):
        words = [_VOCABULARY[at] for at in draw.integers(len(_VOCABULARY), size=length - 1)]
        yield _Asked(f"made-up prompt {index}", {"prompt": " ".join([str(first), *words])}, most)


def _is_chat(path: str) -> bool:
    return path.partition("?")[0].rstrip("/").endswith("/chat/completions")


def _request(endpoint: Endpoint, request: RequestPlan, chat: bool, asked: _Asked) -> Prepared:
    said = dict(asked.fields)
    if chat and "prompt" in said:
        said = {"messages": [{"role": "user", "content": said["prompt"]}]}
    elif not chat and "messages" in said:
        raise SpecError(f"{asked.where}: messages are of chats", f'path = "{CHAT}"')
    # its successor replaces it: some servers refuse a request that has both
    most = {} if "max_completion_tokens" in request.options else {"max_tokens": asked.most}
    body = {"model": endpoint.model, **said, **most, "stream": True} | request.options
    if body["stream"] is True:
        body.setdefault("stream_options", {"include_usage": True})
    path = request.path or endpoint.path
    plain.check_path(path, f"request {request.name!r}: path")
    for name, value in request.headers.items():
        plain.check_header(request.name, name, value)
    headers = {"Content-Type": "application/json", **request.headers}
    content = msgspec.json.encode({key: value for key, value in body.items() if value is not None})
    return Prepared(request.name, http_request(endpoint, "POST", path, headers, content), check)


# ---- answers


class _Delta(msgspec.Struct):
    """What of it is text that a model has made: said, thought, or meant for a tool."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None

    @property
    def says(self) -> bool:
        told = self.content or self.reasoning_content or self.reasoning or self.refusal
        return bool(told or self.tool_calls)


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    """How many tokens the server counted."""

    completion_tokens: int = 0
    prompt_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None
    error: Any = None


class _Whole(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: Usage | None = None


class Piece(NamedTuple):
    """What an event says: whether there is text in it, whether the answer ends, its tokens, and
    whether it is of a completion at all."""

    says: bool = False
    ends: bool = False
    usage: Usage | None = None
    tells: bool = False


_chunk = msgspec.json.Decoder(_Chunk).decode
_whole = msgspec.json.Decoder(_Whole).decode


def piece(data: bytes) -> Piece:
    """Reads an event. Raises BadAnswer for what is none of a completion, and for the server's word
    that it has failed."""
    if data == _DONE:
        return Piece(ends=True)
    try:
        found = _chunk(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        shown = data[:80].decode("utf-8", "replace")
        raise BadAnswer(f"an event that is no part of a completion: {error}: {shown}") from error
    if found.error is not None:
        raise Failed(f"the server broke off: {_words(found.error)}")
    says = any(one.text or (one.delta is not None and one.delta.says) for one in found.choices)
    ends = any(one.finish_reason for one in found.choices)
    return Piece(says, ends, found.usage, bool(found.choices))


class Failed(BadAnswer):
    """The server says in the midst of an answer that it goes no further."""

    failure = "stream_error"


def _words(error: Any) -> str:
    said = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(said).split())[:300]


def usage(body: bytes) -> Usage | None:
    """What an answer that came as a whole says. Raises BadAnswer for what is no completion."""
    try:
        found = _whole(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        shown = body[:80].decode("utf-8", "replace")
        raise BadAnswer(f"no completion: {error}: {shown}") from error
    if not found.choices:
        raise BadAnswer(EMPTY)
    return found.usage


def check(headers: Headers, body: bytes) -> None:
    """Of an answer that is here as a whole, streamed or not."""
    if not headers.get(b"content-type", b"").lower().startswith(STREAM):
        usage(body)
        return
    events = Events()
    found = [piece(event) for event in (*events.feed(body), *events.end())]
    if not any(one.ends for one in found):
        raise BadAnswer(UNENDED)
    if not any(one.tells for one in found):
        raise BadAnswer(EMPTY)
