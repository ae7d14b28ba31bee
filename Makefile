# `make demo` shows it, `make test` checks everything. Both set up what they need first: .venv and missing Debian packages.

PYTHON ?= python3
VERSIONS := 3.10 3.11 3.12 3.13
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup tools demo stack test test-all lint format types unit docs bench fuzz chaos wheelhouse sbom licences audit
.PHONY: check-image deb check-deb lock clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo      simulated beams, metrics and page, nothing to configure (Ctrl-C ends it); PORT=...'
	@echo 'make stack     the demo with Prometheus and Alertmanager (Ctrl-C ends all)'
	@echo 'make test      lint, types and tests'
	@echo 'make test-all  the tests on Python $(VERSIONS) (found by pyenv or on PATH)'
	@echo 'make bench     every benchmark; make bench-scrape one of them (docs/performance.md)'
	@echo 'make fuzz      a million inputs to the log parser; FUZZ=sftp or another door, RUNS=... (docs/fuzzing.md)'
	@echo 'make chaos     everything goes wrong for a while; SEED=..., SECONDS=... (docs/reliability.md)'
	@echo 'make wheelhouse  all that an installation without network needs, in dist/wheelhouse'
	@echo 'make deb       a Debian package, in dist; make check-deb installs and removes it in a clean root'
	@echo 'make sbom      what the exporter is made of (CycloneDX), in dist/sbom.cdx.json; make audit: known weaknesses of it'
	@echo 'make lint | format | types | unit | docs | licences | check-image | lock | clean'

# A stamp stands for "this environment holds what the lock says". `make demo` needs the packages of the exporter only.
setup: $(VENV)/.installed

$(VENV)/.runtime-installed: requirements-runtime.lock
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/install-packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-runtime.lock
	@touch $@

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/.runtime-installed
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Programs that tests run. The last line fails where installing did not help.
TOOLS_ARE_THERE := (for each in amtool chromium nginx pgbouncer prometheus-alertmanager promtool sshd strace valgrind; do \
    PATH="$$PATH:/usr/sbin" command -v $$each >/dev/null || exit 1; done; ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1)

tools:
	@$(TOOLS_ARE_THERE) || .ci/install-packages chromium nginx-light openssh-client openssh-server pgbouncer postgresql \
	    prometheus prometheus-alertmanager strace valgrind
	@$(TOOLS_ARE_THERE)

# PORT is where the demo listens; without it, the first free one from 10813 on.
PORT :=

demo: $(VENV)/.runtime-installed
	@exec $(BIN)/python -m exporter.cli demo $(if $(PORT),--web.listen-address 127.0.0.1:$(PORT))

stack: setup tools
	@exec $(BIN)/python -m tests.support.stack

test: setup tools lint types unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	$(BIN)/mypy --strict alerts bench dashboards exporter supply tests

unit: setup tools
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(VERSIONS:%=test-%)

test-%: .venv-%/.installed tools
	.venv-$*/bin/python -m pytest -n 2 --dist loadfile -o cache_dir=.pytest_cache/$*

# Kept, although only a pattern rule asks for it.
.PRECIOUS: .venv-%/.installed
.venv-%/.installed: requirements.lock pyproject.toml
	python=$$(PYENV_VERSION=$* pyenv which python3 2>/dev/null || command -v python$*) && $$python -m venv .venv-$*
	.venv-$*/bin/python -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$*")'
	.venv-$*/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	.venv-$*/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

docs: setup
	$(BIN)/python -m exporter.config > docs/configuration.md
	$(BIN)/python -m exporter.metrics.definitions > docs/metrics.md
	$(BIN)/python -m tests.support.replay > docs/accuracy.md
	$(BIN)/python -m alerts
	$(BIN)/python -m dashboards
	$(BIN)/python -m supply.manuals

bench: setup tools
	$(BIN)/python -m bench

bench-%: setup tools
	$(BIN)/python -m bench $*

# FUZZ is a door of tests/fuzz, RUNS how many inputs; what is worth keeping of them stays in .fuzz.
FUZZ := parser
RUNS := 1000000

fuzz: .venv-fuzz/.installed
	.venv-fuzz/bin/python -m tests.fuzz $(FUZZ) --runs $(RUNS) --corpus .fuzz/$(FUZZ)

# An environment of its own, with digests: what only fuzzing needs comes into no other.
.venv-fuzz/.installed: requirements-fuzz.lock pyproject.toml
	$(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	.venv-fuzz/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# SEED says what goes wrong and when; SECONDS how long. A failure prints both, and what happened.
SEED := 1
SECONDS := 45

chaos: setup tools
	$(BIN)/python -m tests.chaos --seed $(SEED) --seconds $(SECONDS)

wheelhouse: setup
	$(BIN)/python -m supply.wheelhouse dist/wheelhouse

deb: setup
	$(BIN)/python -m supply.deb dist

# Installs, upgrades, uses and purges the package in a clean Debian root. Needs root.
check-deb: deb
	@command -v debootstrap >/dev/null || .ci/install-packages debootstrap
	$(BIN)/python .ci/check-deb dist/mqi-exporter_*.deb

sbom: setup
	@mkdir -p dist
	$(BIN)/python -m supply.sbom > dist/sbom.cdx.json

licences: setup
	$(BIN)/python -m supply.licences > docs/licences.md

# Asks a service on the internet which releases have known weaknesses; where it cannot be reached, this fails and says so.
audit: .venv-audit/.installed
	.venv-audit/bin/pip-audit --strict --disable-pip --require-hashes -r requirements-runtime.lock

.venv-audit/.installed: requirements-audit.lock
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-audit.lock
	@touch $@

check-image: setup
	@command -v debootstrap >/dev/null || .ci/install-packages debootstrap
	$(BIN)/python .ci/check-image

# uv is needed for this target only: it can resolve for several versions of Python at once.
# A version stays as it is while it fits; `make lock UPGRADE=--upgrade` takes the newest of everything.
LOCK := uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-annotate \
    --custom-compile-command 'make lock' $(UPGRADE)

lock:
	$(LOCK) --extra dev --extra postgresql pyproject.toml -o requirements.lock
	$(LOCK) --extra postgresql -c requirements.lock pyproject.toml -o requirements-runtime.lock
	sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | $(LOCK) -c requirements.lock - -o requirements-build.lock
	$(LOCK) --extra dev --extra postgresql --extra fuzz -c requirements.lock pyproject.toml -o requirements-fuzz.lock
	echo pip-audit | $(LOCK) - -o requirements-audit.lock

clean:
	rm -rf build dist *.egg-info .fuzz .hypothesis .mypy_cache .pytest_cache .ruff_cache $(VENV) .venv-3.* .venv-audit .venv-fuzz
	find exporter tests -name __pycache__ -type d -prune -exec rm -rf {} +
