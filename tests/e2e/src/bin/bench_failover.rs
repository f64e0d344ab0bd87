//! `make bench-failover`: one table of what was measured beside the bars of failover.

use clap::Parser;
use e2e::bench_failover::{Options, run};

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench_failover: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(options)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_failover: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
