# Two commands do everything: `make repro` runs the pipeline, `make test` tests it. `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help env dev repro test check ui bench schema lock

VENV := .venv
# auto: the PyTorch builds that this machine's driver wants (needs uv; with pip, what requirements.lock pins). cpu: without
# CUDA (needs uv). cuda: what requirements.lock pins, to the hash.
TORCH ?= auto
INSTALLED := $(VENV)/.installed-$(TORCH)
CUDA_SIZE := about 3 GB to fetch, 6.5 GB on disk
CPU_SIZE := about 0.5 GB to fetch, 2 GB on disk
DEV_SIZE := about 0.2 GB to fetch, 0.5 GB on disk
# Tests, linters, trackers and the browser's driver, on top of it.
DEV := $(VENV)/.installed-dev

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

dev: env $(DEV) ## the same with what tests and checks need, from requirements-dev.lock

repro: env ## run what changed of the pipeline, then say where the report lies
	@python -m pipelines.params.preflight
	@miwake status --quiet
	@dvc repro
	@echo
	@echo "The report: $(CURDIR)/data/report/index.html"

test: dev ## all tests
	@pytest -n 2 --dist worksteal

check: dev ## formatting, lint and types
	@ruff format --check .
	@ruff check .
	@mypy

ui: env ## Prefect's server and UI on this machine, with the pipeline and scheduled retraining
	@python -m flows.serve

bench: dev ## the benchmarks that need no data of your own, tables and one JSON line each
	@python benchmarks/pipeline.py

schema: env ## write params.schema.json anew, after a change of the params models
	@python -m pipelines.params.schema

COMPILE := uv pip compile -q --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" --python 3.11
lock: ## write requirements.lock and requirements-dev.lock anew from pyproject.toml (needs uv)
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) --extra dev --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock

# The environment -----------------------------------------------------------------------------------------------

# `miwake` with an activated environment, without installing the project into it: the code is that of the project where
# it is called, else of this folder. -P: a mere folder named pipelines where it is called must not be taken for ours.
define MIWAKE
#!/bin/sh
bin=$$(cd "$$(dirname "$$0")" && pwd)
code=$$PWD
[ -f "$$code/dvc.yaml" ] && [ -f "$$code/pipelines/cli.py" ] || code=$${bin%/*/*}
PYTHONPATH="$$code" exec "$$bin/python" -P -m pipelines.cli "$$@"
endef
export MIWAKE

$(VENV)/bin/miwake: Makefile | $(INSTALLED)
	@printf '%s\n' "$$MIWAKE" > $@; chmod +x $@

SUITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# PyTorch and what its CUDA builds bring: these alone come in several builds, whose hashes differ from the lock's.
FAMILY := ^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==
WITHOUT_FAMILY := awk '/^[a-z0-9]/ {family = $$0 ~ /$(FAMILY)/} !family'
PIP = $(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes
UV = uv pip install --python $(VENV) --compile-bytecode --no-deps --require-hashes

$(INSTALLED): requirements.lock
	@set -e; rm -f $(VENV)/.installed-*; \
	if command -v uv >/dev/null 2>&1; then \
		echo "Making the environment in $(VENV) with uv (TORCH=$(TORCH)): for the CPU $(CPU_SIZE), for CUDA $(CUDA_SIZE)"; \
		uv venv --quiet --allow-existing --python '>=3.11,<3.14' $(VENV); \
		builds="$$(sed -nE 's/^((torch|torchvision)==[^ ]+).*/\1/p' requirements.lock)"; \
		if [ "$(TORCH)" = cuda ]; then \
			$(UV) -r requirements.lock; \
		elif $(WITHOUT_FAMILY) requirements.lock | $(UV) -r - && uv pip install --python $(VENV) --compile-bytecode --torch-backend $(TORCH) $$builds; then \
			:; \
		elif [ "$(TORCH)" = auto ]; then \
			echo "PyTorch's own builds cannot be reached: taking those of the package index, with CUDA on Linux ($(CUDA_SIZE))"; \
			$(UV) -r requirements.lock; \
		else exit 1; fi; \
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
		echo "Making the environment in $(VENV) with $$($$found --version) and pip: some minutes; on Linux $(CUDA_SIZE) ..."; \
		$$found -m venv $(VENV); \
		$(PIP) -r requirements.lock; \
	fi; \
	touch $@

$(DEV): requirements-dev.lock | $(INSTALLED)
	@set -e; echo "Adding what tests and checks need ($(DEV_SIZE)) ..."; \
	if command -v uv >/dev/null 2>&1; then install="$(UV) --quiet"; else install="$(PIP)"; fi; \
	$(WITHOUT_FAMILY) requirements-dev.lock | $$install -r /dev/stdin; \
	touch $@
