# The commands that the README names. Each sets up what it needs: Python >= 3.11 with venv, and make, are all it takes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: run demo test check bench bench-torture clean
.DEFAULT_GOAL := test

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "midwatch needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what midwatch needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY)            ## Stand watch on config.example.toml: it observes and acts on nothing.
	$(BIN)/midwatch run --config config.example.toml

demo: $(READY)           ## The whole loop on real faults, no key needed. DENY=1: with the allow rules taken out.
	$(BIN)/midwatch demo $(if $(DENY),--deny)

test: $(READY)           ## Every suite; what was left out is said at the end.
	$(BIN)/python -m pytest -q

check: $(READY)          ## Format, lint, types, import contracts, policy and runbook tests, the configuration example.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	$(BIN)/midwatch check --config config.example.toml
	$(BIN)/midwatch policy check --vendor policies
	$(BIN)/midwatch policy test --vendor policies
	$(BIN)/python .ci/guard.py
	$(BIN)/python .ci/units.py

bench: $(READY)          ## READY, idle, status, the fast path: each beside its yardstick of the same run.
	$(BIN)/python -m bench

bench-torture: $(READY)  ## A thousand lives ended by kill -9.
	MIDWATCH_LIVES=1000 $(BIN)/python -m pytest -q -s tests/torture -m torture --timeout 3600

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
