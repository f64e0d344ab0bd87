//! `zhengyun-guard`: renews the host's Lease; lives on when the agent does not.

use clap::Parser;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    agent::options::start_logging();
    agent::guard::run(agent::options::GuardOptions::parse()).await
}
