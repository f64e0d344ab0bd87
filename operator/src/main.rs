//! `zhengyun-operator`: the control plane of a site.

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    operator::runtime::run(operator::options::Options::parse()).await
}
