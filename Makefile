# make run    the debugger on the built-in model (with no terminal on stdin: a short scripted session)
# make test   the whole test suite        make bench   rates of the compiled kernels
# make lint   ruff                        make clean   remove what was built (keeps .venv)
# make test PYTHON=python3.13             the same with another Python; .venv is made anew when it has a different one

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The Python that .venv has will do when none is asked for.
PRESENT := $(if $(filter file,$(origin PYTHON)),$(wildcard $(BIN)/python),)
VERSION := $(shell $(or $(PRESENT),$(PYTHON)) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
KERNEL_SOURCES := $(shell find stepggml/_kernels -name '*.p[yx][xd]') stepggml/_kernels/variants.py setup.py
SESSION := tutorials/first-steps.step

.PHONY: run test bench lint clean build

build: $(VENV)/.built

run: build
	@if [ -t 0 ]; then $(BIN)/stepggml; else $(BIN)/stepggml debug --batch -x $(SESSION); fi

test: build
	$(BIN)/python -m pytest

bench: build
	$(BIN)/python benches/kernels.py

lint: build
	$(BIN)/ruff check .

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache $(VENV)/.built
	find stepggml tests benches -name __pycache__ -type d -prune -exec rm -rf {} +
	find stepggml/_kernels -name '*.so' -delete

# Stamps: the environment is made again when pyproject.toml or the Python changes, the kernels when one of their sources
# or the Python changes.
$(VENV)/.python-$(VERSION):
	@test -n "$(PRESENT)" || $(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.python-$(VERSION)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77" wheel "cython>=3.1"
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[test,lint]"
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(KERNEL_SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
