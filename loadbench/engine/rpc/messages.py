"""The protocol's messages and services: those that targets are asked with (`targets.messages`)."""

from loadbench.targets.messages import HEALTH, INFERENCE, message, methods

__all__ = ["HEALTH", "INFERENCE", "message", "methods"]
