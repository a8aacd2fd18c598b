# make train   set up and train on the embedded digits: no download of data, no account
# make train ARGS="model=resnet18 data=cifar10"
# make test    set up and run the whole suite
# make lint    ruff and mypy

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Test processes: each keeps to one thread.
WORKERS ?= auto
INSTALLED = $(VENV)/.installed

.PHONY: train test lint setup

train: $(INSTALLED)
	$(VENV)/bin/python src/train.py $(if $(ARGS),$(ARGS),test=true)

test: $(INSTALLED)
	@scripts/get_browser.sh $(VENV) > /dev/null || true
	$(VENV)/bin/python -m pytest -q -n $(WORKERS) --dist loadscope

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

setup: $(INSTALLED)

# Made anew only when what it is made from changes. The constraints are the versions the suite
# passed with; `pip install .` takes newer ones.
$(INSTALLED): pyproject.toml scripts/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e '.[dev]'
	@touch $@
