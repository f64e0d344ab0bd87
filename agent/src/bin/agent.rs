//! `zhengyun-agent`: one per host.

use agent::options::AgentOptions;
use clap::Parser;
use tokio::runtime::Builder;

fn main() -> anyhow::Result<()> {
    agent::options::start_logging();
    let program = agent::agent::run(AgentOptions::parse());
    agent::ending::run(Builder::new_multi_thread().enable_all().build(), program)?
}
