# Everything runs in a virtual environment that the first target to need it sets up.
#   make demo    deploy the bundled network
#   make test    run the tests
#   make check   lint and types
#   make fleet   twenty devices, a bad update and sensors in trouble: fleet/fleet.html (minutes)
#   make dist    sdist and wheel, built and tried
#   make docs    the documentation site, strict, and every link; make docs-run follows its pages (minutes)
#   make notebooks   run the notebooks (a minute or two)
#   make coverage   the tests, and the lines and branches they never reach
#   make mutants MODULE=osbc_deploy/limits.py   changes of a module that no test notices (minutes to hours)
#   make conformance   500 random networks on the engine and on Lava, bit by bit (minutes)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LAVA := lava-nc==0.10.0
# What these declare beside what they need would bring another torch (see CONTRIBUTING.md).
FRAMEWORKS := snntorch neurobench 'spikingjelly; python_version >= "3.11"'

.PHONY: setup demo fleet test lint types check docs docs-run notebooks conformance coverage dist mutants clean

setup: $(READY)

# Lava's last release pins NumPy 1 and Python 3.10 in its metadata but runs on newer ones (see
# docs/decisions/0002-lava.md), so it is installed without its dependencies, after them.
$(READY): pyproject.toml $(CONSTRAINTS) Makefile .ci/match_torchvision.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[lava,datasets,docs,dev]'
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python $(LAVA)
	$(BIN)/python -m pip install --quiet --no-deps --constraint $(CONSTRAINTS) $(FRAMEWORKS)
	$(BIN)/python .ci/match_torchvision.py
	touch $@

demo: $(READY)
	$(BIN)/osbc-deploy --target loihi2-sim

fleet: $(READY)
	$(BIN)/python examples/fleet/run.py -o fleet

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy

check: lint types docs

# Without network: a warning, such as a broken link, is an error.
docs: $(READY)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	$(BIN)/python docs/links.py

docs-run: $(READY)
	$(BIN)/python docs/execute.py

notebooks: $(READY)
	$(BIN)/python docs/notebooks.py --run

conformance: $(READY)
	$(BIN)/python benchmarks/conformance.py

coverage: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-report=html

dist: $(READY)
	.ci/distributions $(BIN)/python

mutants: $(READY)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[mutants]'
	$(BIN)/python .ci/mutants.py $(MODULE) $(TESTS)

clean:
	rm -rf $(VENV) build dist docs/_build docs/_produced htmlcov .coverage* .nox *.egg-info .mypy_cache .pytest_cache .ruff_cache
