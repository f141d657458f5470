# make quickstart   sets everything up in .venv and runs the main job
# make test         sets everything up and passes every test this machine can run
# make check        what to run before a commit: formatting, types, layers, fast tests
# make bench        training and prediction throughput beside Hugging Face Trainer

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The versions in constraints.txt are tested with 3.11; a newer Python usually has wheels for them too.
PYTHON ?= $(shell for each in python3.11 python3 python3.12 python3.13; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)

.PHONY: quickstart test check bench format venv clean

quickstart: $(STAMP)
	$(BIN)/xstilts run jobs/quickstart.yaml

test: $(STAMP)
	@bash .ci/packages
	$(BIN)/pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m "not slow and not cluster and not s3 and not browser and not gpu" tests/unit tests/contracts tests/golden

bench: $(STAMP)
	$(BIN)/python bench/throughput.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(STAMP)

# The stamp is written last: an installation that was interrupted starts again.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "xstilts needs Python 3.11 or newer: install it, or name it, make PYTHON=/path/to/python3.11"; exit 1; }
	@bash .ci/packages "$(PYTHON)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
