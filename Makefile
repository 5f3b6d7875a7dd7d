# `make demo` and `make test` need nothing but Python 3.10 or newer, a C++17 compiler and the package index:
# each makes .venv where there is none and installs what it needs itself.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.cvgl-base
DEV := $(VENV)/.cvgl-dev

# What a compiled, installed package depends on; an editable install sees edits of Python files by itself.
BUILD_INPUTS := pyproject.toml CMakeLists.txt $(wildcard sdk/native/*)
SOURCES := $(shell find sdk train export ros_bridge -type f -not -path '*/__pycache__/*' 2>/dev/null)

# A development install serves the demo as well, and must not be replaced by a plain one.
DEMO_INSTALL := $(if $(wildcard $(DEV)),$(DEV),$(BASE))

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint trt-bindings ros-wheels clean

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(DEMO_INSTALL)  ## localise a simulated flight (installs the base package only)
	$(BIN)/cvgl-demo $(DEMO_ARGS)

test: lint trt-bindings ros-wheels  ## lint, then every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(DEV)  ## the tests that take no more than seconds
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(DEV)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

trt-bindings: $(DEV)  ## TensorRT's Python bindings over stub libraries, which the tests of the engine code run against
	$(BIN)/python tests/trt/bindings.py

ros-wheels: $(DEV)  ## the genuine rclpy of Jazzy, which the tests of the ROS node run in
	$(BIN)/python tests/ros_bridge/ros_wheels.py

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(BASE): $(BUILD_INPUTS) $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check .
	@touch $@

$(DEV): $(BUILD_INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@rm -f $(BASE)
	@touch $@
