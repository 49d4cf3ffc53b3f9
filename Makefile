# Everything a person does with a checkout. `make` lists it. Needs Python 3.11 or newer (and Node 20 for one test).
PYTHON ?= python3
BIN := .venv/bin
ENVIRONMENT := .venv/.installed
VLLM ?= /tmp/overnight-vllm

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint test-fast test-long test-vllm test-console sdks system console-tools pictures docs bench fuzz clean

help: ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(ENVIRONMENT) ## make the environment

$(ENVIRONMENT): pyproject.toml requirements/dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "overnight needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

demo: setup ## from nothing to five invoices, some tickets and reviews
	$(BIN)/overnight demo

# Three processes for two cores: many tests wait for other programs.
FIRST := tests/jobs
SECOND := tests/conformance tests/cli tests/docs tests/crash
# Only by `make test-long` and `make test-console`, so that CI stays below half an hour.
SLOW := tests/faults $(addprefix tests/console/browser/test_browser_,access.py actions.py live.py)

test: lint sdks system console-tools ## everything CI runs, in three processes; test-long has more
	@mkdir -p build
	@$(BIN)/pytest $(FIRST) -p no:cacheprovider > build/test-first.log 2>&1 & first=$$!; \
	$(BIN)/pytest $(SECOND) -p no:cacheprovider > build/test-second.log 2>&1 & second=$$!; \
	$(BIN)/pytest $(FIRST:%=--ignore=%) $(SECOND:%=--ignore=%) $(SLOW:%=--ignore=%); rest=$$?; \
	wait $$first; rest=$$((rest + $$?)); wait $$second; rest=$$((rest + $$?)); \
	cat build/test-first.log build/test-second.log; exit $$rest

test-console: setup system console-tools ## the console in a browser: every page in both schemes, every action by every hand
	OVERNIGHT_LONG=1 $(BIN)/pytest tests/console/browser

lint: setup ## format, lint, types, direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

sdks: setup ## older official SDKs, each in its own environment
	tests/sdk/install.sh

system: ## Chromium and Prometheus from Debian, where they are missing
	tests/system.sh

console-tools: ## axe-core, which looks at the pages of the console
	tests/console/install.sh

pictures: setup system console-tools ## the pictures of docs/images/console, out of the tests
	$(BIN)/pytest tests/console/browser/test_browser_pages.py
	@mkdir -p docs/images/console
	for name in batches-light batch-dark row-light usage-dark; do \
	  cp build/console/$$name-1440.png docs/images/console/$$name.png || exit 1; \
	done

test-fast: setup ## tests without the slow suites
	$(BIN)/pytest tests/unit tests/conformance tests/tidy

test-long: setup sdks system console-tools ## the longer runs: more seeds, crash points and cases
	OVERNIGHT_LONG=1 $(BIN)/pytest tests

test-vllm: setup ## the engine suite on vLLM for CPU, 3.5 GB, installed outside of the checkout
	OVERNIGHT_VLLM=$(VLLM) tests/vllm/install.sh
	OVERNIGHT_VLLM=$(VLLM) $(BIN)/pytest tests/vllm

docs: setup ## the documentation as a site in build/site, to be opened there or served by anything
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: setup ## all benchmarks, one JSON line each
	for script in ingest results dispatch creates transports embedded prefix beside jobs; do $(BIN)/python benchmarks/$$script.py; done

fuzz: setup ## every fuzz target for a minute, 11 minutes in all; a finding lies in build/
	$(BIN)/pip install --quiet atheris==3.0.0
	$(BIN)/python fuzz/corpus.py build/corpus
	for target in build/corpus/*; do \
	  nice -n 19 $(BIN)/python fuzz/run.py $$(basename $$target) -max_total_time=60 -max_len=2048 \
	    -dict=fuzz/json.dict -artifact_prefix=build/ $$target || exit 1; \
	done

clean: ## remove what the targets above made
	rm -rf .venv .venv-* tests/sdk/typescript/node_modules tests/console/node_modules build dist
