//! `make bench`: measures on a real lab what the README claims. Reports; asserts nothing about time.

use clap::Parser;
use e2e::bench::{LAB, Options, run};
use lab::runtime::{exit_code, interruptible};

fn main() -> std::process::ExitCode {
    exit_code("bench", &interruptible(LAB, run(Options::parse())))
}
