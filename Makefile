# Two commands: `make build` draws sample sources and builds a dataset from them; `make test` runs all checks.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
SAMPLE ?= build/sample
OUTPUT ?= build/llamapointinpart
IMAGES ?= 60

SOAKED  = $$(grep -rlE 'tests\.(soak|fuzz) import' tests --include='test_*.py')

.PHONY: build learn poses outlines rehearsal serve test soak lint types lock lock-digests clean help

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST)

build: $(VENV)/.base $(SAMPLE)/.drawn ## draw the sample sources and build a dataset from them (no model, no download)
	$(BIN)/talking-points build --config configs/build/sample.yaml --set output=$(OUTPUT) \
	  --set sources.pascal_part116.root=$(SAMPLE)/PascalPart116 \
	  --set sources.ade20k_part234.root=$(SAMPLE)/ADE20KPart234 \
	  --set sources.partimagenet.root=$(SAMPLE)/PartImageNet
	@$(BIN)/python -m commands.show_row $(OUTPUT)

$(SAMPLE)/.drawn: | $(VENV)/.base
	$(BIN)/talking-points draw-sample $(SAMPLE) --images $(IMAGES) --sources pascal_part116,ade20k_part234,partimagenet
	@touch $@

learn: $(VENV)/.dev ## train, adapt and evaluate tiny models on drawn scenes, and print the figures (QUICK=1: the main path)
	$(BIN)/python -m commands.learn $(if $(QUICK),--quick)

poses: $(VENV)/.dev ## train and judge a tiny answerer of named keypoints on drawn scenes, beside its blind twin (ALL=1: every way)
	$(BIN)/python -m commands.poses $(if $(ALL),--all-ways)

outlines: $(VENV)/.dev ## train, refine and judge a tiny segmenter that writes outlines, on drawn scenes
	$(BIN)/python -m commands.outlines

rehearsal: $(VENV)/.dev ## the way to the paper's tables on tiny models in the true layouts, every command of it
	rm -rf build/rehearsal
	$(BIN)/talking-points rehearse build/rehearsal

serve: $(VENV)/.base ## Prefect server with its UI, a worker and all deployments on this machine
	$(BIN)/talking-points server

test: $(VENV)/.dev lint types ## lint, type check, then every test that this machine can run
	@# Four at a time: a test that drives a server waits for much of its time.
	@# Whatever fails is tried a second time, and named: on a machine that others use, processes miss their moments.
	@# Tests start hundreds of processes; where writing bytecode is switched off, each would compile the project anew.
	@$(BIN)/python -m compileall -q commands flows talking_points tasks tests
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --reruns 1 -rR --durations 40 --durations-min 8

soak: $(VENV)/.dev ## the tests that kill processes and damage files at random, several times as long as in 'make test'
	SOAK=1 $(BIN)/python -m pytest $(SOAKED)

lint: $(VENV)/.dev ## ruff and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell README.md CONTRIBUTING.md docs talking_points tasks flows commands tests prompts data_cards

types: $(VENV)/.dev ## mypy over the whole tree
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d. On Debian/Ubuntu: apt-get install python3.11 python3.11-venv, then make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

# Every file of the base is compared with its digest; the package itself is built with the setuptools among them.
$(VENV)/.base: pyproject.toml requirements-base.lock | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-base.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'import cv2' || { echo "OpenCV cannot load a system library. On Debian/Ubuntu: apt-get install -y libgl1 libglib2.0-0"; exit 1; }
	@touch $@

# PyTorch is the build that the machine's pip finds: none of its digests would hold for all of them.
$(VENV)/.dev: $(VENV)/.base requirements.lock requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock torch
	$(BIN)/pip check --quiet
	@touch $@

lock: ## resolve all dependencies anew and pin them
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet 'torch==2.13.0'
	build/lock/bin/pip install --quiet -e '.[dev,dask,ray]'
	{ echo "# Pins of every dependency and extra but llama-cpp; made by 'make lock'."; \
	  echo "# No digests: pip would then take none of the extras that it is given for, whose digests are in the other locks."; \
	  build/lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements.lock
	$(MAKE) lock-digests

lock-digests: ## list the digests of what requirements.lock and vLLM's locks pin
	test -x build/lock/bin/python || $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv
	build/lock/bin/python docker/lock_digests.py

clean: ## remove what the two commands made, but not the environment
	rm -rf build

VLLM_ENV      ?= build/env-vllm
LLAMA_CPP_ENV ?= build/env-llama-cpp

VLLM_FOR      ?= $(if $(shell command -v nvidia-smi),gpu,cpu)

.PHONY: vllm-env llama-env test-vllm test-llama-cpp test-ray

vllm-env: $(VLLM_ENV)/.ready ## vLLM in an environment of its own, which builds serve models from (with a GPU: CUDA)

llama-env: $(LLAMA_CPP_ENV)/.ready ## llama.cpp's server in an environment of its own (compiles for minutes)

test-vllm: $(VLLM_ENV)/.ready $(VENV)/.dev ## the tests of the vLLM backend, on a CPU, in an environment of its own
	VLLM_CPU_KVCACHE_SPACE=1 VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 \
	  $(VLLM_ENV)/bin/python -m pytest tests/descriptions/backends/test_vllm.py
	TALKING_POINTS_VLLM_ENV=$(abspath $(VLLM_ENV)) $(BIN)/python -m pytest tests/flows/test_vllm_build.py

$(VLLM_ENV)/.ready: requirements-vllm.lock requirements-vllm-gpu.lock
	$(PYTHON) -m venv $(VLLM_ENV)
ifeq ($(VLLM_FOR),gpu)
	$(VLLM_ENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-vllm-gpu.lock
else
	$(VLLM_ENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM_ENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-vllm.lock
	$(VLLM_ENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
endif
	@touch $@

test-ray: $(VENV)/.dev ## the test of Ray, after installing it (75 MB to download, 200 MB on the disk: no part of 'dev')
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-ray.lock
	$(BIN)/python -m pytest tests/flows/test_ray.py

test-llama-cpp: $(LLAMA_CPP_ENV)/.ready ## the tests of the llama.cpp backend, in an environment of its own (compiles for minutes)
	$(LLAMA_CPP_ENV)/bin/python -m pytest tests/descriptions/backends/test_llama_cpp.py

$(LLAMA_CPP_ENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(LLAMA_CPP_ENV)
	CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF" $(LLAMA_CPP_ENV)/bin/pip install --quiet \
	  --disable-pip-version-check -c requirements.lock -e '.[llama-cpp]' 'llama-cpp-python[server]==0.3.36' gguf==0.19.0 \
	  hypothesis pytest pytest-timeout
	@touch $@
