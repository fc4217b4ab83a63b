# radlens: install, demo, checks. `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

# A folder that `make wheelhouse` filled: then nothing comes from the network.
WHEELS ?=
INSTALL := $(PIP) install --no-compile $(if $(WHEELS),--no-index --find-links $(WHEELS))

# cpu or gpu: the packages of the two must not stand together. A GPU is there if its driver answers.
ACCELERATOR ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
LOCK := $(if $(filter gpu,$(ACCELERATOR)),requirements-gpu.lock,requirements.lock)
UNHASHED := $(LOCK:.lock=-unhashed.lock)
OTHERS := $(if $(filter gpu,$(ACCELERATOR)),onnxruntime openvino,onnxruntime-gpu tensorrt)
INSTALLED := $(VENV)/.installed-$(ACCELERATOR)

# Of the demo: samples behind the upsampled map, gradients of each of them (by default the model's own), where to write.
SAMPLES ?= 200
STEPS ?=
OUT ?= demo
PACS_OUT ?= demo-pacs

# Of the load test: simultaneous users, seconds, folder of the report.
USERS ?= 4
DURATION ?= 30
LOAD ?= build/load

# Further arguments for pytest, such as TESTS="tests/cli -x".
TESTS ?= tests

# Processes that share the tests; each computes with one thread.
JOBS ?= 2

# Of `make lock`: the tool, and options such as UV_OPTIONS="--upgrade-package numpy"; without, versions stay.
UV ?= uv
UV_OPTIONS ?=

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS)

# Compiled once, packages start in a tenth of the time, and tests and server start many processes.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install install-dev wheelhouse lock demo demo-pacs stop test test-slow test-quick coverage lint types check bench bench-engines bench-attribution bench-gpu clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(INSTALLED) ## install into .venv what radlens runs with; ACCELERATOR=cpu or gpu overrides what is found, WHEELS=DIR needs no network

install-dev: $(VENV)/.installed-dev ## install what checks it as well

wheelhouse: HOUSE = $(or $(WHEELS),wheelhouse)
wheelhouse: ## collect for this kind of machine what `make install WHEELS=DIR` installs without a network, in wheelhouse/ or WHEELS
	@$(MAKE_VENV)
	@mkdir -p $(HOUSE)
	@$(PIP) download --require-hashes --no-deps --dest $(HOUSE) --requirement $(LOCK)
	@sed -nE 's/^([^ ;]+==[^ ;]+).*/\1/p' $(LOCK) > $(HOUSE)/versions.txt
	@$(PIP) download --constraint $(HOUSE)/versions.txt --find-links $(HOUSE) --dest $(HOUSE) --requirement $(UNHASHED)
	@$(PIP) wheel --no-deps --wheel-dir $(HOUSE) .
	@echo "make install WHEELS=$(HOUSE) installs from it; its $$(du -sh $(HOUSE) | cut -f 1) are for the $(ACCELERATOR)"

lock: ## pin every package with its hashes, as pyproject.toml asks for it; needs uv
	@mkdir -p build
	@printf '%s\n' $(BESIDE_TORCH) > build/beside-torch.txt
	@$(COMPILE) --extra cpu $(SERVED) -o requirements.lock
	@$(COMPILE) --extra gpu $(SERVED) -c requirements.lock -o requirements-gpu.lock
	@$(COMPILE) --extra dev $(BESIDE) -o requirements-dev.lock
	@$(COMPILE) --extra load $(BESIDE) -o requirements-load.lock
	@sed -i '1i # What radlens runs with without a GPU, beside requirements-unhashed.lock; made by `make lock`.' requirements.lock
	@sed -i '1i # What radlens runs with on an NVIDIA GPU, beside requirements-gpu-unhashed.lock; made by `make lock`.' requirements-gpu.lock
	@sed -i '1i # What checks radlens, beside requirements.lock or requirements-gpu.lock; made by `make lock`.' requirements-dev.lock
	@sed -i '1i # What puts load on a server, beside requirements.lock or requirements-gpu.lock; made by `make lock`.' requirements-load.lock

demo: install ## serve the demo model, send it a phantom as DICOM, write what comes back to demo/
	@$(BIN)/radlens demo --output $(OUT) --upsample $(SAMPLES) $(if $(STEPS),--n-steps $(STEPS))

demo-pacs: install ## send a phantom and an ultrasound image through server, node and Debian's Orthanc, write what it holds to demo-pacs/
	@$(BIN)/radlens node demo --output $(PACS_OUT) --samples $(SAMPLES)

stop: ## stop the server
	@if [ -x $(BIN)/radlens ]; then $(BIN)/radlens serve --stop; fi

test: install-dev ## run the tests, those against a real TorchServe among them; 10 to 13 minutes
	$(PYTEST) -m "not slow" $(TESTS)

test-slow: install-dev ## run the tests that test leaves out: trainings, several servers, many phantoms
	$(PYTEST) -m slow $(TESTS)

test-quick: install-dev ## run the tests of files that take seconds, without a server; some 4 minutes
	$(PYTEST) -m "not slow and not serving and not long" $(TESTS)

coverage: install-dev ## run all tests and print how many lines of each room of radlens/ they reach
	$(PYTEST) --cov=radlens --cov-report= $(TESTS)
	$(BIN)/python tests/room_coverage.py

lint: install-dev ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev ## check types
	$(BIN)/mypy

check: lint types test test-slow ## lint, types and all tests

bench: $(VENV)/.installed-load ## put load on the running server with locust; report and CSV go to build/load/
	@mkdir -p $(LOAD)
	$(BIN)/locust --locustfile benchmarks/locust_cdmam.py --headless --only-summary \
	    --users $(USERS) --spawn-rate $(USERS) --run-time $(DURATION)s \
	    --html $(LOAD)/report.html --csv $(LOAD)/load

bench-engines: install-dev ## time every way to compute a gradient, an OMIG map and an upsampled map; some 40 minutes
	$(BIN)/python benchmarks/engines.py --models all --output benchmarks/results/engines.json
	$(BIN)/python benchmarks/omig.py --output benchmarks/results/omig.json
	$(BIN)/python benchmarks/upsampling.py --reliability 0.95 --output benchmarks/results/upsampling.json

bench-attribution: install-dev ## time every method of classifiers beside Captum's; some 40 minutes
	$(BIN)/python benchmarks/attribution.py --models all --output benchmarks/results/attribution.json

bench-gpu: install-dev ## the same on a GPU machine, with the whole map of 5000 samples
	$(BIN)/python benchmarks/gpu.py --output benchmarks/results/gpu.json

clean: stop ## stop the server and remove all that was made, the installation excepted
	rm -rf $(OUT) $(PACS_OUT) .run logs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find model_store -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	find . -name __pycache__ -type d ! -path './$(VENV)/*' -prune -exec rm -rf {} +

# For Python 3.11 and newer on every platform, with the hashes of all files of a version. torch is left to
# requirements-unhashed.lock, with the CUDA that its public build brings, and so is TensorRT. setuptools builds radlens.
BESIDE_TORCH := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
    nvidia-nvshmem-cu13 tensorrt triton
COMPILE = printf 'setuptools>=77\nwheel\n' | $(UV) pip compile pyproject.toml - --quiet --universal --python-version 3.11 \
    --generate-hashes --no-annotate --no-header --no-emit-package torch --no-emit-package radlens \
    --excludes build/beside-torch.txt $(UV_OPTIONS)
SERVED := --extra serve --extra node --extra train --extra studies --extra report
BESIDE = -c requirements.lock $$(sed -nE 's/^([A-Za-z0-9._-]+)==.*/--no-emit-package \1/p' requirements.lock)

# A venv whose pip is gone is made again.
MAKE_VENV = $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)

# Every lock is complete, so pip need not look for more: it could only find what has no hash.
HASHED := --require-hashes --no-deps --requirement

# The stamps are newer than the lists they were installed from, so that a second run has nothing to do.
$(INSTALLED): $(LOCK) $(UNHASHED) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'radlens needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	@echo 'installing into $(VENV) for the $(ACCELERATOR), about a minute'
	@$(MAKE_VENV)
	@rm -f $(VENV)/.installed-cpu $(VENV)/.installed-gpu
	@$(BIN)/python -m pip --quiet --disable-pip-version-check uninstall --yes $(OTHERS) 2>/dev/null
	@$(INSTALL) $(HASHED) $(LOCK)
	@$(INSTALL) --requirement $(UNHASHED)
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@$(PIP) check
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(INSTALLED)
	@$(INSTALL) $(HASHED) requirements-dev.lock
	@touch $@

$(VENV)/.installed-load: requirements-load.lock $(INSTALLED)
	@$(INSTALL) $(HASHED) requirements-load.lock
	@touch $@
