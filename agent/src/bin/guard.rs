//! `zhengyun-guard`: renews the host's Lease; lives on when the agent does not.

use agent::options::GuardOptions;
use clap::Parser;
use tokio::runtime::Builder;

fn main() -> anyhow::Result<()> {
    agent::options::start_logging();
    let program = agent::guard::run(GuardOptions::parse());
    agent::ending::run(Builder::new_current_thread().enable_all().build(), program)?
}
