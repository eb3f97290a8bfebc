PYTHON ?= python3
BIN := .venv/bin

.PHONY: test lint
.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

test: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/pytest -q
lint: .venv/.installed
	$(BIN)/ruff check .
