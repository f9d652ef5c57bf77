"""A server that answers as TensorFlow Serving's REST API does (its api_rest.md and
http_rest_api_handler.cc), with a model that can be reckoned by hand: y = x / 2 + 3, n = words.

Its answers are laid out as the real one's are: with line breaks, NaN as a word, one named output
without its name. It counts what it answers, at the page of metrics that the real one has.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.answering import Answering, Handler, serve

STATUS = {
    "model_version_status": [
        {"version": "123", "state": "AVAILABLE",
         "status": {"error_code": "OK", "error_message": ""}}
    ]
}  # fmt: skip


def tensor(name: str, dtype: str, *sizes: int) -> dict[str, Any]:
    """As MessageToJsonString prints a TensorInfo: 64-bit numbers are texts."""
    dims = [{"size": str(size), "name": ""} for size in sizes]
    shape = {"dim": dims, "unknown_rank": False}
    return {"dtype": dtype, "tensor_shape": shape, "name": f"{name}:0"}


def signature(inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }  # fmt: skip


SIGNATURES = {
    "halves": {"serving_default": signature({"x": tensor("x", "DT_FLOAT", -1, 3)},
                                          {"y": tensor("y", "DT_FLOAT", -1, 3)})},
    "two": {
        "serving_default": signature(
            {"x": tensor("x", "DT_FLOAT", -1, 3), "text": tensor("text", "DT_STRING", -1)},
            {"y": tensor("y", "DT_FLOAT", -1, 3), "n": tensor("n", "DT_INT64", -1)},
        ),
        "short": signature({"x": tensor("x", "DT_FLOAT", -1, 3)},
                           {"y": tensor("y", "DT_FLOAT", -1, 3)}),
    },
    "saved_model_half_plus_three": {
        "serving_default": signature({"x": tensor("x", "DT_FLOAT", -1)},
                                     {"y": tensor("y", "DT_FLOAT", -1)}),
    },
    "flat": {"serving_default": signature({"x": tensor("x", "DT_FLOAT", 2, 2)},
                                          {"y": tensor("y", "DT_FLOAT", 2, 2)})},
}  # fmt: skip


def predicted(model: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Raises KeyError and TypeError for what is no request to that model."""
    told = SIGNATURES[model][asked.get("signature_name", "serving_default")]
    names = list(told["inputs"])
    if "instances" in asked:
        rows = asked["instances"]
        columns = {names[0]: rows} if len(names) == 1 else {
            name: [row[name] for row in rows] for name in names
        }  # fmt: skip
    else:
        columns = asked["inputs"]
    found: dict[str, Any] = {"y": _half(columns["x"])}
    if "n" in told["outputs"]:
        found["n"] = [len(base64.b64decode(text["b64"]).split()) for text in columns["text"]]
    key = "predictions" if "instances" in asked else "outputs"
    if len(found) == 1:
        return {key: found["y"]}
    if key == "outputs":
        return {key: found}
    return {key: [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]}


def _half(value: Any) -> Any:
    return [_half(item) for item in value] if isinstance(value, list) else value / 2 + 3


class TensorFlowServing(Answering):
    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__(_Handler)
        self.answered = 0
        self.asked: list[dict[str, Any]] = []  # the first ones
        self.answers = answers  # path → body that replaces what would be said
        self.lock = Lock()


class _Handler(Handler):
    server: TensorFlowServing

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/monitoring/prometheus/metrics":
            self._say(200, _page(self.server.answered), "text/plain")
            return
        name, _, what = path.removeprefix("/v1/models").removeprefix("/").partition("/")
        if not path.startswith("/v1/"):
            self._say(404, "Not Found", "text/plain")
        elif path == "/v1/models":
            self._error(400, "Missing model name in request.")
        elif name not in SIGNATURES:
            self._error(404, f"Could not find any versions of model {name}")
        elif what == "metadata":
            spec = {"name": name, "signature_name": "", "version": "123"}
            signatures = {"signature_def": SIGNATURES[name]}
            self._told({"model_spec": spec, "metadata": {"signature_def": signatures}})
        else:
            self._told(STATUS)

    def do_POST(self) -> None:
        asked = json.loads(self.body())
        model = self.path.removeprefix("/v1/models/").removesuffix(":predict")
        with self.server.lock:
            self.server.answered += 1
            if len(self.server.asked) < 100:
                self.server.asked.append(asked)
        if model not in SIGNATURES:
            self._error(404, f"Servable not found for request: Latest({model})")
            return
        try:
            self._told(predicted(model, asked))
        except (KeyError, TypeError) as error:
            self._error(400, f"JSON Value: {error}")

    def _told(self, found: dict[str, Any]) -> None:
        self._say(200, json.dumps(found, indent=4) + "\n")

    def _error(self, status: int, text: str) -> None:
        self._say(status, f'{{ "error": "{text}" }}')

    def _say(self, status: int, text: str, kind: str = "application/json") -> None:
        self.say(status, self.server.answers.get(self.path, text), {"Content-Type": kind})


def _page(answered: int) -> str:
    name = ":tensorflow:serving:request_count"
    return f'# TYPE {name} counter\n{name}{{model_name="halves",status="OK"}} {answered}\n'


@contextmanager
def tensorflow_serving(answers: dict[str, str] | None = None) -> Iterator[TensorFlowServing]:
    with serve(TensorFlowServing(answers or {})) as server:
        yield server
