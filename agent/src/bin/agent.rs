//! `zhengyun-agent`: one per host.

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    agent::options::start_logging();
    agent::agent::run(agent::options::AgentOptions::parse()).await
}
