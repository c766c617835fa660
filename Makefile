# Everything one does with a checkout: `make demo` and `make test` need nothing but Python 3.11 or newer.

VENV ?= .venv
JOBS ?= 2
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.13 python3.14; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$python"; break; }; done)
PY := $(VENV)/bin/python

.PHONY: help setup demo test lint format audit bench systems faults fuzz lock clean

help:
	@echo 'make setup | demo | test | lint | format | audit | bench | systems | faults | fuzz | lock | clean'

setup: $(VENV)/.stamp

# `--no-deps`: the lock is complete, so nothing is left to resolve, and an old pip is quick as well.
$(VENV)/.locked: requirements.lock
	@test -n '$(PYTHON)' || { echo 'no Python 3.11 or newer with venv was found; name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@touch $@

# The build takes setuptools from the lock, so that nothing unpinned is fetched.
$(VENV)/.stamp: $(VENV)/.locked pyproject.toml
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Nothing is downloaded: films are drawn, and the codec is shipped.
demo: export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
demo: setup
	latentray phantom --count 48 --seed 1 --out runs/demo/films
	latentray encode runs/demo/films/labels.csv --archive runs/demo/films.zarr --codec demo --overwrite
	latentray verify runs/demo/films.zarr
	latentray reconstruct runs/demo/films.zarr --out runs/demo/reconstructions
	latentray atlas runs/demo/films.zarr --out runs/demo/atlas.html
	latentray report runs/demo/films.zarr --source runs/demo/films/labels.csv --out runs/demo/index.html

test: setup
	$(PY) -m pytest -m 'not gpu' --numprocesses $(JOBS) --dist loadgroup

lint: setup
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

format: setup
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# Fails for a fault that a newer version mends; where no index answers it says so and passes.
audit: setup
	$(PY) .ci/audit.py

# Every benchmark at its small size: under twenty minutes on two cores. `latentray bench NAME` measures one at its full size.
bench: setup
	$(VENV)/bin/latentray bench all --nightly

# Kills, full disks, failing stores and flipped bytes by the hundred; prints a counted table and adds it to runs/faults.jsonl.
faults: setup
	LATENTRAY_FAULTS=long $(PY) -m pytest -m faults tests/faults --timeout 7200 -o faulthandler_timeout=0

# Thousands of damaged films through the decoders; what crashes, hangs or raises is left in runs/fuzz.
fuzz: setup
	$(PY) -m tests.faults.fuzz.long_form

# Trains what benchmarks/systems.mk says and is not there yet, then compares all of it.
include benchmarks/systems.mk
systems: setup $(TRAINED)
	$(VENV)/bin/latentray bench systems

# Keeps the versions that the lock has and adds what pyproject.toml newly asks for; `make lock UPGRADE=--upgrade` takes the newest.
lock: setup
	$(PY) -m uv pip compile pyproject.toml --output-file requirements.lock --quiet $(UPGRADE) \
		--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--extra gpu --extra dicom-gpl --extra s3 --extra analysis --extra dev
	sed -i '1i # Exact versions and hashes of all that an installation for development holds, for Python 3.11 and newer; written by `make lock`.' \
		requirements.lock

clean:
	rm -rf $(VENV) runs/demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find engine kernels trainers benchmarks tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
