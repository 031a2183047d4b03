# Two commands for a newcomer: `make demo` and `make test`. Each makes .venv and installs by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check format lint types imports slow bench docs smollm2 clean help

help: ## say what there is
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "coderl needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,lora,gguf,codexglue]'
	touch $@

demo: $(STAMP) ## train a small code model from its unit tests and write runs/demo/report.html
	$(BIN)/coderl demo

test: $(STAMP) ## run the test suite
	$(BIN)/python -m pytest -q -n 2 -m 'not slow'

slow: $(STAMP) ## run the learning tests too
	$(BIN)/python -m pytest -q -m slow

check: lint types imports test ## all that CI checks

format: $(STAMP) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP) ## look for mistakes of style and habit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) ## check the types
	$(BIN)/basedpyright --level error

imports: $(STAMP) ## check who may import whom
	$(BIN)/lint-imports

smollm2: $(STAMP) ## get SmolLM2-135M-Instruct into models/
	$(BIN)/python scripts/get_smollm2.py models/smollm2-135m-instruct

bench: $(STAMP) ## measure the execution engine
	$(BIN)/python benchmarks/execution.py --quick

docs: $(STAMP) ## build the documentation into site/
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

clean: ## remove the environment and caches (not runs/ or models/)
	rm -rf $(VENV) site .pytest_cache .ruff_cache
