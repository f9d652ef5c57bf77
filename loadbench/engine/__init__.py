"""The local inference engine: models, the batcher, and a KServe v2 server. It is a process of its
own (`loadbench serve`); nothing outside of this package imports it but cli/serve and cli/doctor."""
