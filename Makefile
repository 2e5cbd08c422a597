# Every target but help and clean first creates the environment, if there is none. After an interruption, run
# the command again.
#
# Variables, as in: make test PYTHON=python3.12
#   PYTHON       makes the environment; 3.11 or newer
#   VENV         the environment's folder (no spaces); an existing one is used and completed
#   TORCH_INDEX  where torch and torchvision come from; empty means the package index
#   PEER         a checkout of pytorch/examples that make bench compares with
#   ARGS         further words for fast-style demo or pytest, as in: make test ARGS="-k gram"

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PEER ?=
ARGS ?=

CPU_INDEX := https://download.pytorch.org/whl/cpu
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PEER_WORDS := $(if $(PEER),--peer $(PEER))
READY := $(VENV)/.fast-style-ready
UNFINISHED := $(VENV)/.fast-style-unfinished

# Ends with a message when this Python is too old.
CHECK_VERSION := 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "%s is Python %d.%d, but \
fast-style needs 3.11 or newer. Name another one, as in: make test PYTHON=python3.12, and if this is the \
environment itself, remove it first." % ((sys.executable,) + sys.version_info[:2]))'

.PHONY: help demo test bench lint types check setup clean missing

help:
	@echo 'make demo    train a small style model and stylize photos with it, in minutes, on a CPU'
	@echo 'make test    the fast tests                                 (ARGS="-k gram" chooses)'
	@echo 'make check   lint, types and the fast tests: what every commit must pass'
	@echo 'make bench   what docs/performance.md measures on a CPU; an hour   (PEER=../examples compares)'
	@echo 'make lint    ruff: mistakes and formatting'
	@echo 'make types   mypy, strict'
	@echo 'make setup   only the environment, which the other targets also create'
	@echo 'make clean   remove .venv, caches and build products; runs and data stay'
	@echo
	@echo 'PYTHON=python3.12 chooses the Python (3.11 or newer), VENV=folder the environment.'
	@echo 'On a machine without an NVIDIA GPU, this makes the set-up much smaller:'
	@echo '  make demo TORCH_INDEX=$(CPU_INDEX)'

demo: $(READY)
	@$(BIN)/fast-style demo $(ARGS)

# A process for each core and one more (tests/conftest.py), up to eight. The tests of one file run in one
# process: they share fixtures.
test: $(READY)
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile $(ARGS)

bench: $(READY)
	$(BIN)/python benchmarks/start_up.py $(PEER_WORDS)
	$(BIN)/python benchmarks/inference.py $(PEER_WORDS)
	$(BIN)/python benchmarks/convolutions.py
	$(BIN)/python benchmarks/training.py --commands $(PEER_WORDS)
	$(BIN)/python benchmarks/folder.py $(PEER_WORDS)
	$(BIN)/python benchmarks/loader.py $(PEER_WORDS)
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/busy_machine.py
	$(BIN)/python benchmarks/huge_photo.py

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(READY)
	@$(BIN)/mypy

check: lint types test

setup: $(READY)

clean:
	rm -rf .venv build dist fast_style.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find fast_style tests -name __pycache__ -prune -exec rm -rf {} +

# $(READY) is written last, so an interrupted set-up runs again. pip, killed in the middle of a package,
# takes that package for installed. It writes INSTALLER at the very end, so records without that file are
# removed, and the packages installed again. Links to a Python that no longer exists are removed, too.
$(READY): pyproject.toml $(if $(realpath $(BIN)/python),,missing)
	@rm -f $(READY)
	@if [ -e $(UNFINISHED) ]; then \
	    for record in $(VENV)/lib/python*/site-packages/*.dist-info; do \
	        [ -e "$$record/INSTALLER" ] || rm -rf "$$record"; \
	    done; \
	fi
	@$(PIP) --version >/dev/null 2>&1 || { \
	    command -v $(PYTHON) >/dev/null || { \
	        echo '$(PYTHON) was not found. Install Python 3.11 or newer, or name it: make test PYTHON=...' >&2; \
	        exit 1; }; \
	    $(PYTHON) -c $(CHECK_VERSION) || exit 1; \
	    $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	        echo '$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv' >&2; \
	        exit 1; }; \
	    echo 'Creating the environment $(VENV)'; \
	    [ -x $(BIN)/python ] || rm -f $(BIN)/python*; \
	    mkdir -p $(VENV) && touch $(UNFINISHED) && $(PYTHON) -m venv $(VENV) && $(PIP) --version >/dev/null || { \
	        echo 'The environment $(VENV) could not be made. Remove that folder and run the command again.' >&2; \
	        exit 1; }; \
	}
	@$(BIN)/python -c $(CHECK_VERSION)
	@touch $(UNFINISHED)
	@echo 'Installing fast-style and what it needs into $(VENV). This happens once.'
	@$(if $(TORCH_INDEX),echo 'torch and torchvision come from $(TORCH_INDEX)', \
	    echo 'On Linux, torch comes with its CUDA libraries, about 5.5 GB, and also runs without a GPU.'; \
	    echo 'Much smaller, without CUDA: stop, and add TORCH_INDEX=$(CPU_INDEX)')
	$(PIP) install 'pip>=25.1'
	$(if $(TORCH_INDEX),$(PIP) install --index-url '$(TORCH_INDEX)' torch torchvision)
	$(PIP) install --editable '.[demo,evaluation,weights]' --group dev
	@$(BIN)/python -c 'import torch, torchvision' || { \
	    echo 'torch and torchvision were installed but cannot be imported together; the error is above.' >&2; \
	    echo 'The usual cause: a CPU-only torch beside a torchvision built for CUDA. Both must come from one index.' >&2; \
	    echo 'Remove $(VENV) and run the command again, with TORCH_INDEX=$(CPU_INDEX) for CPU-only ones.' >&2; \
	    exit 1; }
	@rm -f $(UNFINISHED)
	@touch $(READY)
