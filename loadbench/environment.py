"""Values of the environment that a scenario names: `$NAME` or `${NAME}`. So neither the scenario
nor a snapshot of it holds what has to stay secret; it is filled in where it is used. What is
written there all the same, or typed, is left out of all that is written down or passed on."""

import json
import os
import re
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, AnyStr
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from loadbench.errors import SpecError

NAME = re.compile(r"\$(\w+)|\$\{(\w+)\}")
LEFT_OUT = "(left out)"
_MARK = "\ufffc"  # in its place, to see whether it would be left out again
_LEAST = 4  # characters of a value that is looked for: shorter ones stand in any text
_CODED = 8  # characters of one that is looked for in base64
_COMPONENT, _WHOLE = "!'()*", ";,/?:@&=+$#"  # what JavaScript leaves in a part of a link, in a link
_IN_LINKS = str.maketrans("+/", "-_")  # how base64 differs in links
# inputs of models are called token_type_ids, settings max_tokens, checks first_token_p99, and a
# tokenizer has words like its stop_token
_SECRET = re.compile(
    r"authorization|authentication|cookie|secret|password|passwd|passphrase|\bpwd\b|credential"
    r"|bearer|(?:^|\.)x-(?:auth|session|signature)\b"
    r"|(?:api|access|account|auth|functions|private|shared|signing|subscription)[-_]?key"
    r"|(?:api|auth|access)[-_]?token"
    r"|(?<!(?:first|start)[-_])(?<!(?:stop|mask|next)[-_])(?<!(?:eos|bos|pad|unk|sep|cls|end)[-_])"
    r"(?<!special[-_])token(?!_?types?|_?ids?|iz|s(?![a-zA-Z])|_gap|_pace)",
    re.IGNORECASE,
)
# by names of a model's own: distributions and sizes, which are the work
_DRAWN = re.compile(r"(?:.*\.)?request(?:\[\d+\])?\.(?:dims|shapes|values)\.")
# nothing but names, and what says how they are to be taken: `Bearer $A`, `sid=$A; csrf=${B}`
_ONLY_NAMED = re.compile(r"(?:[A-Za-z]+ +)?(?:(?:[\w-]+=)?\$(?:\w+|\{\w+\})[;:,. ]*)+")
_WITHIN = (  # a name and its value: in an address's query, among the options of a command, …
    re.compile(r"[?&]([^=&#?\s]+)=(\(left out\)|[^&#\s]+)"),
    re.compile(r"(?<![\w-])--([\w-]+)(?:=| +(?!--))(\(left out\)|'[^']*'|\"[^\"]*\"|\S+)"),
    # … in front of one, API_TOKEN=…, where the name is no key of a scenario
    re.compile(r"(?<![\w.$-])(\w[\w-]*)=(\(left out\)|'[^']*'|\"[^\"]*\"|[^\s&'\"]+)"),
    # … as a header, where one can begin: in prose there are words and colons, too
    re.compile(r"(?:(?<=['\"\n])|\A)([\w-]+): +(\(left out\)|[^'\"\n]+)"),
    re.compile(r"\"([\w-]+)\"\s*:\s*\"(\(left out\)|(?:[^\"\\]|\\.)+)"),  # … in JSON
    re.compile(r"\\\"([\w-]+)\\\"\s*:\s*\\\"(\(left out\)|.+?(?=\\\"|$))"),  # … within quotes
)
# In a query these may be anything: what is as long as one has to be, and no name
_KEYS = re.compile(r"key|sig|code|[\w-]*signature|session_?id", re.IGNORECASE)
_QUERIED = re.compile(rf"(?<=[?&])((?:{_KEYS.pattern})=)([^&#\s$()]{{16,}}|{_MARK})", re.IGNORECASE)
_IN_QUERY = re.compile(r"(?<=[?&])([^=&#\s]+)=([^&#\s]+)")
# … and this is what the shell has put there for ?appid=$APPID
_PARAMETER = re.compile(r"(?<=[?&])([\w.-]+)=([^&#\s$()]{8,})")
_HEADER = re.compile(r"([\w-]+): +(.+)")  # as a command takes it for a word


def names(text: str) -> bool:
    """Whether the text names anything."""
    return NAME.search(text) is not None


def filled(text: str, where: str) -> str:
    """With the values in place of the names. SpecError, which begins with `where`, if one is not
    set."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise SpecError(f"{where}: {name} is not set in the environment", f"export {name}=…")
        return os.environ[name]

    return NAME.sub(value, text)


def hidden(said: AnyStr, headers: Mapping[str, str]) -> AnyStr:
    """What somebody said who was sent these headers: where it repeats a value of the environment,
    the name stands again; so it does where only the beginning of one came, at the end. A secret
    that stands there itself is left out."""
    for value, name in sought(headers):
        if isinstance(said, bytes):
            for form in {value.encode("latin-1", "replace"), value.encode(errors="replace")}:
                said = _without(said, form, name.encode())
        else:
            said = _without(said, value, name)
    return said


def told(headers: Mapping[str, str], asked: object) -> dict[str, str]:
    """What a target is told and may not be quoted with (`hidden`), by name: its headers, and the
    secrets that stand in what it is asked for."""
    plain = (text for one in literal(asked) for text in (one, unquote(one)))
    secrets = {f"secret {at}": text for at, text in enumerate(dict.fromkeys(plain))}
    return {**headers, **secrets}  # whose names are no header's


def sought(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is looked for in what somebody said who was sent these headers, in all its forms, and
    what stands in its place; one that may hold another comes first."""
    found = [
        (match[0], os.environ.get(match[1] or match[2], ""))
        for text in headers.values()
        for match in NAME.finditer(text)
    ]
    literal = [text for name, text in headers.items() if shown(name, text) == LEFT_OUT]
    found += [(LEFT_OUT, part) for text in literal for part in _secrets(text)]
    found += [(name, part) for name, text in found for part in _credentials(text)]
    found = [(name, form) for name, text in found for form in _forms(text)]
    found.sort(key=lambda one: -len(one[1]))
    return [(value, name) for name, value in found if len(value) >= _LEAST]


def _secrets(text: str) -> list[str]:
    """Of a header's value all of it, what follows a scheme, and the value of each cookie that is
    as long as one has to be."""
    return [text, text.rpartition(" ")[2], *re.findall(r"=\"?([^\";,\s]{8,})", text)]


def _credentials(value: str) -> list[str]:
    """What `Basic` sends in base64: a user's name with the password, and that alone."""
    try:
        text = b64decode(value, validate=True).decode()
    except ValueError:
        return []
    name, colon, password = text.partition(":")
    if not (name and colon and text.isprintable()):
        return []
    return [text, password] if len(password) >= _CODED else [text]


def _forms(value: str) -> set[str]:
    """As it is, as a link or a form has it, as JSON has it, as a page has it, as Python has bytes,
    in base64, and what is left of it where these are taken for another text."""
    plain = value.encode(errors="surrogateescape")  # as the environment has what is no text
    raw = {plain, value.encode("latin-1", "replace")}
    told = {form for data in raw for form in (repr(data)[2:-1], data.decode(errors="replace"))}
    told |= {value, escape(value), escape(value, quote=False)}
    if len(value) >= _CODED:
        told |= {form for data in raw for form in _in_base64(data)}
    return told | _in_links(plain) | _in_json(value)


def _in_links(plain: bytes) -> set[str]:
    """As Python and JavaScript encode it, all of it encoded, and what is encoded once more."""
    quoted = {quote(plain, safe=left) for left in ("", "/", _COMPONENT, _COMPONENT + _WHOLE)}
    quoted |= {quote_plus(plain), "".join(f"%{byte:02X}" for byte in plain)}
    quoted |= {re.sub("%..", lambda found: found[0].lower(), form) for form in quoted}
    return quoted | {form.replace("%", "%25") for form in quoted}


def _in_json(value: str) -> set[str]:
    """With and without what is beyond ASCII; as PHP, Go and .NET write it beside; and what is a
    text of JSON within another."""
    texts = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    for odd in (r"[<>&]", r"[<>&'+`]"):
        texts |= {re.sub(odd, lambda found: f"\\u{ord(found[0]):04x}", text) for text in texts}
    texts |= {text.replace(r"\"", r"\u0022") for text in texts}
    texts |= {text.replace("/", r"\/") for text in texts}
    texts |= {re.sub(r"\\u\w{4}", lambda one: rf"\u{one[0][2:].upper()}", text) for text in texts}
    return texts | {json.dumps(text, ensure_ascii=False)[1:-1] for text in texts}


def _in_base64(plain: bytes) -> set[str]:
    """By itself, and amid other bytes: then of its first and last letters some are not its own."""
    found = {b64encode(plain).decode()}
    for before in range(3):
        text = b64encode(bytes(before) + plain).decode()
        own = slice(-(-before * 8 // 6), (before + len(plain)) * 8 // 6)
        found.add(text[own])
    return found | {text.translate(_IN_LINKS) for text in found}


def _without(said: AnyStr, value: AnyStr, name: AnyStr) -> AnyStr:
    said = said.replace(value, name)
    begin = value[:_LEAST]
    at = said.find(begin, max(0, len(said) - len(value) + 1))
    while at >= 0 and not value.startswith(said[at:]):
        at = said.find(begin, at + 1)
    return said if at < 0 else said[:at] + name


def secret(name: str) -> bool:
    """Whether what is called so looks like a secret."""
    return _SECRET.search(name) is not None and not _DRAWN.match(name)


def keys_among(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The names of those headers that look like a key, or are of the environment."""
    return tuple(name for name, text in headers.items() if secret(name) or names(text))


def keys_queried(asked: str) -> tuple[str, ...]:
    """What looks like a key in the query of what is asked for, or is of the environment, in
    words. No name is filled in there: one that the shell has left is sent as it is."""
    keys = (
        f"{one[1]} in the query" + f" (just {one[2]})" * bool(_ONLY_NAMED.fullmatch(one[2]))
        for one in _IN_QUERY.finditer(asked)
        if secret(one[1]) or _KEYS.fullmatch(one[1]) or names(one[2]) or _of_environment(one)
    )
    return tuple(dict.fromkeys(keys))


def shown(name: str, value: object) -> object:
    """A setting as others may see it: a text that looks like a secret by its name is left out, one
    that is only named (`$NAME`) is not. So is what looks like one within a text."""
    if not isinstance(value, str):
        return value
    if _left_out(name, value):
        return LEFT_OUT
    for pattern in _WITHIN:
        value = pattern.sub(_without_value, value)
    value = _PARAMETER.sub(_without_own, value)
    return _QUERIED.sub(rf"\1{LEFT_OUT}", value)


def _without_own(found: re.Match[str]) -> str:
    return f"{found[1]}={LEFT_OUT}" if _of_environment(found) else found[0]


def _of_environment(found: re.Match[str]) -> bool:
    """Whether a parameter of a query is the environment's value of that name."""
    own = os.environ.get(re.sub(r"\W", "_", found[1]).upper())
    return own in (found[2], unquote_plus(found[2]))


def _without_value(found: re.Match[str]) -> str:
    name, value = found.groups()
    return found[0].removesuffix(value) + LEFT_OUT if _left_out(name, value) else found[0]


def _left_out(name: str, value: str) -> bool:
    there = value not in ("", LEFT_OUT) and not _ONLY_NAMED.fullmatch(value)
    return there and secret(name)


def kept(value: Any, name: str = "") -> Any:
    """A tree of settings, called so, as it is written down: each as others may see it. This, and no
    other, is what a tree that was written down is compared with."""
    if isinstance(value, Mapping):
        return {key: kept(part, f"{name}.{key}".strip(".")) for key, part in value.items()}
    if isinstance(value, list | tuple):
        found = [kept(part, name) for part in value]
        return _words(found) if all(isinstance(part, str) for part in found) else found
    return shown(name, value)


def literal(value: Any, name: str = "") -> Iterator[str]:
    """The secrets that stand themselves in a tree of settings."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from literal(part, f"{name}.{key}".strip("."))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from literal(part, name)
    elif isinstance(value, str) and _left_out(name, value):
        yield value
    elif isinstance(value, str):
        found = [match for pattern in _WITHIN for match in pattern.finditer(value)]
        yield from (one[2].strip("'\"") for one in found if _left_out(*one.groups()))
        yield from (one[2] for one in _QUERIED.finditer(value))
        yield from (one[2] for one in _PARAMETER.finditer(value) if _of_environment(one))


def typed(words: Sequence[str]) -> list[str]:
    """A command line as it is written down."""
    return _words([_setting(word) for word in words])


def left_out(value: Any, name: str = "") -> Iterator[str]:
    """The keys of what is not in a tree of settings that was written down; of something in a list
    that of the list."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from left_out(part, f"{name}.{key}".strip("."))
    elif isinstance(value, list | tuple):
        words = [part for part in value if isinstance(part, str)]
        if any(True for part in value for _ in left_out(part, name)) or _lacks(words, name):
            yield name
    elif isinstance(value, str) and (value == LEFT_OUT or _lacks(value, name)):
        yield name


def _lacks(value: str | list[str], name: str) -> bool:
    """Whether what is called so has it in place of a secret; a title may hold the words as well."""
    words = [value] if isinstance(value, str) else value
    marked = [word.replace(LEFT_OUT, _MARK) for word in words]
    found = kept(marked[0] if isinstance(value, str) else marked, name)
    return "".join(found).count(_MARK) < "".join(marked).count(_MARK)


def _words(words: list[str]) -> list[str]:
    """Of a command: without what follows an option, or stands in a header, that looks secret."""
    found = []
    for before, word in zip(["", *words], words, strict=False):
        option = before.startswith("-") and "=" not in before
        header = _HEADER.fullmatch(word)
        if header and secret(header[1]):
            word = f"{header[1]}: {shown(*header.groups())}"
        elif option and not word.startswith("-"):
            word = str(shown(before, word))
        found.append(word)
    return found


def _setting(word: str) -> str:
    """`key=value`, `--set=key=value`; every other word as it is, but for what is within it."""
    name, sign, text = word.partition("=")
    if not sign or "://" in name:
        return str(shown("", word))
    if name.startswith("--") and "=" in text:
        return f"{name}={_setting(text)}"
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return f"{name}={shown(name, text)}"
    found = kept(value, name)
    if found == value:
        return word
    return f"{name}={found if isinstance(found, str) else LEFT_OUT}"
