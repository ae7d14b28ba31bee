# `make demo` shows it, `make test` checks everything. Both set up what they need first: .venv and missing Debian packages.

PYTHON ?= python3
VERSIONS := 3.10 3.11 3.12 3.13
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup tools demo stack test test-all lint format types unit docs bench fuzz wheelhouse check-image lock clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo      simulated beams, metrics and page, nothing to configure (Ctrl-C ends it)'
	@echo 'make stack     the demo with Prometheus and Alertmanager (Ctrl-C ends all)'
	@echo 'make test      lint, types and tests'
	@echo 'make test-all  the tests on Python $(VERSIONS) (found by pyenv or on PATH)'
	@echo 'make bench     every benchmark; make bench-scrape one of them (docs/performance.md)'
	@echo 'make fuzz      a million inputs to the log parser; FUZZ=sftp or another door, RUNS=... (docs/fuzzing.md)'
	@echo 'make wheelhouse  all that an installation without network needs, in dist/wheelhouse'
	@echo 'make lint | format | types | unit | docs | check-image | lock | clean'

# The stamp stands for "this environment holds what the lock says".
setup: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/install-packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Programs that tests run. The last line fails where installing did not help.
TOOLS_ARE_THERE := (for each in amtool chromium prometheus-alertmanager promtool sshd; do \
    PATH="$$PATH:/usr/sbin" command -v $$each >/dev/null || exit 1; done)

tools:
	@$(TOOLS_ARE_THERE) || .ci/install-packages \
	    chromium openssh-client openssh-server prometheus prometheus-alertmanager
	@$(TOOLS_ARE_THERE)

demo: setup
	@exec $(BIN)/mqi-exporter demo

stack: setup tools
	@exec $(BIN)/python -m tests.support.stack

test: setup tools lint types unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	$(BIN)/mypy --strict alerts bench dashboards exporter tests

unit: setup tools
	$(BIN)/python -m pytest

test-all: $(VERSIONS:%=test-%)

test-%: .venv-%/.installed tools
	.venv-$*/bin/python -m pytest -o cache_dir=.pytest_cache/$*

# Kept, although only a pattern rule asks for it.
.PRECIOUS: .venv-%/.installed
.venv-%/.installed: requirements.lock pyproject.toml
	python=$$(PYENV_VERSION=$* pyenv which python3 2>/dev/null || command -v python$*) && $$python -m venv .venv-$*
	.venv-$*/bin/python -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$*")'
	.venv-$*/bin/python -m pip install -q --disable-pip-version-check -r requirements.lock
	.venv-$*/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

docs: setup
	$(BIN)/python -m exporter.config > docs/configuration.md
	$(BIN)/python -m exporter.web.metrics > docs/metrics.md
	$(BIN)/python -m tests.support.replay > docs/accuracy.md
	$(BIN)/python -m alerts
	$(BIN)/python -m dashboards
	rm -f docs/man/*.1
	$(BIN)/click-man --target docs/man mqi-exporter

bench: setup tools
	$(BIN)/python -m bench

bench-%: setup tools
	$(BIN)/python -m bench $*

# FUZZ is a door of tests/fuzz, RUNS how many inputs; what is worth keeping of them stays in .fuzz.
FUZZ := parser
RUNS := 1000000

fuzz: setup
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz $(FUZZ) --runs $(RUNS) --corpus .fuzz/$(FUZZ)

wheelhouse: setup
	$(BIN)/python .ci/wheelhouse dist/wheelhouse

check-image: setup
	@command -v debootstrap >/dev/null || .ci/install-packages debootstrap
	$(BIN)/python .ci/check-image

# uv is needed for this target only: it can resolve for several versions of Python at once.
lock:
	uv pip compile -q --universal --python-version 3.10 --extra dev --no-emit-index-url --no-header --no-annotate \
	    --upgrade pyproject.toml -o requirements.lock.new
	{ echo '# Versions for Python 3.10 to 3.13. Made from pyproject.toml by `make lock`; change that, not this.'; \
	    cat requirements.lock.new; } > requirements.lock
	rm requirements.lock.new

clean:
	rm -rf build dist *.egg-info .fuzz .hypothesis .mypy_cache .pytest_cache .ruff_cache $(VENV) .venv-3.*
	find exporter tests -name __pycache__ -type d -prune -exec rm -rf {} +
