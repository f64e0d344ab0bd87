//! `zhengyun-operator`: the control plane of a site.

use std::time::Duration;

use clap::Parser;
use tokio::runtime::Builder;

/// How long threads may take when the operator ends: one that waits for a name server keeps no other leader waiting.
const THREADS_END_WITHIN: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let program = operator::runtime::run(operator::options::Options::parse());
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(program);
    runtime.shutdown_timeout(THREADS_END_WITHIN);
    ended
}
