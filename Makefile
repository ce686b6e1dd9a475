# Two commands do everything: `make repro` runs the pipeline, `make test` tests it. `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help env repro test check ui bench schema lock

VENV := .venv
# cuda: what requirements.lock pins (about 6 GB on Linux). cpu: the same without CUDA (about 1.5 GB; needs uv).
TORCH ?= cuda
INSTALLED := $(VENV)/.installed-$(TORCH)

# Every tool comes from the environment, `python` in dvc.yaml too.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Without byte code every stage would compile its imports anew: seconds each.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV
# No telemetry. DVC's is off in .dvc/config.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export GX_ANALYTICS_ENABLED := false

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(INSTALLED) $(VENV)/bin/miwake ## the environment alone, in .venv, from requirements.lock (TORCH=cpu: without CUDA)

repro: env ## run what changed of the pipeline, then say where the report lies
	@miwake status --quiet
	@dvc repro
	@echo
	@echo "The report: $(CURDIR)/data/report/index.html"

test: env ## all tests
	@pytest -n 2 --dist worksteal

check: env ## formatting, lint and types
	@ruff format --check .
	@ruff check .
	@mypy

ui: env ## Prefect's server and UI on this machine, with the pipeline and scheduled retraining
	@python -m flows.serve

bench: env ## the benchmarks that need no data of your own, tables and one JSON line each
	@python benchmarks/pipeline.py

schema: env ## write params.schema.json anew, after a change of the params models
	@python -m pipelines.core.params

lock: ## write requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
		--extra dev --python 3.11 pyproject.toml --output-file requirements.lock

# The environment -----------------------------------------------------------------------------------------------

# `miwake` from anywhere below an activated environment, without installing the project into it: this folder is the
# project. -P: a folder named pipelines where it is called must not be taken for ours.
define MIWAKE
#!/bin/sh
bin=$$(cd "$$(dirname "$$0")" && pwd)
PYTHONPATH="$${bin%/*/*}" exec "$$bin/python" -P -m pipelines.cli "$$@"
endef
export MIWAKE

$(VENV)/bin/miwake: Makefile | $(INSTALLED)
	@printf '%s\n' "$$MIWAKE" > $@; chmod +x $@

SUITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

$(INSTALLED): requirements.lock
	@set -e; rm -f $(VENV)/.installed-*; \
	if command -v uv >/dev/null 2>&1; then \
		echo "Making the environment in $(VENV) with uv ..."; \
		uv venv --quiet --allow-existing --python '>=3.11,<3.14' $(VENV); \
		if [ "$(TORCH)" = cpu ]; then \
			sed -E '/^ *--hash/d; s/ *\\$$//; /^(nvidia-|cuda-|triton)/d' requirements.lock \
			| uv pip install --quiet --python $(VENV) --compile-bytecode --torch-backend cpu -r -; \
		else \
			uv pip install --quiet --python $(VENV) --compile-bytecode --require-hashes -r requirements.lock; \
		fi; \
	else \
		if [ "$(TORCH)" = cpu ]; then \
			echo "TORCH=cpu needs uv, which knows where PyTorch keeps its CPU builds: install uv, then run this again" >&2; exit 1; \
		fi; \
		for python in python3 python3.13 python3.12 python3.11; do \
			if $$python -c '$(SUITS)' >/dev/null 2>&1; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "miwake needs Python 3.11, 3.12 or 3.13 with venv (found: $$(python3 --version 2>&1 || echo none)): install uv, or Debian's python3.11 and python3.11-venv" >&2; exit 1; \
		fi; \
		echo "Making the environment in $(VENV) with $$($$found --version) and pip: some minutes, about 6 GB ..."; \
		$$found -m venv $(VENV); \
		$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements.lock; \
	fi; \
	touch $@
