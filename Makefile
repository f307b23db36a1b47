.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# What was installed last: .venv is made again when one of these changes.
INSTALLED := .venv/installed
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4

.PHONY: help setup demo test test-all lint docs bench chaos clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv and install what the package needs

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

demo: $(INSTALLED) ## a study in miniature: do methods guided by human maps see through a shortcut? with a report
	$(BIN)/python experiments/train.py experiment=demo hydra.launcher.n_jobs=$(if $(filter Linux,$(shell uname)),8,1)
	$(BIN)/python experiments/focus.py study=runs/demo samples=96
	$(BIN)/python experiments/report.py study=runs/demo

test: $(INSTALLED) ## run the quick tests, several at a time
	$(PYTEST) -m "not slow"

test-all: test ## the same, then the slow tests: Slurm, browser, LaTeX, documents, runs that are killed
	$(PYTEST) -m slow

lint: $(INSTALLED) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(INSTALLED) ## build the documents, docs/_build/html/index.html; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html

bench: $(INSTALLED) ## measure what training, decoding and evaluating cost, side by side
	$(BIN)/python experiments/benchmark.py

chaos: $(INSTALLED) ## kill a small sweep 300 times (or KILLS=...) and compare it with one that was left alone
	$(BIN)/python experiments/chaos.py kills=$(or $(KILLS),300)

clean: ## remove .venv and caches; runs stay
	rm -rf .venv .pytest_cache .ruff_cache build docs/_build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
