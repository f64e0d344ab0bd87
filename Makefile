# `make demo` plays the main job, `make test` passes every test; `make help` lists the rest.
.PHONY: help setup build demo demo-down check test crds
CARGO = cargo
JOBS = -j2

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

setup: ## Install what the lab and the tests need (Debian 12, root)
	@scripts/setup.sh

build: setup ## Build every program
	@echo "== building"
	@$(CARGO) build $(JOBS) --workspace --quiet

demo: build ## Bring up a data centre in a box and play the main job on it
	@target/debug/demo

demo-down: ## Stop the demo's lab and remove every trace of it
	@target/debug/zylab down --name demo

crds: ## Generate the CRDs from the Rust types
	@$(CARGO) run --quiet -p api --bin crdgen

check: ## Format, lints, unit and property tests: no lab, no root
	@echo "== format" && $(CARGO) fmt --all --check
	@echo "== generated CRDs" && $(CARGO) run --quiet -p api --bin crdgen -- --check
	@echo "== lints" && $(CARGO) clippy $(JOBS) --quiet --workspace --all-targets -- -D warnings
	@echo "== unit, property and scenario tests" && $(CARGO) test $(JOBS) --workspace --lib --bins

test: build ## Everything: checks, real control plane, real hosts, the demo's story
	@echo "== format" && $(CARGO) fmt --all --check
	@echo "== generated CRDs" && $(CARGO) run --quiet -p api --bin crdgen -- --check
	@echo "== lints" && $(CARGO) clippy $(JOBS) --quiet --workspace --all-targets -- -D warnings
	@echo "== tests" && $(CARGO) test $(JOBS) --workspace -- --test-threads=1
