"""What a server is and what its models take: found out by asking it, before anything is sent.

An Asker asks; here is what the answers mean, protocol by protocol.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec.structs import replace

from loadbench import environment
from loadbench.errors import SpecError, TargetError
from loadbench.model import Tensor
from loadbench.plan import Endpoint
from loadbench.targets import openai, tensorflow
from loadbench.targets.datatypes import NO_JSON
from loadbench.targets.plain import check_path
from loadbench.targets.recognise import MISSPELT, recognised
from loadbench.targets.reply import FORBIDDEN, WHO, elsewhere, json_of
from loadbench.units import hostport

if TYPE_CHECKING:  # the second brings pydantic, which not all who ask need
    from loadbench.targets.ask import Asker
    from loadbench.targetspec import TargetSpec

_BINARY = "binary_tensor_data"
_MEMORY = "system_shared_memory"
_ROOTS = {"kserve": "/v2", "tensorflow": "/v1"}  # of protocols with paths of their own
_LOAD = "have the server load it (of Triton: POST /v2/repository/models/NAME/load)"
_BY_RPC = "ask it over gRPC: --target grpc://host:port (Triton's port is 8001)"


def describe(asker: "Asker", wanted: "TargetSpec") -> Endpoint:
    """Where and how to send requests. Raises TargetError when the server is down or not ready,
    SpecError when it has no such model."""
    protocol = recognised(asker, wanted) if asker.protocol == "auto" else asker.protocol
    if protocol in _ROOTS:
        _without_path(asker, _ROOTS[protocol])
    if wanted.shared_memory and protocol != "kserve":
        raise SpecError(f"{asker.url} {asker.known_by}: shared memory is of KServe v2")
    if not wanted.binary and (protocol != "kserve" or asker.rpc or wanted.shared_memory):
        text = "binary = false is of KServe v2 over HTTP, without shared memory"
        raise SpecError(f"{asker.url} {asker.known_by}: {text}", "leave target.binary out")
    if wanted.stream and not asker.rpc:
        raise SpecError(f"{asker.url}: target.stream is of gRPC", _BY_RPC)
    if wanted.stream and protocol != "kserve":
        text = f"{asker.url} {asker.known_by}: target.stream is of KServe v2"
        raise SpecError(text, "leave target.stream out")
    if protocol == "tensorflow":
        return _tensorflow(asker, wanted)
    if protocol == "openai":
        return _openai(asker, wanted)
    if protocol == "torchserve":
        return _torchserve(asker, wanted)
    if protocol == "http":
        path = _path(asker, wanted.path)
        if asker.protocol == protocol:  # else it was asked before, for what it speaks
            asker.reach(path)
        return _http(asker, wanted, path)
    told = asker.json("/v2")
    extensions = told.get("extensions") or []
    ready = asker.ask("GET", "/v2/health/ready")
    if ready.status_code in (WHO, FORBIDDEN):
        raise asker.refused("/v2/health/ready", ready)
    if ready.status_code != 200:
        raise TargetError(f"{asker.url} is not ready (HTTP {ready.status_code})", "wait for it")
    model = wanted.model or _only_ready(asker)
    if MISSPELT in told:
        return _untold(asker, model)
    binary = _BINARY in extensions
    found = _kserve(asker, model, binary=wanted.binary and binary)
    if binary and not wanted.binary:
        _has_json(found)
    if wanted.shared_memory and _MEMORY not in extensions:
        raise SpecError(
            f"{asker.url} takes no tensors from shared memory: it does not tell {_MEMORY!r}",
            "leave target.shared_memory out (an engine of loadbench: serve --shared-memory)",
        )
    found = replace(found, shared=wanted.shared_memory)
    if asker.rpc:
        found = replace(found, protocol="grpc", closes=False, deadline_ns=wanted.deadline)
        return replace(found, stream=found.stream or wanted.stream)
    if found.stream:
        text = f"{model!r} is decoupled: to one request it gives any number of answers"
        raise SpecError(f"{asker.url}: {text}", _BY_RPC)
    return found


def describe_replica(asker: "Asker", wanted: "TargetSpec", first: Endpoint) -> Endpoint:
    """A further server. SpecError if it does not serve what the first one does."""
    found = describe(asker, wanted)
    for key in ("protocol", "model", "inputs", "outputs", "batched", "stream"):
        theirs, ours = getattr(found, key), getattr(first, key)
        if theirs != ours:
            where = hostport(first.host, first.port)
            raise SpecError(
                f"target.replicas: {asker.url} does not serve what {where} serves: its {key}"
                f" {'are' if key in ('inputs', 'outputs') else 'is'} {_short(theirs)}, not"
                f" {_short(ours)}",
                "replicas are servers of the same model",
            )
    return found


def _short(value: object) -> str:
    text = ", ".join(str(one) for one in value) if isinstance(value, tuple) else str(value)
    return f"{text[:120]}…" if len(text) > 120 else text or "none"


def _http(asker: "Asker", wanted: "TargetSpec", path: str) -> Endpoint:
    return Endpoint(
        host=asker.host, port=asker.port, protocol="http", tls=asker.tls, path=path,
        method=wanted.method, closes=asker.closes, headers=asker.headers,
    )  # fmt: skip


def _path(asker: "Asker", wanted: str) -> str:
    """What to ask for, query included: the scenario's path, else the URL's. SpecError if that is
    none."""
    if wanted != "/":
        check_path(wanted)
        return wanted
    query = f"?{asker.where.query}" if asker.where.query else ""
    path = (asker.where.path or "/") + query
    check_path(path, "the path of the URL")
    return path


def _without_path(asker: "Asker", root: str) -> None:
    """SpecError for an URL with a path: nothing would be asked there, but at the server's root,
    where another model may be."""
    path, query = asker.where.path, asker.where.query
    if path.rstrip("/") in ("", root) and not query:
        return
    told = environment.shown("url", path + f"?{query}" * bool(query))
    asked = "over gRPC, which has no paths" if asker.rpc else f"at {root}"
    hint = f'give {asker.url}; [target] model = "…" says which model'
    if environment.keys_queried(f"?{query}"):
        hint += "; its key goes in target.headers, if it takes it there"
    if not asker.rpc:
        hint += '; what is only to be had at such a path: [target] protocol = "http"'
    raise SpecError(f"the path of the URL {told!r} has no use: {asker.url} is asked {asked}", hint)


def _tensorflow(asker: "Asker", wanted: "TargetSpec") -> Endpoint:
    model = wanted.model
    if not model:
        raise SpecError(
            f"which model? {asker.url} is TensorFlow Serving, which does not tell which it has",
            'name it: [target] model = "…"',
        )
    path = tensorflow.model_path(model)
    answer = asker.ask("GET", path)
    state = json_of(answer)
    if answer.status_code in (WHO, FORBIDDEN):
        raise asker.refused(path, answer)
    if not tensorflow.serves(state):
        said = f"{asker.url} has no model {model!r}: {asker.refusal(answer)}"
        raise SpecError(said, elsewhere(answer))
    if not tensorflow.ready(state):
        raise TargetError(f"{asker.url}: no version of {model!r} can be asked", "wait for it")
    try:
        told = asker.json(f"{path}/metadata")
        inputs, outputs = tensorflow.signature(told, wanted.signature)
    except ValueError as error:
        raise TargetError(f"{asker.asked(f'{path}/metadata')}: {error}") from error
    batched = all(tensor.shape[:1] == (-1,) for tensor in (*inputs, *outputs))
    if batched:
        inputs, outputs = _without_batch(inputs), _without_batch(outputs)
    return Endpoint(
        host=asker.host, port=asker.port, protocol="predict" if asker.rpc else "tensorflow",
        tls=asker.tls, model=model, inputs=inputs, outputs=outputs, batched=batched,
        closes=not asker.rpc and asker.closes, headers=asker.headers, layout=wanted.layout,
        signature=wanted.signature, deadline_ns=wanted.deadline if asker.rpc else None,
    )  # fmt: skip


def _openai(asker: "Asker", wanted: "TargetSpec") -> Endpoint:
    path = _path(asker, wanted.path)
    root = openai.root(path)
    models = f"{root}/models"
    answer = asker.known(models)
    if not wanted.model and answer.status_code in (WHO, FORBIDDEN):
        raise asker.refused(models, answer)
    known = openai.models(json_of(answer)) or []
    if not wanted.model and not known:
        hint = 'name it: [target] model = "…"'
        if asker.protocol == "auto":
            hint += '; what is no server of OpenAI\'s API: [target] protocol = "http"'
        raise SpecError(f"which model? {asker.url} does not tell any at {models}", hint)
    if wanted.model and known and wanted.model not in known:
        raise SpecError(f"{asker.url} has no model {wanted.model!r}", ", ".join(known))
    place, mark, query = path.partition("?")
    if place.rstrip("/") in ("", root):
        path = f"{root}/chat/completions{mark}{query}"
    return Endpoint(
        host=asker.host, port=asker.port, protocol="openai", tls=asker.tls, path=path,
        model=wanted.model or _only(asker, known), method="POST", closes=asker.closes,
        headers=asker.headers,
    )  # fmt: skip


def _torchserve(asker: "Asker", wanted: "TargetSpec") -> Endpoint:
    """Plain HTTP, at the path of a model's predictions; its management alone knows the models."""
    path = _path(asker, wanted.path)
    if path == "/":
        if not wanted.model:
            raise SpecError(
                f"which model? {asker.url} is TorchServe, which tells its models on another port",
                'name it: [target] model = "…" (curl http://127.0.0.1:8081/models lists them)',
            )
        path = f"/predictions/{quote(wanted.model, safe='')}"
    if asker.protocol == "torchserve":  # else it was asked before, for what it speaks
        asker.reach(path)
    return replace(_http(asker, wanted, path), method="POST", model=wanted.model)


def _models(asker: "Asker", ready: bool = True) -> list[str]:
    """The models that the server tells of, or of those only what can be asked now; empty if it does
    not. Triton has no state for a model that was never loaded, so that it is to say itself which
    are `ready`; who does not heed that may still tell the state."""
    answer = asker.ask("POST", "/v2/repository/index", {"ready": True} if ready else {})
    if answer.status_code != 200:
        return _listed(asker)
    found = asker.parsed(answer)
    entries = found if isinstance(found, list) else []
    named = [entry for entry in entries if isinstance(entry, dict) and "name" in entry]
    if ready:  # MLServer says State.READY over gRPC
        named = [e for e in named if str(e.get("state", "")).rpartition(".")[2] in ("READY", "")]
    return sorted({str(entry["name"]) for entry in named})


def _listed(asker: "Asker") -> list[str]:
    """The same of KServe's own servers, which have a list in place of a repository's index."""
    found = json_of(asker.ask("GET", "/v2/models"))
    told = found.get("models") if isinstance(found, dict) else None
    return sorted(map(str, told)) if isinstance(told, list) else []


def _only_ready(asker: "Asker") -> str:
    """The one model that can be asked. SpecError where somebody has to choose, or to load one."""
    models = _models(asker)
    idle = [] if models else _models(asker, ready=False)
    if idle:
        known = f"{asker.url} has {', '.join(idle)}, none of them loaded"
        raise SpecError(f"which model? {known}", _LOAD)
    return _only(asker, models)


def _only(asker: "Asker", models: list[str]) -> str:
    """The one model that there is. SpecError where somebody has to choose."""
    if len(models) == 1:
        return models[0]
    known = f"{asker.url} has {', '.join(models)}" if models else f"{asker.url} does not tell any"
    raise SpecError(f"which model? {known}", 'name it: [target] model = "…"')


def _kserve(asker: "Asker", model: str, binary: bool) -> Endpoint:
    path = f"/v2/models/{quote(model, safe='')}"
    answer = asker.ask("GET", path)
    if answer.status_code in (400, 404):
        ready, said = _models(asker), asker.refusal(answer)
        if model not in ready and model in _models(asker, ready=False):
            raise SpecError(f"{asker.url}: {model!r} is there, but not loaded: {said}", _LOAD)
        known = ", ".join(ready) or "it does not tell which it has"
        raise SpecError(f"{asker.url} has no model {model!r}: {said}", known)
    if answer.status_code != 200:
        raise asker.refused(path, answer)
    found = asker.parsed(answer)
    inputs, outputs = (_tensors(asker, found, key) for key in ("inputs", "outputs"))
    config = _config(asker, path)
    # requests to a model that tells no inputs are whole ones of a file, and so are their answers
    batched = _batched(asker, path, config, (*inputs, *outputs)) and bool(inputs)
    policy = (config or {}).get("model_transaction_policy")
    if batched:
        inputs, outputs = _without_batch(inputs), _without_batch(outputs)
    return Endpoint(
        host=asker.host, port=asker.port, protocol="kserve", tls=asker.tls, model=model,
        inputs=inputs, outputs=outputs, batched=batched, binary=binary, closes=asker.closes,
        headers=asker.headers, stream=isinstance(policy, dict) and bool(policy.get("decoupled")),
        stateful="sequence_batching" in (config or {}),
    )  # fmt: skip


def _has_json(endpoint: Endpoint) -> None:
    """SpecError for a model with tensors that are refused in JSON. Where a server takes no binary
    ones there is no other way, and it is for that server to say."""
    for tensor in (*endpoint.inputs, *endpoint.outputs):
        if tensor.datatype in NO_JSON:
            raise SpecError(
                f"target.binary = false: {tensor.name!r} of {endpoint.model!r} is"
                f" {tensor.datatype}, for which KServe v2 has no JSON",
                "leave target.binary out: the server takes binary tensors",
            )


def _untold(asker: "Asker", model: str) -> Endpoint:
    """A model of which the server tells nothing, not even whether it has it: what is sent to it
    has to stand in the scenario's data."""
    return Endpoint(
        host=asker.host, port=asker.port, protocol="kserve", tls=asker.tls, model=model,
        batched=False, binary=False, closes=asker.closes, headers=asker.headers,
    )  # fmt: skip


def _config(asker: "Asker", path: str) -> dict[str, Any] | None:
    """How the model is configured, where the server tells it."""
    answer = asker.ask("GET", f"{path}/config")
    return asker.object(answer) if answer.status_code == 200 else None


def _tensors(asker: "Asker", metadata: Any, key: str) -> tuple[Tensor, ...]:
    try:
        return tuple(
            Tensor(item["name"], item["datatype"], tuple(map(int, item["shape"])))
            for item in metadata.get(key) or ()
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TargetError(
            f"{asker.url}: the model's {key} are not as KServe v2 has them: {metadata}"
        ) from error


def _batched(
    asker: "Asker", path: str, config: dict[str, Any] | None, tensors: tuple[Tensor, ...]
) -> bool:
    """Whether tensors have a batch axis in front. Only the configuration can tell a batch axis
    from an open dimension; without it, one that is open everywhere is taken for it."""
    if config is not None:
        most = config.get("max_batch_size", 0)
        try:
            return int(most) > 0
        except (TypeError, ValueError) as error:
            raise TargetError(
                f"{asker.asked(f'{path}/config')}: max_batch_size is {most!r}, no number"
            ) from error
    return bool(tensors) and all(tensor.shape[:1] == (-1,) for tensor in tensors)


def _without_batch(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(found.name, found.datatype, found.shape[1:]) for found in tensors)
