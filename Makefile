# Everything starts from here; `make` alone says what there is.

SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH):/usr/sbin:/sbin
TARGET := $(or $(CARGO_TARGET_DIR),target)
# What `make run` runs: arguments of `ecsd local run`.
ARGS ?= examples/hello/task.json
DENY_VERSION := 0.20.2
DENY := $(TARGET)/tools/bin/cargo-deny

.PHONY: help setup setup-test setup-bench parity-record build run test containerd-versions fmt-check clippy deny-tool deny doc-test unit other-containerds bench bench-health bench-step soak load deny-advisories fuzz-seeds fuzz-build fuzz fuzz-smoke

help:
	@echo 'make run [ARGS=task.json]  build, and run a task definition on this machine, without AWS'
	@echo 'make build                 the release programs, in $(TARGET)/release'
	@echo 'make test                  all checks and tests, as .ci/run does'
	@echo 'make bench                 the launch bench (installs dockerd to compare with)'
	@echo 'make bench-health          what health checks cost the agent'
	@echo 'make bench-step            what one step of the state machine costs with 200 tasks'
	@echo 'make parity-record          record what dockerd shows its containers, for tests/parity.rs'
	@echo 'make soak [SOAK="--minutes 30 --tasks 200"]  short tasks on a line that keeps breaking'
	@echo 'make fuzz [FUZZ_SECONDS=60] fuzz what reads the control plane, so long for each target'
	@echo 'make deny-advisories       known vulnerabilities in dependencies (needs the network)'

setup:
	@deploy/setup.sh

setup-test:
	@deploy/setup.sh --test

setup-bench:
	@deploy/setup.sh --test --bench

# What the agent calls itself to ECS and in `ecsd -version`: the commit, `*` before it where the tree has changes.
build bench soak: export ECSD_COMMIT := $(shell git diff --quiet HEAD 2>/dev/null || echo '*')$(shell git rev-parse --short=8 HEAD 2>/dev/null || echo unknown)

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

# Built into the target directory, once; unoptimised, which is twice as fast to build and fast enough to
# run. It fetches advisories by the git program.
deny-tool:
	@command -v cargo-deny >/dev/null || [ -x $(DENY) ] || \
	  cargo install --debug cargo-deny --version $(DENY_VERSION) --locked --no-default-features --root $(TARGET)/tools --target-dir $(TARGET)/tools/build

deny: deny-tool
	@PATH="$(abspath $(TARGET))/tools/bin:$$PATH" cargo deny --offline check licenses bans sources

doc-test:
	cargo test --locked --doc --quiet

# nextest where it is installed: each test in a process of its own. The tests pass under both.
NEXTEST_OR_TEST = $(if $(shell cargo nextest --version 2>/dev/null),cargo nextest run --locked --no-fail-fast,cargo test --locked --no-fail-fast)
unit:
	@$(NEXTEST_OR_TEST) $(if $(findstring nextest,$(NEXTEST_OR_TEST)),,--lib --bins --tests)

# What speaks to containerd, again with each newer version that deploy/containerd-versions.sh found.
other-containerds:
	@if ! [ -s $(TARGET)/containerd/versions ]; then echo '*** SKIPPED: no other containerd than this machine'"'"'s was found ***'; fi; \
	while read -r _ version directory; do \
	  echo "--- containerd $$version"; \
	  ECSD_TEST_CONTAINERD_BIN=$$PWD/$$directory/usr/bin $(NEXTEST_OR_TEST) --test agent --test containers --test images || exit $$?; \
	done < <(cat $(TARGET)/containerd/versions 2>/dev/null)

# libFuzzer, driven by a plain cargo of the stable toolchain: what cargo-fuzz would pass, without it. The
# flags are for the target alone, not for build scripts: hence --target. Some 3 CPU minutes, once.
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_DIR := $(abspath $(TARGET))/fuzz
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ_SECONDS ?= 60

fuzz-seeds:
	@fuzz/seeds.sh

fuzz-build:
	RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_TARGET_DIR=$(FUZZ_DIR) cargo build --locked --release --manifest-path fuzz/Cargo.toml --target $(FUZZ_HOST)

# What it finds lies in fuzz/artifacts; run the program on that file to see it again.
fuzz: fuzz-build fuzz-seeds
	@mkdir -p fuzz/artifacts; for target in frame payload; do \
	  echo "--- fuzzing $$target for $(FUZZ_SECONDS) s"; \
	  $(FUZZ_DIR)/$(FUZZ_HOST)/release/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -timeout=10 -rss_limit_mb=1024 \
	    -verbosity=0 -print_final_stats=1 -artifact_prefix=fuzz/artifacts/$$target- fuzz/corpus/$$target || exit $$?; \
	done

fuzz-smoke:
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=20

bench: setup-bench build
	cargo bench --locked --bench launch

# Three minutes.
bench-health: setup-test
	cargo bench --locked --bench health

bench-step:
	cargo bench --locked --bench step

# What dockerd shows its containers, for tests/parity.rs on machines without it.
parity-record: setup-bench
	ECSD_PARITY_RECORD=1 cargo test --locked --test parity

# Half an hour on a bad line; not a part of `make test`.
SOAK ?= --minutes 30 --tasks 200
soak: setup-test
	cargo bench --locked --bench soak -- $(SOAK)

# What two hundred tasks at once cost, and what one launch does.
load: setup-test
	cargo bench --locked --bench load
	cargo bench --locked --bench cost

deny-advisories: deny-tool
	@PATH="$(abspath $(TARGET))/tools/bin:$$PATH" cargo deny check advisories
