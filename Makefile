# Two commands do everything on a fresh machine: `make demo` and `make test`. Both build .venv first.
# A torch that is already importable (a GPU build, say) is kept: PYTHON=/path/to/python make demo

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY := 1
# Threads that wait asleep: on a machine with other work, spinning ones make a run many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-all lint bench gpu cards docs silence env clean

env: $(VENV)/.ready

$(VENV)/.ready: setup.py pyproject.toml tools/setup_env.sh
	PYTHON="$(PYTHON)" bash tools/setup_env.sh "$(VENV)"
	touch $@

demo: env
	$(BIN)/hf-unlearn ddpm --output_dir demo-output

test: env
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not long and not gpu"

test-all: env
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: env
	$(BIN)/python benchmarks/bench.py --profile quick

# Builds no environment, since that takes a network: the one that is there, or $(PYTHON) with what it has.
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.py

cards: env
	$(BIN)/python tools/model_cards.py

# Every command in a terminal of its own, and the table of docs/terminal.md; half an hour.
silence: env
	$(BIN)/python tools/silence_commands.py --docs docs/terminal.md

docs:
	PYTHON="$(PYTHON)" bash tools/build_docs.sh

clean:
	rm -rf $(VENV) .docs-venv demo-output site
