"""Records what a real Triton answers, for unit tests that need its very bytes.

    peers/venv/bin/python tests/peers/record.py     writes tests/data/triton/NAME.json

Each file is one exchange: the request and the response with status, headers and body; a body that
is not text is in base64 under `body_base64`. Run it again only for another version of Triton.
"""

import base64
import gzip
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from servers import ROOT, Answer, Server, triton

FOLDER = ROOT / "tests" / "data" / "triton"
LENGTH = "Inference-Header-Content-Length"
Headers = dict[str, str]
Exchange = tuple[str, bytes | None, Headers]

X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
TEXTS = [b"one", b"", "fünf".encode()]
HALF = np.array([[0.5, -2.0], [65504.0, 1e-7]], dtype=np.float16)


def questions() -> dict[str, Exchange]:
    """What is asked once, by the name under which it is saved."""
    infer = "/v2/models/matmul/infer"
    x = {"name": "x", "shape": [1, 64], "datatype": "FP32"}
    data = {**x, "data": X.ravel().tolist()}
    raw = {**x, "parameters": {"binary_data_size": X.nbytes}}
    asked = [{"name": name, "parameters": {"binary_data": True}} for name in ("total", "y")]
    return {
        "live": ("/v2/health/live", None, {}),
        "ready": ("/v2/health/ready", None, {}),
        "server": ("/v2", None, {}),
        "model": ("/v2/models/matmul", None, {}),
        "model_version": ("/v2/models/matmul/versions/1", None, {}),
        "model_ready": ("/v2/models/matmul/ready", None, {}),
        "model_unbatched": ("/v2/models/echo", None, {}),
        "config": ("/v2/models/matmul/config", None, {}),
        "config_unbatched": ("/v2/models/echo/config", None, {}),
        "repository_index": ("/v2/repository/index", b"", {}),
        "infer_json": (infer, _json(id="7", inputs=[data]), {}),
        "infer_json_selected": (infer, _json(inputs=[data], outputs=[{"name": "total"}]), {}),
        "infer_binary": _binary(infer, [X.tobytes()], id="7", inputs=[raw], outputs=asked),
        "infer_binary_all": _binary(
            infer, [X.tobytes()], inputs=[raw], parameters={"binary_data_output": True}
        ),
        "infer_binary_in_json_out": _binary(infer, [X.tobytes()], inputs=[raw]),
        "infer_types_json": ("/v2/models/echo/infer", _echo_json(), {}),
        "infer_types_binary": _echo_binary(),
        "infer_types_mixed": _echo_mixed(),
        "infer_gzip": (
            infer,
            gzip.compress(_json(inputs=[data]), mtime=0),
            {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"},
        ),
        "error_model": ("/v2/models/nope/infer", _json(inputs=[data]), {}),
        "error_model_ready": ("/v2/models/nope/ready", None, {}),
        "error_version": ("/v2/models/matmul/versions/9/infer", _json(inputs=[data]), {}),
        "error_path": ("/v2/nothing", None, {}),
        "error_no_json": (infer, b"{", {}),
        "error_no_input": (infer, _json(inputs=[]), {}),
        "error_input_name": (infer, _json(inputs=[{**data, "name": "z"}]), {}),
        "error_output_name": (infer, _json(inputs=[data], outputs=[{"name": "z"}]), {}),
        "error_shape": (infer, _json(inputs=[{**data, "shape": [1, 32]}]), {}),
        "error_datatype": (infer, _json(inputs=[{**data, "datatype": "INT32"}]), {}),
        "error_batch": (infer, _json(inputs=[_rows(9)]), {}),
        "error_binary_size": _binary(infer, [X.tobytes()[:-4]], inputs=[raw], outputs=asked),
        "error_header_length": (infer, _json(inputs=[data]), {LENGTH: "99999"}),
        "error_compression": (infer, b"no gzip", {"Content-Encoding": "gzip"}),
    }


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, triton(Path(folder)) as server:
        _save(server, "statistics_idle", ("/v2/models/matmul/stats", None, {}))
        for name, exchange in questions().items():
            _save(server, name, exchange)
        # Sixteen at once, so that the statistics hold batches of more than one.
        one: Exchange = ("/v2/models/matmul/infer", _json(inputs=[_rows(1)]), {})
        with ThreadPoolExecutor(16) as pool:
            for answer in pool.map(lambda _: server.ask(*one), range(64)):
                assert answer.status == 200, answer
        _save(server, "statistics", ("/v2/models/matmul/stats", None, {}))
        _save(server, "statistics_all", ("/v2/models/stats", None, {}))


def _save(server: Server, name: str, exchange: Exchange) -> None:
    path, body, headers = exchange
    answer: Answer = server.ask(path, body, headers)
    record = {
        "request": {
            "method": "GET" if body is None else "POST",
            "path": path,
            "headers": headers,
            **_text(body or b""),
        },
        "response": {
            "status": answer.status,
            "headers": answer.headers,
            **_text(answer.body),
        },
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def _text(body: bytes) -> dict[str, str]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return {"body_base64": base64.b64encode(body).decode()}
    return {"body": text}


def _json(**request: Any) -> bytes:
    return json.dumps(request).encode()


def _binary(path: str, tensors: list[bytes], **request: Any) -> Exchange:
    header = _json(**request)
    return path, b"".join([header, *tensors]), {LENGTH: str(len(header))}


def _rows(count: int) -> dict[str, Any]:
    data = np.ones(count * 64, dtype=np.float32).tolist()
    return {"name": "x", "shape": [count, 64], "datatype": "FP32", "data": data}


def _echo_in_json(half: dict[str, Any]) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "texts", "shape": [2], "datatype": "BYTES", "data": ["one", "fünf"]},
            {"name": "flags", "shape": [3], "datatype": "BOOL", "data": [True, False, True]},
            {"name": "half", "shape": [2, 2], "datatype": "FP16", **half},
            {"name": "count", "shape": [1], "datatype": "INT64", "data": [-(2**62)]},
        ]
    }


def _echo_json() -> bytes:
    """FP16 has no JSON form, so this one is refused; the refusal is worth having too."""
    return _json(**_echo_in_json({"data": HALF.ravel().tolist()}))


def _echo_mixed() -> Exchange:
    """Binary and JSON side by side, in the request and in the answer."""
    request = _echo_in_json({"parameters": {"binary_data_size": HALF.nbytes}})
    outputs: list[dict[str, Any]] = [{"name": name} for name in ("texts", "flags", "count")]
    outputs.append({"name": "half", "parameters": {"binary_data": True}})
    return _binary("/v2/models/echo/infer", [HALF.tobytes()], **request, outputs=outputs)


def _echo_binary() -> Exchange:
    texts = b"".join(len(text).to_bytes(4, "little") + text for text in TEXTS)
    tensors = {
        "texts": ([3], "BYTES", texts),
        "flags": ([3], "BOOL", b"\1\0\1"),
        "half": ([2, 2], "FP16", HALF.tobytes()),
        "count": ([1], "INT64", np.array([-(2**62)]).tobytes()),
    }
    inputs = [
        {
            "name": name,
            "shape": shape,
            "datatype": datatype,
            "parameters": {"binary_data_size": len(data)},
        }
        for name, (shape, datatype, data) in tensors.items()
    ]
    return _binary(
        "/v2/models/echo/infer",
        [data for _, _, data in tensors.values()],
        inputs=inputs,
        parameters={"binary_data_output": True},
    )


if __name__ == "__main__":
    main()
