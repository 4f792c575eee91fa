# `make` alone lists what there is.
.DEFAULT_GOAL := help
.PHONY: help demo test quick test-compose soak check build release fmt lint doc deny test-tools bench instructions instructions-accept clean-build

SHELL := /bin/bash
CARGO ?= cargo
# Most tests wait for processes and servers more than they work.
export RUST_TEST_THREADS ?= $(shell echo $$(($$(nproc) * 3 / 2)))

help: ## List the targets
	@echo "The stack (MongoDB and WAHA, in Docker):"
	@grep -hE '^[a-z][a-z-]*:.*## ' compose/stack.mk | awk -F ':.*## ' '{printf "  make %-19s %s\n", $$1, $$2}'
	@echo "Development:"
	@grep -hE '^[a-z][a-z-]*:.*## ' Makefile | sort | awk -F ':.*## ' '{printf "  make %-19s %s\n", $$1, $$2}'

include compose/stack.mk

demo: ## The main job in half a minute: a login survives two wiped disks (no database, no Docker)
	$(CARGO) build --release --locked --bin sessionkeep --example gateway --example demo
	$(CARGO) run --quiet --release --locked --example demo

test: test-tools ## All tests, against real gateways and a real mongod (fetched into .cache/)
	$(CARGO) build --workspace --locked --bins --examples
	$(CARGO) test --workspace --locked
	@tests/compose/run.sh --if-possible

# With `TESTS=quick` a world is on SQLite. What needs a real mongod, which would have to be fetched, is
# left out by name.
needs_mongod := replica_set clocks:: idle::where outage::a_restore outage::thirty cut_off \
	where_the_last_changes with_outage_stop clock_that_is_wrong known_to_be_good every_spelling \
	without_a_store_the_gateway a_user_with_rights options_of_an_address sees_its_own_environment \
	the_url_names a_flush_that_cannot_be_done
quick: ## Unit tests and the main job on SQLite: two minutes after the first build, nothing is fetched
	$(CARGO) build --workspace --locked --bins --examples
	$(CARGO) test --workspace --locked --lib
	TESTS=quick $(CARGO) test --locked --test architecture --test main_job -- \
		$(addprefix --skip ,$(needs_mongod))

test-compose: ## The stack's tests alone, in real Docker: needs a working engine
	@tests/compose/run.sh

# A seed of its own each time, which it says; FAULTS_SEED=N repeats one.
soak: test-tools ## The fault campaign at length: an hour or more, prints its table (FAULTS_SEED repeats a run)
	@set -e; seed=$${FAULTS_SEED:-$$(date +%s)}; table=$(CURDIR)/target/faults.tsv; rm -f "$$table"; \
	echo "soak: FAULTS_SEED=$$seed"; \
	$(CARGO) build --workspace --locked --bins --examples --profile soak; \
	code=0; FAULTS=soak FAULTS_SEED=$$seed FAULTS_TABLE=$$table $(CARGO) test --locked --profile soak --test faults || code=$$?; \
	{ printf 'fault\trounds\tlost\ttorn\tdouble-owned\n'; sort "$$table"; } | column -t -s "$$(printf '\t')"; exit $$code

check: fmt-check lint doc deny test ## What CI runs: format, lints, docs, licences, all tests

build: ## Build for development
	$(CARGO) build --workspace --locked --all-targets

release: ## Build the binary that ships: target/release/sessionkeep
	$(CARGO) build --release --locked --bin sessionkeep

.PHONY: static
static: ## Build the binary that needs no C library (musl), prove that it is static and that it works
	@tests/tools/static.sh

fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check:
	$(CARGO) fmt --all --check

lint: ## Lints, with warnings as errors
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy --test compose --locked -- -D warnings
	@if command -v shellcheck >/dev/null; then \
		shellcheck -x -P SCRIPTDIR -e SC2016 $$(git ls-files '*.sh') .ci/run; \
	else \
		echo "lint: shellcheck is not installed, so the scripts were not looked at"; \
	fi

doc: ## Build the documentation of the code, with warnings as errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

deny: ## Dependencies: licences, sources, bans, withdrawn versions, known vulnerabilities
	@tests/tools/deny.sh

.PHONY: fuzz
fuzz: ## Feed every decoder with libFuzzer, a minute each (nightly toolchain; FUZZ_SECONDS, FUZZ_DECODERS)
	@tests/tools/fuzz.sh

test-tools: ## Fetch the real parts that the tests drive (quick when they are there)
	@tests/tools/fetch.sh

bench: release ## Measure it beside what people use instead: half an hour (BENCH=smoke: a minute or two), writes docs/benchmarks.md
	@supervisor/app/benches/peers/fetch.sh
	$(CARGO) bench --workspace --locked --bench compare

# Built as `cargo bench` builds it, but with the names of functions kept for callgrind_annotate.
# A profile that keeps them would build all dependencies anew.
instructions: ## Count the instructions of hot paths; fail if one takes a tenth more than accepted (valgrind)
instructions-accept: ## Accept the counts as they are now: writes supervisor/app/benches/instructions.tsv
instructions-accept: accept = --accept
instructions instructions-accept:
	@set -o pipefail; program=$$($(CARGO) rustc --package sessionkeep --locked --profile bench --bench instructions \
		--message-format json-render-diagnostics -- -C strip=none \
		| sed -n 's/.*"kind":\["bench"\].*"executable":"\([^"]*\)".*/\1/p') && "$$program" $(accept)

.PHONY: init-table init-figures
init-table: ## Run the cases of docs/init.md against tini, dumb-init, catatonit and s6 (root; all installed), write the table
	INIT_TABLE=write $(CARGO) test --locked --test peers -- ours_passes_every_case

init-figures: release ## Measure what an init costs, beside the same peers, and write it to docs/init.md (root)
	$(CARGO) bench --locked --bench init

clean-build: ## Remove what was built and fetched
	$(CARGO) clean
	rm -rf .cache tests/gateways/baileys/node_modules supervisor/app/benches/peers/sidecar/node_modules
