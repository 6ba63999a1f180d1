# `make` alone prints the targets. Needs: Rust, make, Python 3.11 or later.

.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(shell find src python/src -name '*.rs' 2>/dev/null) $(wildcard Cargo.toml Cargo.lock python/Cargo.toml)
PACKAGE := $(shell find python/fastoptim -name '*.py' 2>/dev/null)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
MATURIN := VIRTUAL_ENV=$(abspath $(VENV)) PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/maturin
CARGO_TEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo nextest run || echo test --lib --tests)
BUILD_TOOL := maturin$(if $(filter Linux,$(shell uname -s)),[zig])>=1.9.4,<2
ZIG := $(if $(filter Linux,$(shell uname -s)),--zig --compatibility manylinux2014)
# The same interpreter for maturin and cargo, so that neither rebuilds what the other built.
export PYO3_PYTHON := $(abspath $(BIN)/python)

.NOTPARALLEL:
.PHONY: help setup quick demo test test-rust test-python miri asan tsan mutants
.PHONY: lint lint-rust lint-python types format docs site bench bench-compare wheel check-wheel clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.built ## Create .venv with all development dependencies and a release build

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.maturin: $(VENV)/.python
	@echo 'Installing the build tool into $(VENV) ...'
	@$(PIP) install 'maturin>=1.9.4,<2'
	@touch $@

# Changes of Python sources need no rebuild, because .venv refers to them.
$(VENV)/.core: $(VENV)/.maturin pyproject.toml $(CORE)
	@command -v cargo >/dev/null \
		|| { echo 'Building fastoptim requires Rust: https://rustup.rs'; exit 1; }
	@echo 'Compiling fastoptim with all optimizations (one to ten minutes, by the machine), and'
	@echo 'installing the packages for the demo into $(VENV) meanwhile ...'
	@$(PIP) install --requirement <($(BIN)/python release/requirements.py demo) & packages=$$!; \
		$(MATURIN) build --release --quiet --compatibility linux --out target/wheels \
		&& wait $$packages && $(MATURIN) develop --release --quiet
	@touch $@

$(VENV)/.built: $(VENV)/.core
	@echo 'Installing the packages for development and for the tests into $(VENV) ...'
	@$(PIP) install 'fastoptim[dev,test,mpi]'
	@touch $@

# What the demo runs: what was built here, or the released wheel of this very source, or a new build.
$(VENV)/.demo: $(VENV)/.python pyproject.toml $(CORE) $(PACKAGE)
	@$(MAKE) --silent --question $(VENV)/.core || $(BIN)/python release/released.py \
		|| $(MAKE) --silent $(VENV)/.core
	@touch $@

quick: $(VENV)/.maturin ## Build into .venv in seconds, without the optimizations of a release
	$(MATURIN) develop --profile quick --quiet

demo: $(VENV)/.demo ## Train a network on handwritten digits and draw demo.png
	@$(BIN)/python -m fastoptim demo --output demo.png

test: lint types test-rust test-python ## Run every check and every test

test-rust: setup ## Run the tests of the core, its documentation and, once each, its benchmarks
	cargo $(CARGO_TEST)
	cargo test --quiet --doc
	cargo test --quiet --benches
	RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --workspace --no-deps

# First side by side, where each has one thread of BLAS and PyTorch; then those that measure time, or
# limit what all processes share.
test-python: setup ## Run the tests and the examples in the docstrings of the package
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
		$(BIN)/python -m pytest -m 'not alone' --durations 10 \
		--numprocesses auto --maxprocesses 4 --dist worksteal
	$(BIN)/python -m pytest -m alone

# Under `cfg(miri)` chunks and tests are small, and workers are plain threads. Without isolation the
# environment variables are visible. With deterministic floats, Miri does not add random errors to
# the exp and ln of std, which tests compare with. The first run uses Stacked Borrows, the second
# Tree Borrows.
miri: ## Detect undefined behaviour in the core with both aliasing models (nightly with miri, rust-src)
	for model in '' -Zmiri-tree-borrows; do \
		FASTOPTIM_ISA=baseline FASTOPTIM_NUM_THREADS=2 \
		MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-deterministic-floats $$model" \
		cargo +nightly miri test --lib --tests || exit 1; \
	done

# Sanitizers require a standard library built with them, and therefore an explicit target.
SANITIZED = FASTOPTIM_SLOW=1 CARGO_PROFILE_TEST_OPT_LEVEL=1 RUSTFLAGS=-Zsanitizer=$(1) CARGO_TARGET_DIR=target/$(1) \
	cargo +nightly test -Zbuild-std --target $(shell rustc -vV | sed -n 's/^host: //p') --lib --tests

asan: ## Run the tests of the core under AddressSanitizer (needs a nightly Rust with rust-src)
	$(call SANITIZED,address)

# ThreadSanitizer does not see the synchronization of libgomp, which is built without it.
tsan: ## Run the tests of the core under ThreadSanitizer (needs a nightly Rust with rust-src)
	$(call SANITIZED,thread) -- --skip exec::openmp

MUTATED := sweep/elementwise sweep/two_pass sweep/norm sweep/segment reduce/mod ops/clip exec/pool

mutants: ## Mutate the drivers of kernels and list the mutants that no test detects (cargo-mutants)
	FASTOPTIM_SLOW=1 CARGO_PROFILE_TEST_OPT_LEVEL=1 cargo mutants --jobs 1 --output target \
		$(MUTATED:%=--file src/%.rs) $(if $(SHARD),--shard $(SHARD)) -- --lib --tests

lint: lint-rust lint-python ## Check format and style

lint-rust: setup
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings

lint-python: setup
	$(BIN)/ruff format --quiet --check
	$(BIN)/ruff check --quiet

types: setup ## Check types, and the stubs against the built module
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls tests/python
	$(BIN)/python -m mypy.stubtest fastoptim._core

format: setup ## Format everything
	cargo fmt --all
	$(BIN)/ruff check --quiet --fix
	$(BIN)/ruff format --quiet

# What the extra requires, without building the package again.
$(VENV)/.docs: $(VENV)/.built
	@$(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print(*extras["optional-dependencies"]["docs"], sep="\n")' \
		| $(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement /dev/stdin
	@touch $@

docs: site ## Build the documentation into target/site/html, and run all examples in it
	$(BIN)/python -m pytest --quiet python/fastoptim \
		tests/python/project/test_docs.py tests/python/project/test_migration.py

# The pages alone, as `make test` runs the examples, too. Every warning is an error: a link to
# nowhere, a page in no table of contents, a docstring that does not parse.
site: $(VENV)/.docs
	rm -rf target/site docs/reference/generated
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going \
		--doctree-dir target/site/doctrees docs target/site/html
	@echo 'Open target/site/html/index.html'

bench: setup ## Benchmark the kernels, and report how the package compares in target/bench/report.html
	cargo bench
	$(BIN)/python benches/python/report.py

# The base is built under target/base, once per commit.
bench-compare: setup ## Compare the speed with that of another commit: BASE=<commit>
	@test -n '$(BASE)' || { echo 'State the base: make bench-compare BASE=<commit>'; exit 1; }
	$(BIN)/python benches/python/regressions.py $(BASE)

# On Linux, zig links with the oldest C library that the wheel is for; maturin finds it by the Python
# that has it. TARGET=... builds for another system, after `rustup target add`.
wheel: export CARGO_ZIGBUILD_PYTHON_PATH := $(abspath $(BIN)/python)
wheel: $(VENV)/.maturin ## Build a wheel for every Python from 3.11 on into dist/
	@$(PIP) install '$(BUILD_TOOL)'
	rm -f dist/*.whl
	$(BIN)/maturin build --release --locked --out dist $(if $(TARGET),--target $(TARGET)) $(ZIG)

check-wheel: wheel ## Test that wheel alone, with the oldest and the newest supported NumPy
	$(BIN)/python release/check_wheel.py dist/*.whl

clean: ## Remove everything that was built, .venv too
	rm -rf $(VENV) target dist demo.png examples/output docs/reference/generated .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f python/fastoptim/_core*.so
