# Every target sets up what it needs in VENV. On a machine with a GPU, or for the small CPU build of
# torch, pass the wheel index that PyTorch's install page names: make demo TORCH_INDEX=...

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
# The pinned versions need Python 3.11; an older one gets the newest that it can have.
CONSTRAINTS ?= $(shell $(PYTHON) -c 'import sys; print("constraints.txt" if sys.version_info >= (3, 11) else "/dev/null")')
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Two processes that each use all cores must not spin against each other.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo serve-demo test lint bench train-default train-evaluators docs-reference clean
.DELETE_ON_ERROR:

demo: $(VENV)/.base
	$(BIN)/privdiff demo --output out-demo

# Two stores and the server on the embedded sample, until Ctrl-C; ARGS="--port 8080" and the like go to
# `privdiff serve`.
serve-demo: $(VENV)/.test test-tools
	$(BIN)/python scripts/serve_demo.py $(ARGS)

test: lint test-tools
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile
	$(MAKE) --no-print-directory test-slicer

# The Slicer module, installed by CMake, on the real MRML and the real Qt; they need an environment of
# their own. Screenshots of the work are left in build/slicer.
SLICER_VENV ?= $(VENV)-slicer
SLICER_TREE = $(CURDIR)/build/installed
SLICER_MODULE = $(SLICER_TREE)/lib/Slicer/qt-scripted-modules/PrivDiff.py
test-slicer: $(VENV)/.server $(SLICER_VENV)/.slicer test-tools
	rm -rf build/ext $(SLICER_TREE)
	cmake -S . -B build/ext -DSlicer_DIR=$(CURDIR)/tests/slicer/cmake -DCMAKE_INSTALL_PREFIX=$(SLICER_TREE)
	cmake --install build/ext
	env -u DISPLAY QT_QPA_PLATFORM=offscreen VTK_DEFAULT_OPENGL_WINDOW=vtkEGLRenderWindow \
		PRIVDIFF_MODULE=$(SLICER_MODULE) PRIVDIFF_SERVER_PYTHON=$(abspath $(BIN)/python) \
		$(SLICER_VENV)/bin/python -m pytest -q --confcutdir=tests/slicer tests/slicer

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.base
	$(BIN)/privdiff benchmark --threads 2

SMALL = training/configs/cxr-256-small
TRAIN = $(BIN)/privdiff train
# From nothing to the embedded bundle; each stage continues where it was stopped. Later legs of a stage
# start from the weights of the one before. The last leg of the denoiser learns the codebook of the
# second identity network.
train-default: $(VENV)/.test
	$(TRAIN) autoencoder --config $(SMALL)/autoencoder.yaml -o runs/bundle
	$(TRAIN) autoencoder --config $(SMALL)/autoencoder-2.yaml -o runs/bundle --init-from runs/bundle
	$(TRAIN) autoencoder --config $(SMALL)/autoencoder-3.yaml -o runs/bundle --init-from runs/bundle
	$(TRAIN) identity --config $(SMALL)/identity.yaml -o runs/bundle
	$(TRAIN) reader --config $(SMALL)/reader.yaml -o runs/bundle
	$(TRAIN) diffusion --config $(SMALL)/diffusion.yaml -o runs/bundle
	$(TRAIN) diffusion --config $(SMALL)/diffusion-2.yaml -o runs/bundle --init-from runs/bundle
	$(TRAIN) diffusion --config $(SMALL)/diffusion-3.yaml -o runs/bundle --init-from runs/bundle
	$(TRAIN) diffusion --config $(SMALL)/diffusion-4.yaml -o runs/bundle --init-from runs/bundle
	$(TRAIN) identity --config $(SMALL)/identity-2.yaml -o runs/bundle --init-from runs/bundle
	$(TRAIN) diffusion --config $(SMALL)/diffusion-5.yaml -o runs/bundle --init-from runs/bundle
	$(TRAIN) suppression --config $(SMALL)/suppression-paper.yaml -o runs/bundle
	$(TRAIN) distillation --config $(SMALL)/distillation.yaml -o runs/bundle
	$(BIN)/privdiff fit-clusters --config $(SMALL)/clusters.yaml -o runs/bundle
	$(BIN)/privdiff assemble runs/bundle --config $(SMALL)/bundle.yaml -o privdiff_infer/bundles/privdiff-cxr-256

# The networks that figures are measured with.
train-evaluators: $(VENV)/.test
	$(TRAIN) identity --config training/configs/evaluators/verifier.yaml -o training/evaluators
	$(TRAIN) reader --config training/configs/evaluators/classifier.yaml -o training/evaluators

docs-reference: $(VENV)/.test
	$(BIN)/typer privdiff_infer.cli utils docs --name privdiff --output docs/reference/cli.md
	$(BIN)/python -c "from privdiff_training.reference import configuration_reference; print(configuration_reference(), end='')" > docs/reference/configuration.md

$(VENV)/bin/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory system-venv
	$(PYTHON) -m venv $(VENV)

# torch comes first and pinned: what depends on it would else bring another build.
$(VENV)/.base: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP) -c $(CONSTRAINTS) -e .
	touch $@

# monailabel asks for packages that cannot be installed together with current pydicom and numpy, and
# that the server does not need: it comes without them.
$(VENV)/.server: $(VENV)/.base requirements-server.txt
	$(PIP) -c $(CONSTRAINTS) -e ".[server]"
	$(PIP) --no-deps -r requirements-server.txt
	touch $@

$(VENV)/.test: $(VENV)/.server
	$(PIP) -c $(CONSTRAINTS) -e ".[test]"
	touch $@

$(SLICER_VENV)/.slicer: tests/slicer/requirements.txt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory system-venv
	$(PYTHON) -m venv $(SLICER_VENV)
	$(SLICER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/slicer/requirements.txt
	touch $@

.PHONY: system-venv
system-venv:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && apt-get install -y -q python3-venv; \
	else \
		echo "Python's venv module is missing; type: sudo apt-get install python3-venv"; exit 1; \
	fi

# A DICOMweb store, independent readers, a browser and software OpenGL, from Debian: without them their tests are skipped. The
# store's service is kept from starting, for tests start their own.
TEST_PACKAGES = orthanc orthanc-dicomweb dcmtk dicom3tools chromium chromium-driver cmake make g++ libegl1 libgl1-mesa-dri
POLICY = /usr/sbin/policy-rc.d
.PHONY: test-tools
test-tools:
	@command -v dpkg-query >/dev/null && dpkg-query -W $(TEST_PACKAGES) >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		if [ ! -e $(POLICY) ]; then \
			trap 'rm -f $(POLICY)' EXIT; \
			printf '#!/bin/sh\nexit 101\n' > $(POLICY) && chmod +x $(POLICY); \
		fi; \
		apt-get update -q && apt-get install -y -q --no-install-recommends $(TEST_PACKAGES) && exit 0; \
	fi; \
	echo "Tests with a store are skipped; type: sudo apt-get install $(TEST_PACKAGES)"

clean:
	rm -rf $(VENV) $(SLICER_VENV) build dist *.egg-info out-demo

# The figures of docs/results for the embedded bundle; needs ../shared. They are not written over those of
# an older bundle: copy what is published. Those of fold 4 are made once per released bundle.
RESULTS = out/results
.PHONY: results
results: $(VENV)/.test
	mkdir -p $(RESULTS)
	$(BIN)/privdiff measure components --fold 3 -o $(RESULTS)/components.json
	$(BIN)/privdiff measure gates --fold 3 -o $(RESULTS)/gates.json
	$(BIN)/privdiff measure gates --dataset hannover-covid19 -o $(RESULTS)/gates-hannover.json
	$(BIN)/privdiff measure text --fold 3 -o $(RESULTS)/text.json
	$(BIN)/privdiff sweep --fold 0 --fold 1 --fold 2 -o $(RESULTS)/sweep-select.json
	PYTHONPATH=.:training $(BIN)/python scripts/measure_groups.py -o $(RESULTS)/groups.json
	PYTHONPATH=.:training $(BIN)/python scripts/measure_strengths.py -o $(RESULTS)/strengths.json
	PYTHONPATH=.:training $(BIN)/python scripts/measure_exemplars.py -o $(RESULTS)/exemplars.json
	$(BIN)/privdiff benchmark --threads 2 --repeat 5 --soak 1000 --json > $(RESULTS)/speed.json
	PYTHONPATH=.:training $(BIN)/python scripts/measure_archives.py -o $(RESULTS)/archives.json
	cp docs/explanation/scale.md $(RESULTS)/scale.md
	$(BIN)/python scripts/simulate_scale.py --results $(RESULTS) --document $(RESULTS)/scale.md
