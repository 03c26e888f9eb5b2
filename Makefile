# make run       a small training run, from nothing to a learning curve
# make test      the fast tests            make test-all   the slow ones too
# make lint      ruff and mypy             make format     what ruff mends by itself
#
# Each does the set-up it needs: a virtual environment in .venv with the pinned packages. To choose
# the interpreter: make run PYTHON=/path/to/python

.PHONY: run test test-all lint format
# Tests start many processes. Without the bytecode of JAX's modules each takes three seconds more.
unexport PYTHONDONTWRITEBYTECODE
PYENV := $(HOME)/.pyenv/versions
# The first that can make a virtual environment. pyenv's shims are on PATH even for versions that
# are not active, and Debian's Python may lack ensurepip: only running one tells.
PYTHON ?= $(shell for python in \
	python3.12 $(PYENV)/3.12*/bin/python python3.13 $(PYENV)/3.13*/bin/python \
	python3.11 $(PYENV)/3.11*/bin/python python3; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	>/dev/null 2>&1 && echo "$$python" && break; done)
# Without --no-compile two fifths of the time go to modules that are mostly never imported.
INSTALL := .venv/bin/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt

run: .venv/renders
	.venv/bin/python -m seer_jax.run --preset=quick --task=cartpole_swingup --logdir=runs/quick
	.venv/bin/python -m experiments.plot_run runs/quick

test: .venv/renders .venv/atari
	.venv/bin/python -m pytest -q -n auto --maxprocesses=4 --dist loadfile

test-all: .venv/renders .venv/atari
	.venv/bin/python -m pytest -q -n auto --maxprocesses=4 --dist loadfile -m ""

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

.venv/installed: setup.cfg constraints.txt
	@python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
		echo "Found no Python 3.11 to 3.13 that can make a virtual environment. Install one" \
			"(Debian: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python" >&2; \
		exit 2; \
	fi; \
	if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then \
		echo "Making .venv with $$("$$python" --version) ($$python)"; \
		"$$python" -m venv --clear .venv; \
	fi
	@echo "Installing the packages into .venv: some minutes the first time"
	@$(INSTALL) -e '.[dev]'
# On Python 3.13: setup.cfg says why.
	@.venv/bin/python -c 'import dm_control' 2>/dev/null || $(INSTALL) --no-deps dm_control
	@touch $@

# Apart, because EnvPool and its games are most of a gigabyte, and `make run` needs none of it.
.venv/atari: .venv/installed
	@$(INSTALL) -e '.[atari]'
	@touch $@

.venv/renders: .venv/installed
	@.venv/bin/python -m seer_jax.doctor  # names the system packages that rendering lacks
	@touch $@
