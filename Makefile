PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: help setup demo test lint fmt faults paddle bench clean
help:  ## what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

.venv/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here: install Python 3.11 or name yours, make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --editable ".[test]"
	@touch $@

setup: .venv/.installed  ## a virtual environment in .venv with the package and what its tests need

demo: setup  ## the whole recipe on rendered pictures, on this machine, in minutes
	$(BIN)/ocr-ray demo

# Those that start Ray use all cores themselves; the others share them out.
test: setup  ## the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests --ignore tests/e2e --ignore tests/faults
	$(BIN)/python -m pytest tests/e2e tests/faults

lint: setup  ## style, types, and which floor may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy ocr_ray examples benchmarks
	$(BIN)/lint-imports

fmt: setup  ## puts the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

faults: setup  ## the tests that kill processes, with the slow ones that `make test` leaves out
	$(BIN)/python -m pytest tests/faults -m ""
	$(BIN)/python -m pytest tests/e2e -m slow

.venv-paddle/.installed:
	$(PYTHON) -m venv .venv-paddle
	.venv-paddle/bin/pip install --disable-pip-version-check --quiet "paddlepaddle>=3" setuptools
	@touch $@

paddle: setup .venv-paddle/.installed  ## PaddlePaddle loads the .pdparams that we write, key by key
	OCR_RAY_PADDLE_PYTHON=.venv-paddle/bin/python $(BIN)/python -m pytest tests/paddle

bench: setup  ## ratios of the data path, the step and what Ray adds, as a table; minutes (see benchmarks/README.md)
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## removes the virtual environment and caches; keeps runs/
	rm -rf .venv .venv-paddle build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
