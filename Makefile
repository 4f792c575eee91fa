# `make` alone lists what there is.
.DEFAULT_GOAL := help
.PHONY: help demo test check build release fmt lint doc deny test-tools figures clean

SHELL := /bin/bash
CARGO ?= cargo

help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: ## The main job in half a minute: a login survives two wiped disks (no database, no Docker)
	$(CARGO) build --release --locked --bin sessionkeep --example gateway --example demo
	$(CARGO) run --quiet --release --locked --example demo

test: test-tools ## All tests, against real gateways and a real mongod (fetched into .cache/)
	$(CARGO) build --workspace --locked --bins --examples
	$(CARGO) test --workspace --locked

check: fmt-check lint doc deny test ## What CI runs: format, lints, docs, licences, all tests

build: ## Build for development
	$(CARGO) build --workspace --locked --all-targets

release: ## Build the binary that ships: target/release/sessionkeep
	$(CARGO) build --release --locked --bin sessionkeep

fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check:
	$(CARGO) fmt --all --check

lint: ## Lints, with warnings as errors
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) clippy --test compose --locked -- -D warnings

doc: ## Build the documentation of the code, with warnings as errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

deny: ## Licences and sources of all dependencies
	python3 tests/tools/licences.py
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --locked check bans licenses sources; \
	else \
		echo "deny: cargo-deny is not installed, so deny.toml was not applied"; \
	fi

test-tools: ## Fetch the real parts that the tests drive (quick when they are there)
	@tests/tools/fetch.sh

figures: release ## Measure what docs/figures.md reports: memory, CPU, latencies
	$(CARGO) bench --workspace --locked

clean: ## Remove what was built and fetched
	$(CARGO) clean
	rm -rf .cache tests/gateways/baileys/node_modules
