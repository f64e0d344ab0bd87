# `make demo` plays the main job, `make test` passes every test; `make help` lists the rest.
.PHONY: help setup build demo demo-down check test crds bench bench-placement bench-failover fuzz-placement fuzz-bmc drills chaos
ROADEF ?= ../shared/data/roadef
SECONDS_EACH ?= 10,60,300
SCALE ?= --hosts 5000 --vms 50000
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

bench: build ## Measure recoveries, migrations and the idle site on the lab (about 25 minutes)
	@target/debug/bench

bench-placement: ## Measure the planners (SCALE="--hosts N --vms N" through a real API server), and the search on ROADEF=FOLDER for each of SECONDS_EACH: one table (over an hour)
	@mkdir -p target && rm -f target/bench-placement.rows
	@$(CARGO) build $(JOBS) --release --quiet -p scale -p lab
	@target/release/scale $(SCALE) --rows target/bench-placement.rows
	@$(CARGO) run $(JOBS) --release --quiet -p placement --bin bench_roadef -- -d $(ROADEF) -t $(SECONDS_EACH) --rows target/bench-placement.rows
	@$(CARGO) run $(JOBS) --release --quiet -p placement --bin bench_placement -- --and target/bench-placement.rows

fuzz-bmc: ## Feed mangled answers of BMCs and statuses of agents to their parsers (CASES=5000000 SEED=1)
	@ZY_FUZZ_CASES=$(or $(CASES),5000000) ZY_FUZZ_SEED=$(or $(SEED),1) $(CARGO) test $(JOBS) --release -p bmc -p operator --lib -- mangled no_status no_report

fuzz-placement: ## Play random histories of the delta interface for MINUTES (60)
	@$(CARGO) run $(JOBS) --release --quiet -p placement --bin fuzz_placement -- --minutes $(or $(MINUTES),60)

bench-failover: build ## One table of failover beside its bars: lab and 100,000 schedules, about 100 minutes; PARTS=cuts,hangs runs some
	@$(CARGO) build $(JOBS) --release --quiet -p sim
	@$(CARGO) test $(JOBS) --release --quiet -p sim --test operator_dies --no-run
	@target/debug/bench_failover $(if $(PARTS),--parts $(PARTS)) $(BENCH_OPTIONS)

drills: build ## Play every drill, every last resort and every long story on labs (over two hours); DRILLS=NAME,... or STORIES=18b,... plays some
	@$(if $(STORIES),,DRILLS=$(or $(DRILLS),all) $(CARGO) test $(JOBS) --workspace --test drills -- --nocapture)
	@$(if $(DRILLS)$(STORIES),,LAST_RESORT=all $(CARGO) test $(JOBS) --workspace --test last_resort -- --nocapture)
	@$(if $(DRILLS),,$(if $(STORIES),STORIES=$(STORIES)) $(CARGO) test $(JOBS) --workspace --test moves --test people --test whole_site --test identity --test starts --test losses --no-fail-fast -- --ignored --nocapture)

chaos: build ## Throw random faults at a lab for MINUTES (60) and judge what happened; SEED=N plays one plan, GUARDS=1 arms the guards
	@target/debug/zylab chaos --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED)) $(if $(GUARDS),--guards)

crds: ## Generate the CRDs from the Rust types
	@$(CARGO) run --quiet --bin crdgen

# Integration tests that take seconds, no lab and no root: all of placement and of the simulated
# scenarios, the hardware probes' properties, the units of systemd, the sum of make test. Model checks
# (a minute), random schedules and everything on labs are make test's.
QUICK = brute_force engine evacuation fuzz headroom rebalance scenarios properties packaging summary reader

check: ## Format, lints, unit, property and scenario tests: no lab, no root
	@echo "== format" && $(CARGO) fmt --all --check
	@echo "== generated CRDs" && $(CARGO) run --quiet --bin crdgen -- --check
	@echo "== lints" && $(CARGO) clippy $(JOBS) --quiet --workspace --all-targets -- -D warnings
	@echo "== unit, property and scenario tests" && $(CARGO) test $(JOBS) --workspace --lib --bins $(QUICK:%=--test %)

test: build ## Everything: checks, real control plane, real hosts, the demo's story
	@echo "== format" && $(CARGO) fmt --all --check
	@echo "== generated CRDs" && $(CARGO) run --quiet --bin crdgen -- --check
	@echo "== lints" && $(CARGO) clippy $(JOBS) --quiet --workspace --all-targets -- -D warnings
	@echo "== tests" && CARGO="$(CARGO)" scripts/test.sh $(JOBS) --workspace
