# Two commands do everything from nothing: `make demo` and `make test`. Both create .venv and can be run twice.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

export VOXLINE_SHARED ?= $(abspath ../shared)

.PHONY: demo test quick lint install fuzz docs picture clean

install: $(STAMP)

$(STAMP): pyproject.toml scripts/set_up.py tests/ci/node/package-lock.json
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt-get install python3"; exit 1; }
	@$(PYTHON) scripts/set_up.py $(VENV) '.[all,langs,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python scripts/demo.py

test: $(STAMP)
	@$(BIN)/python scripts/checks.py all

# For every day: lint, types and the tests that take no time. It stops at the first failure, and begins with it next time.
quick: $(STAMP)
	@$(BIN)/python scripts/checks.py quick

lint: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/python scripts/cli_docs.py
	$(BIN)/voxline schema --write schemas

# README's picture of a quality report, from a run of some minutes; needs Chromium (apt-get install chromium).
picture: $(STAMP)
	$(BIN)/python scripts/report_picture.py

clean:
	rm -rf work registry .mypy_cache .ruff_cache .pytest_cache

fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/fuzz_validation.py $(or $(COUNT),10000)
	FUZZ_EXAMPLES=1000 $(BIN)/python -m pytest -q tests/pipeline/cli/test_ci_variables.py
