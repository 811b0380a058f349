# Every target sets itself up in a fresh clone: it needs Python >= 3.11 and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Of the tests: two, each with one thread. `make test WORKERS=` is one process with two.
WORKERS := --numprocesses 2 --dist worksteal
FUZZ ?= 5000
FUZZ_SEED ?= 20261128
KILLS ?= 40
FULLS ?= 14
KILL_SEED ?= 1

# Bytecode is kept whatever the shell says: else each process of the tests compiles everything again.
test test-fast fuzz coverage kill: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help quickstart quickstart-dit golden test test-fast fuzz kill coverage check lint types contracts package reference format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

quickstart: $(READY)  ## release the embedded model without two objects and a style
	@echo 'Releasing manifests/quickstart.yaml: four steps, attacks on the result, a signed package. One to four minutes.'
	rm -rf out/quickstart/emoji-clean-1.0.0
	$(BIN)/publisher release manifests/quickstart.yaml --out out/quickstart --throwaway-key

quickstart-dit: $(READY)  ## the embedded diffusion transformer, after three steps
	@echo 'Releasing manifests/quickstart-dit.yaml: three steps on a transformer, attacks on the result, a signed package.'
	rm -rf out/quickstart-dit/emoji-dit-clean-1.0.0
	$(BIN)/publisher release manifests/quickstart-dit.yaml --out out/quickstart-dit --throwaway-key

golden: quickstart  ## release the quickstart and compare it with the golden one
	$(BIN)/python tests/released/compare.py out/quickstart/emoji-clean-1.0.0.report

test: $(READY)  ## all tests
	$(BIN)/python -m pytest $(WORKERS)

test-fast: $(READY)  ## the everyday part of the tests
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

fuzz: $(READY)  ## many damaged packages and hostile command lines; FUZZ=5000 of each kind, FUZZ_SEED=1
	FUZZ=$(FUZZ) FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m pytest tests/publisher/package/test_fuzz.py \
		tests/publisher/cli/test_hostile_lines.py

coverage: $(READY)  ## all tests, with the lines that none of them runs
	$(BIN)/python -m pytest $(WORKERS) --cov --cov-report=term:skip-covered

kill: $(READY)  ## releases killed, terminated and out of disk at random moments; KILLS=40 FULLS=14 KILL_SEED=1
	KILLS=$(KILLS) FULLS=$(FULLS) KILL_SEED=$(KILL_SEED) $(BIN)/python -m pytest tests/publisher/release/test_kills.py

check:  ## what CI runs
	bash .ci/run

lint: $(READY)  ## format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

contracts: $(READY)  ## imports go down only
	$(BIN)/lint-imports

package: $(READY)  ## build sdist and wheel, install the wheel elsewhere, and use it there
	rm -rf dist build/wheel
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index --target build/wheel dist/*.whl
	cd build && PYTHONPATH=wheel ../$(BIN)/python -c 'import publisher, sys; sys.exit("wheel" not in publisher.__file__)'
	cd build && PYTHONPATH=wheel ../$(BIN)/python -m publisher plugins
	cd build && PYTHONPATH=wheel ../$(BIN)/python -m publisher plan ../manifests/quickstart.yaml --work work

reference: $(READY)  ## make the reference pages from the code
	$(BIN)/python docs/make_reference.py

format: $(READY)  ## put format and order of imports right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and everything that was made
	rm -rf .venv out build dist

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else f"publisher needs Python 3.11 or newer; {sys.executable} is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12")'
	@echo 'Setting up .venv once: Python packages, torch the largest of them. This takes some minutes.'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -q publisher plugins
	@touch $@
