"""Who may import whom: one table, against the source and against what really gets loaded."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = {
    0: {"orphan", "distribution", "inside", "environment", "limits", "model", "errors", "units",
        "priority", "histogram", "shape", "courtesy",
        "merge", "curve", "optimum", "printable", "sentences", "value", "machine", "serverside",
        "standing", "certainty", "ride", "streams"},
    1: {"diagnoses", "explained", "failing", "outages", "situation", "words", "quantities",
        "episodes", "alertspec", "alertfile", "spec", "aroundspec", "faults", "loadspec",
        "requestspec", "queuespec", "simspec",
        "watchspec", "metricspec", "targetspec", "overrides", "trace", "plan", "runlog",
        "hiding", "inputfiles", "logindex", "control", "snapshots",
         "alerts", "arrivals", "bounds", "catalogue", "baseline",
        "yardstick", "bin", "view", "account", "evidence", "assurance", "causes", "misfit",
        "overload", "partly", "summary", "times", "timing", "tokens", "trust", "compare",
        "targets", "judge"},
    2: {"report", "probe", "ready", "engine", "load"},
    3: {"runner", "cli", "experiments", "__main__"},
}  # fmt: skip
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
# what only certain places may import
OWNERS = {
    "textual": ("dashboard",),
    "rich": ("dashboard",),
    "torch": ("loadbench.engine",),
    "onnxruntime": ("loadbench.engine",),
    "onnx": ("loadbench.engine",),
    "openvino": ("loadbench.engine",),
    "locust": ("loadbench.load", "scenarios"),
    "gevent": ("loadbench.load", "scenarios"),
    "pynvml": ("loadbench.probe", "loadbench.engine.device"),
    "psutil": ("loadbench.probe", "loadbench.engine.device", "loadbench.engine.watch"),
    "httpx": (
        "loadbench.targets.ask",
        "loadbench.targets.describe",
        "loadbench.targets.pinned",
        "loadbench.targets.recognise",
        "loadbench.targets.reply",
        "loadbench.targets.scrape",
        "loadbench.targets.transport",
    ),
    "grpc": ("loadbench.engine.rpc", "loadbench.targets.transport"),
    "hpack": ("loadbench.load", "loadbench.targets.transport"),
    "pydantic": (
        "loadbench.aroundspec",
        "loadbench.spec",
        "loadbench.loadspec",
        "loadbench.metricspec",
        "loadbench.targetspec",
        "loadbench.requestspec",
        "loadbench.queuespec",
        "loadbench.simspec",
        "loadbench.faults",
    ),
    "pyarrow": ("loadbench.report.export.parquet",),
    "aiohttp": ("dashboard.web",),
    "textual_serve": ("dashboard.web",),
    "scipy": ("loadbench.judge", "loadbench.engine.watch"),
}
READS = {("ready", "probe"), ("engine", "probe")}  # the machine
DASHBOARD_MAY = LAYERS[0] | LAYERS[1] | {"report"}


def imports() -> Iterator[tuple[str, str]]:
    """(importing module, imported module) of all source files, function bodies included."""
    for package in ("loadbench", "dashboard", "scenarios"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    yield from ((module, alias.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    assert not node.level, f"{path}: relative import"
                    yield module, node.module
                    if node.module == "loadbench":
                        yield from ((module, f"loadbench.{alias.name}") for alias in node.names)


def part(module: str) -> str | None:
    """The second word of `loadbench.x.y`, if it is one of ours."""
    words = module.split(".")
    return words[1] if words[0] == "loadbench" and len(words) > 1 and words[1] in LAYER else None


def test_every_module_has_a_layer() -> None:
    names = {
        path.stem for path in (ROOT / "loadbench").iterdir() if not path.name.startswith("__init__")
    } - {"__pycache__", "py"}
    assert {name for name in names if not name.startswith("__py")} <= set(LAYER)


def test_imports_go_down_only() -> None:
    wrong = []
    for importer, imported in imports():
        target = part(imported)
        source = part(importer)
        if target is None or target == source:
            continue
        if importer.startswith("dashboard"):
            fine = target in DASHBOARD_MAY
        elif importer.startswith("scenarios"):
            fine = target == "load" or LAYER[target] <= 1
        elif source is None:
            continue
        elif LAYER[source] == 2:
            fine = LAYER[target] < 2 or (source, target) in READS
        elif source in ("runner", "experiments"):
            fine = target not in ("engine", "load", "cli")
        elif source == "cli":
            fine = target != "load"
        else:
            fine = LAYER[target] <= LAYER[source]
        if not fine:
            wrong.append(f"{importer} imports {imported}")
    assert not wrong


def test_each_library_stays_where_it_belongs() -> None:
    wrong = [
        f"{importer} imports {imported}"
        for importer, imported in imports()
        for owners in [OWNERS.get(imported.split(".")[0])]
        if owners and not any(f"{importer}.".startswith(f"{owner}.") for owner in owners)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("loadbench.cli", {"torch", "locust", "numpy", "pydantic", "textual", "scipy"}),
        ("loadbench.runner", {"torch", "locust", "gevent", "onnxruntime", "textual", "scipy"}),
        (
            "dashboard.app",
            {"torch", "locust", "gevent", "onnxruntime", "scipy", "pynvml", "pydantic"},
        ),
        ("loadbench.load.__main__", {"torch", "httpx", "scipy", "textual", "pydantic"}),
        ("loadbench.engine.server", {"locust", "gevent", "textual", "scipy", "onnxruntime"}),
    ],
)
def test_what_starts_often_loads_little(module: str, forbidden: set[str]) -> None:
    code = f"import sys; import {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert not set(done.stdout.split()) & forbidden
