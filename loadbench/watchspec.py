"""The table [engine.watch] of a scenario: what the engine watches in its model while it serves."""

from loadbench.loadspec import Duration, Section


class WatchSpec(Section):
    """`state` and `memory` cost nothing that can be measured and are on; the rest is asked for."""

    slow: Duration | None = None  # requests that took longer in the engine are named on stderr
    finite: bool = False  # rows whose outputs are NaN or infinite fail, and the module is named
    state: bool = True  # buffers and training flags of torch modules must stay what they were
    memory: bool = True  # of the engine: does it only ever grow?
    drift: str = ""  # a .npz that `record` wrote: do inputs and outputs still look like that?
    record: str = ""  # where a sample of inputs and outputs goes at the end
