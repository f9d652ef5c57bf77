"""The load: a process of its own (`python -m loadbench.load`) that runs Locust. Nothing imports it
but scenarios/*.py; the runner starts it and talks to it in the words of `loadbench.plan`."""
