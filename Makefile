# Two commands do everything from nothing: `make demo` and `make test`. Both create .venv and can be run twice.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

export VOXLINE_SHARED ?= $(abspath ../shared)

.PHONY: demo test lint install fuzz bench docs clean

install: $(STAMP)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: apt-get install python3 python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,langs,dev]'
	touch $@

demo: $(STAMP)
	@$(BIN)/python scripts/demo.py

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf work registry .mypy_cache .ruff_cache .pytest_cache

fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/fuzz_validation.py $(or $(COUNT),10000)
