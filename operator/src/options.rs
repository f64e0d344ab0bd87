//! Command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// The control plane of a Zhengyun site.
#[derive(Clone, Debug, Parser)]
#[command(version, name = "zhengyun-operator")]
pub struct Options {
    /// Kubeconfig. Default: the service account of the pod, or the user's.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, default_value = "127.0.0.1:9100")]
    pub metrics_address: SocketAddr,
    /// Name of this replica in the leader's Lease. Default: host name and process id.
    #[arg(long)]
    pub identity: Option<String>,
    /// Write logs as JSON.
    #[arg(long)]
    pub log_json: bool,
}
