//! `make bench-failover`: one table of what was measured beside the bars of failover.

use clap::Parser;
use e2e::bench_failover::{LAB, Options, run};
use lab::runtime::{exit_code, interruptible};

fn main() -> std::process::ExitCode {
    exit_code("bench_failover", &interruptible(LAB, run(Options::parse())))
}
