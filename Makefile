# Needs GNU make and Python 3.11 or newer with its venv module; everything else goes into $(VENV).

PYTHON ?= python3
VENV ?= .venv
# What brings torch. A CPU build is far smaller: make test TORCH='torch==2.13.0+cpu' PIP_ARGS='--find-links FOLDER'
TORCH ?= torch torchvision
PIP_ARGS ?=
# Minutes that `make demo` spends on learning a style.
MINUTES ?= 2

python := $(VENV)/bin/python
pip := $(python) -m pip install -qq --disable-pip-version-check $(PIP_ARGS)
torch := $(VENV)/.torch-$(shell echo '$(TORCH)' | cksum | cut -d' ' -f1)
export PYTHONUNBUFFERED = 1
MAKEFLAGS += --no-builtin-rules

.PHONY: help setup demo test check docs bench clean
.DEFAULT_GOAL := help

help:  ## list what can be made
	@echo "usage: make TARGET [VARIABLE=VALUE]"
	@sed -n 's/^\([a-z]*\):.*  ## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-8s %s\n", $$1, $$2 }'
	@echo "variables: PYTHON=$(PYTHON)  VENV=$(VENV)  TORCH='$(TORCH)'  PIP_ARGS='$(PIP_ARGS)'  MINUTES=$(MINUTES)"

setup: $(VENV)/.dev  ## make the developer's environment: everything that trains, tests and checks

demo: $(VENV)/.light  ## paint the sample photos, then learn a new style; ends with demo/index.html
	@$(python) -m impasto.demo first
	@$(MAKE) --no-print-directory $(VENV)/.train || \
	    { echo "the packages that train could not be installed; demo/index.html shows the part that needs none of them" >&2; exit 1; }
	@$(python) -m impasto.demo second --minutes $(MINUTES)

test: $(VENV)/.dev  ## run the tests
	@$(python) -m pytest -q

check: $(VENV)/.dev  ## format, lint, types, import direction, and the documentation without a warning
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	@$(typecheck_tree)
	$(python) -m mypy
	$(python) -m pytest -q tests/test_imports.py
	$(build_docs)

docs: $(VENV)/.dev  ## build the documentation and the reference: build/site/index.html
	@$(typecheck_tree)
	@$(build_docs)

bench: $(VENV)/.light  ## time the installed styles on this machine
	@$(VENV)/bin/impasto bench speed

clean:  ## remove the environment, the demo and what was built; runs/ stays
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# mypy and mkdocs read the packages from a tree that looks as they are installed: links to src/impasto and to the rooms.
define typecheck_tree
rm -rf build/typecheck && mkdir -p build/typecheck/impasto && \
ln -s $(CURDIR)/src/impasto/* $(foreach room,$(rooms),$(CURDIR)/$(room)) build/typecheck/impasto/
endef
build_docs = NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --quiet
rooms := $(patsubst %/__init__.py,%,$(filter-out tests/%,$(wildcard */__init__.py)))

# One stamp for each layer of the environment: an unchanged pyproject.toml installs nothing twice.
$(python):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("impasto needs Python 3.11 or newer: %s is %d.%d. Name another one: make PYTHON=python3.12" % ((sys.executable,) + v))'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(pip) --upgrade pip

$(VENV)/.light: pyproject.toml | $(python)
	@echo "installing impasto and the sample photos: about 100 MB"
	@$(pip) --editable '.[demo]'
	@touch $@

$(torch): | $(python)
	@echo "installing $(TORCH): up to several GB, see TORCH in the Makefile for a smaller one"
	@$(pip) $(TORCH)
	@rm -f $(VENV)/.torch-* && touch $@

$(VENV)/.train: pyproject.toml $(torch)
	@echo "installing what trains"
	@$(pip) --editable '.[train,demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(torch)
	@echo "installing what trains, tests and checks"
	@$(pip) --editable '.[dev]'
	@touch $@
