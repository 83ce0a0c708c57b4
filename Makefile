# The two commands: `make compare` and `make test`. Each builds .venv when it is missing or stale.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PYTHON ?= $(shell tools/find_python)
ARGS ?=
# Huge pages for large arrays: steps on CPU take about a sixth less time (glibc 2.35 and newer).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: compare test lint bench cuda tpu lock clean

compare: $(STAMP)
	$(PY) experiments/compare_losses.py $(ARGS)

# Three workers on two cores: those that wait for processes of their own leave a core free.
test: $(STAMP)
	$(PY) -m pytest -n 3 --dist worksteal $(ARGS)

# JAX's plug-in for GPUs or TPUs, at the version that is installed.
cuda tpu: $(STAMP)
	$(PY) -m pip install --quiet -e '.[$@]'

# Ours against PyTorch, which is installed when it is missing: half an hour on two quiet cores.
bench: $(STAMP)
	@$(PY) -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))' \
	  || $(PY) -m pip install --quiet -e '.[bench]'
	$(PY) tools/bench/race.py $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed (the locked packages have no wheels for others yet); set PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PY) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing pinned dependencies into $(VENV) (once, about a minute)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Pins every dependency, with hashes, for Python 3.11 and for 3.12 and newer.
lock: $(STAMP)
	$(PY) -m pip install --quiet uv
	$(VENV)/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --extra test --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info
