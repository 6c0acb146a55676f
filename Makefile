# make demo: set up, then compile, run and decide the quickstart.   make test: set up, then the tests.
PYTHON ?= python3
VENV ?= .venv
# On a machine without a GPU, set TORCH_INDEX to an index with CPU builds of torch to save several
# gigabytes: make demo TORCH_INDEX=URL
TORCH_INDEX ?=
BIN := $(VENV)/bin

.PHONY: setup demo test check clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("epc needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	@echo 'installing into $(VENV): about 2 GB, a few minutes'
	$(BIN)/python -m pip install -qq --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[local,dev]'
	touch $@

demo: setup
	$(BIN)/epc compile specs/quickstart.yaml
	$(BIN)/epc run
	$(BIN)/epc decide

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/epc compile --check specs/quickstart.yaml

clean:
	rm -rf $(VENV) generated/*/store generated/*/logs generated/*/report generated/*/history generated/*/journal.jsonl
