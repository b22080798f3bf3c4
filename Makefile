# The one vocabulary of people and CI. On a machine with Python 3.11 and make and nothing else,
# `make demo` and `make test` do all their own set-up.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
SCORECARD := build/scorecard
CODE := headrace featurestore monitoring registry serving tasks flows models

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast soak check fmt lock up status down bench bench-serving-peers clean

help:  ## list every target
	@echo "Headrace: from data to served models, in plain Python."
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | \
		awk -F'|' '{printf "  make %-20s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## make .venv and install everything into it (a few minutes, once)

$(INSTALLED): requirements.lock pyproject.toml
	@echo "==> a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "==> the locked dependencies, each checked by its hash (about 230 packages, a few minutes)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		--requirement requirements.lock
	@echo "==> PyTorch 2.13.0, in the build that fits this machine"
	@$(RUN) -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@echo "==> Headrace itself"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--editable .
	@touch $@

demo: install  ## run the whole loop on a year of real flights (about two minutes)
	@echo "==> the whole loop: features, model, server, batch, drift, retrain"
	@$(RUN) -m flows.quickstart

test: install  ## run every test but the soaks
	@echo "==> the tests (under ten minutes on two cores)"
	@$(RUN) -m pytest -m "not soak" --numprocesses 2 --dist loadgroup \
		--no-loadscope-reorder

test-fast: install  ## run the tests that take no more than a few seconds each
	@$(RUN) -m pytest -m "not soak and not slow"

soak: install  ## run the long proofs (hours), then print the scorecard they made
	@rm -rf $(SCORECARD)
	@$(RUN) -m pytest -m soak --scorecard $(SCORECARD); failed=$$?; \
		$(RUN) -m tests.scorecard $(SCORECARD) && exit $$failed

check: install  ## format, lint, types and layers, without changing a file
	@$(RUN) -m ruff format --check --quiet . && $(RUN) -m ruff check --quiet . && echo "ruff: clean"
	@$(RUN) -m mypy
	@$(RUN) -m pytest tests/test_layers.py

fmt: install  ## format the code and mend what the linter can
	@$(RUN) -m ruff format . && $(RUN) -m ruff check --fix .

lock:  ## resolve pyproject.toml again into requirements.lock and requirements-serving.lock (needs uv)
	uv pip compile pyproject.toml requirements.in --extra flows --extra tables --extra warehouses --extra kubernetes --extra grpc --extra tracing \
		--extra test --extra bench --universal \
		--python-version 3.11 --generate-hashes --no-emit-package headrace \
		--output-file requirements.lock
	# SciPy is what xgboost-cpu's Python package asks for, which the server never imports.
	uv pip compile pyproject.toml --extra serving --constraint requirements.lock --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-emit-package headrace \
		--no-emit-package scipy --custom-compile-command "make lock" \
		--output-file requirements-serving.lock

up: install  ## start a Prefect server with every deployment and its schedule
	@$(RUN) -m tasks.prefect_server up

status: install  ## tell whether that server runs, and where its UI is
	@$(RUN) -m tasks.prefect_server status

down: install  ## stop that server
	@$(RUN) -m tasks.prefect_server down

bench: install  ## list the benchmarks
	@$(RUN) -m benchmarks

bench-serving-peers: install  ## make the environments of the servers that ours is measured against
	@$(RUN) -m benchmarks.serving_peers

clean:  ## remove the virtual environment and all local state
	rm -rf $(VENV) .headrace build *.egg-info
