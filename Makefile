# Everything starts from here; `make` alone says what there is.

SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH):/usr/sbin:/sbin
TARGET := $(or $(CARGO_TARGET_DIR),target)
# What `make run` runs: arguments of `ecsd local run`.
ARGS ?= examples/hello/task.json
DENY_VERSION := 0.20.2
DENY := $(TARGET)/tools/bin/cargo-deny

.PHONY: help setup setup-test setup-bench build run test containerd-versions fmt-check clippy deny-tool deny doc-test unit bench deny-advisories

help:
	@echo 'make run [ARGS=task.json]  build, and run a task definition on this machine, without AWS'
	@echo 'make build                 the release programs, in $(TARGET)/release'
	@echo 'make test                  all checks and tests, as .ci/run does'
	@echo 'make bench                 the benches (installs dockerd to compare with)'
	@echo 'make deny-advisories       known vulnerabilities in dependencies (needs the network)'

setup:
	@deploy/setup.sh

setup-test:
	@deploy/setup.sh --test

setup-bench:
	@deploy/setup.sh --test --bench

build: setup
	cargo build --release --locked

# Starts a private containerd of its own where none answers.
run: build
	$(TARGET)/release/ecsd local run $(ARGS)

test:
	@.ci/run

# --- the steps of .ci/run, each of which can be run alone ---

containerd-versions:
	@deploy/containerd-versions.sh

fmt-check:
	cargo fmt --check

clippy:
	cargo clippy --locked --all-targets -- -D warnings

# Built into the target directory, some 6 CPU minutes, once; it fetches advisories by the git program.
deny-tool:
	@command -v cargo-deny >/dev/null || [ -x $(DENY) ] || \
	  cargo install cargo-deny --version $(DENY_VERSION) --locked --no-default-features --root $(TARGET)/tools --target-dir $(TARGET)/tools/build

deny: deny-tool
	@PATH="$(abspath $(TARGET))/tools/bin:$$PATH" cargo deny --offline check licenses bans sources

doc-test:
	cargo test --locked --doc --quiet

# nextest where it is installed: each test in a process of its own. The tests pass under both.
unit:
	@if cargo nextest --version >/dev/null 2>&1; then exec cargo nextest run --locked --no-fail-fast; else exec cargo test --locked --no-fail-fast --lib --bins --tests; fi

bench: setup-bench build
	cargo bench --locked

deny-advisories: deny-tool
	@PATH="$(abspath $(TARGET))/tools/bin:$$PATH" cargo deny check advisories
