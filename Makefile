# Two commands do all the set-up:   make tui   and   make test
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SCENARIO ?=

.PHONY: tui test test-long golden pictures cast tour-check lint bench bench-servers verdicts soak fuzz gpu peers \
	proto clean
.DEFAULT_GOAL := tui

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: python3 is missing: install Python 3.11 or later (Debian: apt-get install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old: loadbench needs Python 3.11 or later (make PYTHON=/path/to/python3)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: Python's venv module is missing (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

tui: $(STAMP)  ## the dashboard on the embedded engine; without a terminal the same run headless
	@$(BIN)/loadbench tui $(SCENARIO)

# Tests hold real processes to real clocks: whatever failed is run once more, with nothing beside it.
AGAIN := $(BIN)/python -m pytest --last-failed --last-failed-no-failures none
test: $(STAMP)
	$(BIN)/python -m pytest -n 4 --dist worksteal -m 'not alone and not long' || $(AGAIN) -m 'not alone and not long'
	$(BIN)/python -m pytest -m alone || $(AGAIN) -m alone

test-long: $(STAMP)  ## what takes minutes: several runs, simulations, browsers, Locust files, quantised models
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long || $(AGAIN) -m long

golden: $(STAMP)  ## stores the screens as they look now; look at: git diff tests/golden
	RENEW_GOLDEN=1 $(BIN)/python -m pytest tests/test_golden.py

# The real program in tmux, during a real tour: on a machine that does nothing else.
pictures: $(STAMP)  ## the pictures of the README (three minutes; needs tmux, and DejaVu's fonts)
	$(BIN)/python -m tests.benchmarks.pictures

cast: $(STAMP)  ## docs/tour.cast, a film for asciinema (a minute and a half; needs tmux)
	$(BIN)/python -m tests.benchmarks.cast

tour-check: $(STAMP)  ## do the figures on the screen equal the log's? (two minutes; needs tmux)
	$(BIN)/python -m tests.benchmarks.tour_moments

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

BENCH := peers/bench-venv/.installed
$(BENCH): tests/benchmarks/clients.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

bench: $(STAMP)  ## loadbench against wrk and others, side by side (an hour, two cores)
	-@$(MAKE) --no-print-directory $(BENCH)
	$(BIN)/python -m tests.benchmarks.lane
	-$(BIN)/python -m tests.benchmarks.lane_tls --rounds 5 --seconds 2
	-$(BIN)/python -m tests.benchmarks.lane_grpc
	-$(BIN)/python -m tests.benchmarks.lane_shared
	$(BIN)/python -m tests.benchmarks.lane_stall
	$(BIN)/python -m tests.benchmarks.memory
	$(BIN)/python tests/benchmarks/engine.py
	$(BIN)/python tests/benchmarks/engine.py --model plain
	$(BIN)/python tests/benchmarks/engine.py --model short
	$(BIN)/python tests/benchmarks/front.py
	$(BIN)/python -m tests.benchmarks.optimum --rounds 1
	$(BIN)/python -m tests.benchmarks.policy
	$(BIN)/python tests/benchmarks/screen.py
	$(BIN)/python -m tests.benchmarks.longrun
	$(BIN)/python tests/benchmarks/known_answer.py
	$(BIN)/python -m tests.benchmarks.shelf
	$(BIN)/python -m tests.benchmarks.workers
	$(BIN)/python -m tests.benchmarks.swap

verdicts: $(STAMP)  ## what loadbench says of runs, against known truth (an hour, two cores)
	$(BIN)/python -m tests.benchmarks.verdicts

SERVERS := peers/servers-venv/.installed
$(SERVERS): tests/benchmarks/servers.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

bench-servers: $(STAMP)  ## the engine beside mosec and Triton (ten minutes, two cores; goes on if interrupted)
	-@$(MAKE) --no-print-directory $(SERVERS)
	-@PYTHON=$(PYTHON) sh tests/peers/setup.sh
	$(BIN)/python -m tests.benchmarks.servers

SOAK ?= 30m
soak: $(STAMP)  ## half an hour of load with faults: does anything grow? (SOAK=5m for a shorter one)
	$(BIN)/python -m tests.benchmarks.soak --for $(SOAK)

FUZZ ?= 5m
fuzz: $(STAMP)  ## answers and requests taken apart byte by byte, each for so long (FUZZ=1h)
	$(BIN)/python -m tests.benchmarks.fuzz_answer --for $(FUZZ)
	$(BIN)/python -m tests.benchmarks.fuzz_front --for $(FUZZ)

gpu: $(STAMP)  ## correctness and speed on a CUDA card; elsewhere skipped, which it says (minutes)
	$(BIN)/python -m pytest tests/gpu

MLFLOW := peers/mlflow-venv/.installed
$(MLFLOW): tests/peers/mlflow.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

APPS := $(patsubst tests/peers/apps/%.txt,peers/%-venv/.installed,$(wildcard tests/peers/apps/*.txt))
peers/%-venv/.installed: tests/peers/apps/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

peers: $(STAMP)  ## tests against real third-party servers and clients (minutes, x86-64 Linux)
	@PYTHON=$(PYTHON) sh tests/peers/setup.sh
	-@$(MAKE) --no-print-directory --keep-going $(MLFLOW) $(APPS)
	peers/venv/bin/python -m pytest tests/peers

PROTOC := peers/proto-venv
RPC    := loadbench/engine/rpc
proto:  ## after a change of .proto files
	$(PYTHON) -m venv $(PROTOC)
	$(PROTOC)/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools
	cd $(RPC) && $(CURDIR)/$(PROTOC)/bin/python -m grpc_tools.protoc -I. --descriptor_set_out=protocol.binpb *.proto
	cd loadbench/targets/protos && $(CURDIR)/$(PROTOC)/bin/python -m grpc_tools.protoc -I. --descriptor_set_out=serving.binpb *.proto

clean:
	rm -rf $(VENV) build dist *.egg-info
