# The main commands are `make demo` and `make test`; `make help` lists the others.

# The first Python of at least 3.11; make PYTHON=/path/to/python3 selects another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV_PYTHON := .cache/venv/bin/python

# Extra arguments: make test ARGS="-k wheel", make bench ARGS="matmul"
ARGS ?=
# The port of make demo; if it is busy, the next free one.
PORT ?= 8000
# MODELS=small leaves the large sample models out of the site (365 MB).
MODELS ?= all

# At the same time: the hosts of the tests are downloaded while the site is built.
SITE_AND_HOSTS = $(VENV_PYTHON) -m scripts.hosts & hosts=$$!; $(VENV_PYTHON) -m scripts.site; site=$$?; wait $$hosts && exit $$site

export PYTHONUNBUFFERED := 1
# Empty: compiled modules are kept. Without them each worker and each program that a test starts compiles seconds longer.
export PYTHONDONTWRITEBYTECODE :=
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis

.PHONY: help setup demo test quick long bench bench-dawn bench-pack conformance cases check format wheel site clean distclean
.DEFAULT_GOAL := help

help: ## List the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

setup: ## Download missing files to .cache (every other command does this first)
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer on PATH: install one, or name it with 'make PYTHON=/path/to/python3 …'." >&2; exit 1; }
	@"$(PYTHON)" -m scripts.setup

demo: setup ## Build the site, serve it on 127.0.0.1 (PORT=8000) and open it
	@$(VENV_PYTHON) -m scripts.site --models $(MODELS)
	@$(VENV_PYTHON) -m scripts.serve --port $(PORT) --open

test: setup ## Build wheel and site, then run tests/ and e2e/ (ARGS="…" for pytest)
	@$(SITE_AND_HOSTS)
	@$(VENV_PYTHON) -m scripts.browser
	@$(VENV_PYTHON) -m pytest $(ARGS)

quick: setup ## Run the most useful tests, about a minute: graphs, ops, models, sharing under CPython
	@$(VENV_PYTHON) -m pytest tests --ignore=tests/setup --ignore=tests/bench --ignore=tests/hub -m "not long and not slow" $(ARGS)

long: setup ## Run the tests that take minutes: fuzzers, SmolLM2's real weights on every device (ARGS="…" for pytest)
	@$(SITE_AND_HOSTS)
	@$(VENV_PYTHON) -m pytest -m long -o faulthandler_timeout=7200 $(ARGS)

bench: setup ## Measure the page, and the package and its peers, in a real browser (ARGS="matmul encoder")
	@$(VENV_PYTHON) -m scripts.site
	@$(VENV_PYTHON) -m bench.browser $(ARGS)

bench-dawn: setup ## Measure the package and its peers in Node on Dawn: on a GPU, without a browser (ARGS="matmul")
	@$(VENV_PYTHON) -m bench.dawn $(ARGS)

bench-pack: setup ## Pack bench-dawn for a machine with only a GPU and Node: dist/bench.tar.xz
	@$(VENV_PYTHON) -m bench.pack

conformance: setup ## Run every op's cases and 1,000 random calls in Node on Dawn (ARGS="COUNT [SEED]")
	@$(VENV_PYTHON) -m bench.dawn --conformance $(ARGS)

cases: setup ## Run cases of tests/cases in Node on Dawn (ARGS="halves decoders.gpt2_writes")
	@$(VENV_PYTHON) -m bench.dawn --cases $(ARGS)

check: setup ## Check lint rules, types and the direction of imports
	@$(VENV_PYTHON) -m scripts.check

format: setup ## Format the Python sources
	@$(VENV_PYTHON) -m ruff check --fix-only --quiet .
	@$(VENV_PYTHON) -m ruff format .

wheel: setup ## Build dist/tensorcommons-<version>-py3-none-any.whl
	@$(VENV_PYTHON) -m scripts.wheel

site: setup ## Build dist/site, a static folder that any web server can host (MODELS=small: without the large models)
	@$(VENV_PYTHON) -m scripts.site --models $(MODELS)

clean: ## Remove build results (dist), keep downloads
	rm -rf dist .cache/stamps/wheel.json

distclean: clean ## Remove downloads, too
	rm -rf .cache
