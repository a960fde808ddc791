# Two commands do everything from nothing: `make demo` and `make test`. Both create .venv and can be run twice.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

export VOXLINE_SHARED ?= $(abspath ../shared)

.PHONY: demo test lint install fuzz docs clean

install: $(STAMP)

$(STAMP): pyproject.toml scripts/set_up.py tests/ci/node/package-lock.json
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt-get install python3"; exit 1; }
	@$(PYTHON) scripts/set_up.py $(VENV) '.[all,langs,dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python scripts/demo.py

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile
# Again without bf16 and AVX-512, by which torch and oneDNN are held to AVX2: what is tested is not up to the machine.
	VOXLINE_PROCESSOR="no bf16, no avx512" $(BIN)/python -m pytest -n 2 --dist loadfile -m processor

lint: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/python scripts/cli_docs.py
	$(BIN)/voxline schema --write schemas

clean:
	rm -rf work registry .mypy_cache .ruff_cache .pytest_cache

fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/fuzz_validation.py $(or $(COUNT),10000)
