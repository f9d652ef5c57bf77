"""loadbench: how much load does a model serve within its latency limit, and did a change help?"""

__version__ = "0.1.0"
