"""Which protocol a server speaks: found out by asking it."""

import re
from typing import TYPE_CHECKING

import httpx

from loadbench.errors import SpecError, TargetError
from loadbench.targets import openai, tensorflow
from loadbench.targets.reply import FORBIDDEN, WHO, elsewhere, json_of

if TYPE_CHECKING:  # the second brings pydantic, which not all who ask need
    from loadbench.targets.ask import Asker
    from loadbench.targetspec import TargetSpec

MISSPELT = "extenstion"  # TorchServe as a KServe server writes it so
_TORCHSERVE = "TorchServe APIs"
# How they, or a proxy before them, say that they cannot tell now. All other refusals mean that it
# is not known there: services answer what they do not have by 404, but by 400, 403 or 500, too.
_LATER = (429, 502, 503, 504)
_ABSENT = 404
# what servers of https say, in plain HTTP, to who speaks that, in words like these
_BAD = 400
_WANTS_TLS = re.compile(r"https (?:port|server|scheme)|ssl-enabled", re.IGNORECASE)
_UNKNOWN = 501  # how a server that speaks gRPC refuses a service that it does not have


def recognised(asker: "Asker", wanted: "TargetSpec") -> str:
    """A KServe server says at /v2 what it is, one of completions which models it has, TensorFlow
    Serving by how it tells of one, or refuses to, and TorchServe what can be asked of it."""
    if asker.rpc:
        return _over_rpc(asker, wanted)
    found = json_of(root := _known(asker, "/v2"))
    if isinstance(found, dict) and ("extensions" in found or MISSPELT in found):
        asker.known_by = "speaks KServe v2: /v2 tells its extensions"
        return "kserve"
    theirs = f"{openai.root(wanted.path if wanted.path != '/' else asker.where.path)}/models"
    if openai.models(json_of(models := _known(asker, theirs))) is not None:
        asker.known_by = f"speaks OpenAI's API: {theirs} tells its models"
        return "openai"
    path = tensorflow.model_path(wanted.model).rstrip("/")
    found = json_of(_known(asker, path), anyhow=True)
    if tensorflow.serves(found) or tensorflow.refuses(found):
        asker.known_by = f"is TensorFlow Serving: {path} says so"
        return "tensorflow"
    options = asker.ask("OPTIONS", "/")
    if options.status_code in _LATER:
        raise _later(asker, f"{asker.asked('/', 'OPTIONS')}: {asker.refusal(options)}")
    told = json_of(options)
    info = told.get("info") if isinstance(told, dict) else None
    if isinstance(info, dict) and info.get("title") == _TORCHSERVE:
        asker.known_by = "is TorchServe: OPTIONS / says so"
        return "torchserve"
    asked = {"/v2": root, theirs: models}
    codes = {answer.status_code: answer for answer in asked.values()}
    if codes.keys() == {_ABSENT}:
        told = f"neither /v2 nor {theirs} is known there"
    else:
        answers = " and ".join(
            f"{path} by {asker.refusal(answer)}" for path, answer in asked.items()
        )
        told = f"it answered {answers}, which is no protocol known here"
        if FORBIDDEN in codes:
            told += f" ({': '.join(filter(None, asker.unwelcome(codes[FORBIDDEN])))})"
    asker.known_by = f"plain HTTP: {told}"
    return "http"


def _known(asker: "Asker", path: str) -> httpx.Response:
    """What it answers there. SpecError if it wants to know first who asks, or sends on to another
    place; TargetError if it cannot tell now: none of these is to say that it is not known."""
    answer = asker.known(path)
    path = answer.request.url.raw_path.decode("ascii")
    where = asker.asked(path)
    said = f"{where}: {asker.refusal(answer)}"
    if answer.status_code == WHO:
        why, hint = asker.unwelcome(answer)
        raise SpecError(f"{said}: {why}", f"{hint}{_plain(asker)}")
    if answer.status_code in _LATER:
        raise _later(asker, said)
    if answer.status_code == _BAD and not asker.tls and _WANTS_TLS.search(answer.text):
        raise SpecError(said, f"is it an https:// address?{_plain(asker)}")
    asked = httpx.URL(f"{asker.url}{path}")
    to = asked.join(answer.headers["location"]) if answer.has_redirect_location else asked
    if str(to).rstrip("/") != str(asked):  # a slash more is no other place
        raise SpecError(said, f"{elsewhere(answer)}{_plain(asker)}")
    return answer


def _later(asker: "Asker", said: str) -> TargetError:
    return TargetError(said, f"try again when it is ready{_plain(asker)}")


def _plain(asker: "Asker") -> str:
    """What else helps."""
    if asker.rpc:
        return ""
    return '; a service of plain HTTP that answers so there alone: [target] protocol = "http"'


def _over_rpc(asker: "Asker", wanted: "TargetSpec") -> str:
    """By the service that it knows. SpecError if that is none of those that are spoken here."""
    answer = _known(asker, "/v2")
    if answer.status_code == _UNKNOWN:
        if asker.ask("GET", tensorflow.model_path(wanted.model)).status_code == _UNKNOWN:
            raise SpecError(
                f"{asker.url} has no inference.GRPCInferenceService/ServerMetadata and no"
                f" tensorflow.serving.ModelService: {asker.refusal(answer)}",
                "KServe v2 and TensorFlow Serving are measured over gRPC, if the server, or a proxy"
                " before it, has them there; what it serves over HTTP: --target http://host:port",
            )
        asker.known_by = "is TensorFlow Serving: it knows tensorflow.serving.ModelService"
        return "tensorflow"
    asker.known_by = "speaks KServe v2 over gRPC"
    return "kserve"
