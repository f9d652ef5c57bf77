"""What the engine tells about a model: metadata and configuration, in Triton's words."""

from typing import Any

from loadbench.engine.policy import Level, Rule
from loadbench.engine.protocol import Contract
from loadbench.model import Tensor
from loadbench.units import US


def model_metadata(signature: Contract, platform: str) -> dict[str, Any]:
    """Names, types and shapes; −1 stands for what is open, the batch included."""

    def described(tensor: Tensor) -> dict[str, Any]:
        shape = [-1, *tensor.shape] if signature.batched else list(tensor.shape)
        return {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}

    return {
        "name": signature.model,
        "versions": [signature.version],
        "platform": platform,
        "inputs": [described(tensor) for tensor in signature.inputs.values()],
        "outputs": [described(tensor) for tensor in signature.outputs.values()],
    }


def model_config(
    signature: Contract, platform: str, rule: Rule, device: str, instances: int
) -> dict[str, Any]:
    """ModelConfig as JSON, as far as an engine without a model repository has one.

    Clients read from it whether the model is batched (`max_batch_size`) and whether the server
    batches by itself (`dynamic_batching` is there).
    """
    by_input = {"format": "FORMAT_NONE", "allow_ragged_batch": False, "optional": False}
    config: dict[str, Any] = {
        "name": signature.model,
        "platform": platform,
        "backend": platform.partition("_")[0],
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": signature.max_batch,
        "input": [_tensor(tensor) | by_input for tensor in signature.inputs.values()],
        "output": [
            _tensor(tensor) | {"label_filename": ""} for tensor in signature.outputs.values()
        ],
        "batch_input": [],
        "batch_output": [],
        "instance_group": [_group(signature.model, device, instances)],
        "default_model_filename": "",
        "parameters": {},
        "model_transaction_policy": {"decoupled": False},
    }
    if signature.batched and rule.policy != "none":
        config["dynamic_batching"] = {
            "preferred_batch_size": list(rule.preferred),
            "max_queue_delay_microseconds": rule.max_wait_ns // US if rule.policy == "fixed" else 0,
            "preserve_ordering": False,
        } | _priorities(rule)
    return config


def _priorities(rule: Rule) -> dict[str, Any]:
    """Levels and how requests wait in them, where there is something to tell."""
    found: dict[str, Any] = {}
    if len(rule.levels) > 1:
        found = {"priority_levels": len(rule.levels), "default_priority_level": rule.normal}
    told = {
        str(number): {
            "timeout_action": "DELAY" if level.delay else "REJECT",
            "default_timeout_microseconds": level.timeout_ns // US,
            "allow_timeout_override": level.override,
            "max_queue_size": level.most,
        }
        for number, level in enumerate(rule.levels, 1)
        if level != Level()
    }
    if not told:
        return found
    if len(rule.levels) == 1:
        return {"default_queue_policy": told["1"]}
    return found | {"priority_queue_policy": told}


def _group(name: str, device: str, instances: int) -> dict[str, Any]:
    kind, _, card = device.partition(":")
    on_gpu = kind == "cuda"
    return {
        "name": f"{name}_0",
        "kind": "KIND_GPU" if on_gpu else "KIND_CPU",
        "count": instances,
        "gpus": [int(card or 0)] if on_gpu else [],
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    kind = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return {
        "name": tensor.name,
        "data_type": f"TYPE_{kind}",
        "dims": list(tensor.shape),
        "is_shape_tensor": False,
    }
