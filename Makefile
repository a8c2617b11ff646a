# Two commands for users: `make demo`, `make test`. The rest is for those who change the code.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint docs bench clean FORCE

demo: .venv/demo.installed
	$(BIN)/calibwrap demo

test: .venv/dev.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: .venv/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/dev.installed
	$(BIN)/mkdocs build --strict --quiet

bench: .venv/bench.installed
	for file in benchmarks/[a-z]*.py; do OMP_NUM_THREADS=1 $(BIN)/python $$file || exit 1; done

# A strict editable installation is a tree of links: type checkers see it, and a new file needs a new installation.
.PRECIOUS: .venv/%.dependencies
.venv/%.installed: .venv/%.dependencies .venv/files
	$(PIP) install --quiet --no-deps --no-build-isolation --config-settings editable_mode=strict --editable .
	touch $@

# vLLM's CPU build brings a torchvision that does not load beside this torch, and nothing here needs it.
.venv/%.dependencies: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet --constraint constraints.txt pip setuptools
	$(PIP) install --quiet --constraint constraints.txt --editable '.[$*]'
	$(PIP) uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

.venv/files: FORCE
	@mkdir -p .venv
	@find calibwrap adapters -type f -not -path '*/__pycache__/*' | sort > $@.new
	@cmp -s $@.new $@ || cp $@.new $@

clean:
	rm -rf .venv build dist site .mypy_cache .pytest_cache .ruff_cache
