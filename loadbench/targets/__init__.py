"""Targets: how requests are encoded and answers read, what is asked of a server, and inputs.

`kserve` and `plain` know one protocol each and make bytes of requests; `inputs` makes the tensors
that go in; `ask` (the only one with a client of its own) reads metadata, health and statistics.
"""
