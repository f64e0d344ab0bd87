//! Command lines of the agent and the guard.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, ValueEnum};
use model::Bytes;
use thiserror::Error;

/// Runs the VMs that are assigned to this host.
#[derive(Clone, Debug, Parser)]
#[command(version, name = "zhengyun-agent")]
pub struct AgentOptions {
    /// Name of this host's `Host` object.
    #[arg(long)]
    pub host: String,
    /// Kubeconfig with this host's certificate.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Folder for what means something for this boot only: ledger, loop file.
    #[arg(long, default_value = "/run/zhengyun")]
    pub run_dir: PathBuf,
    /// Address of this host on the management network.
    #[arg(long)]
    pub management_address: IpAddr,
    /// Address of this host's tunnel end point on the business network.
    #[arg(long)]
    pub vtep_address: Option<IpAddr>,
    /// NIC of the business network, for VLANs.
    #[arg(long, default_value = "eth1")]
    pub business_device: String,
    /// Address and port on which other agents and Prometheus reach this agent.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Certificates for it.
    #[command(flatten)]
    pub tls: TlsOptions,
    /// Where hardware is read.
    #[command(flatten)]
    pub hardware: HardwareOptions,
    /// What VMs may use, such as `cpu=64,memory=240Gi`. Default: what libvirt says.
    #[arg(long)]
    pub capacity: Option<Capacity>,
    /// Connection URI of libvirt.
    #[arg(long, default_value = "qemu:///system")]
    pub libvirt_uri: String,
    /// Kind of hypervisor; `memory` runs nothing and is for tests of scale.
    #[arg(long, value_enum, default_value_t = HypervisorKind::Libvirt)]
    pub hypervisor: HypervisorKind,
    /// `auto` takes KVM where the host has it; `qemu` is software emulation, for labs.
    #[arg(long, value_enum, default_value_t = DomainType::Auto)]
    pub domain_type: DomainType,
}

/// Certificates for mutual TLS between agents.
#[derive(Clone, Debug, Args)]
pub struct TlsOptions {
    /// Certificate, PEM.
    #[arg(long)]
    pub tls_cert: PathBuf,
    /// Key, PEM.
    #[arg(long)]
    pub tls_key: PathBuf,
    /// Authority of all agents, PEM.
    #[arg(long)]
    pub tls_ca: PathBuf,
}

/// Where hardware is read; a test host has its own roots.
#[derive(Clone, Debug, Args)]
pub struct HardwareOptions {
    /// Root of sysfs.
    #[arg(long, default_value = "/sys")]
    pub sysfs_root: PathBuf,
    /// Root of procfs.
    #[arg(long, default_value = "/proc")]
    pub procfs_root: PathBuf,
    /// The kernel's log.
    #[arg(long, default_value = "/dev/kmsg")]
    pub kernel_log: PathBuf,
    /// The smartctl program.
    #[arg(long, default_value = "smartctl")]
    pub smartctl: PathBuf,
    /// Redfish address of the host's own BMC, for power supplies, fans and temperatures.
    #[arg(long, requires = "bmc_credentials_file")]
    pub bmc_url: Option<String>,
    /// The ipmitool program: lists the BMC's sensors in band where no --bmc-url is given.
    #[arg(long, default_value = "ipmitool")]
    pub ipmitool: PathBuf,
    /// The kernel's IPMI device; where it is not there, nobody is asked over IPMI.
    #[arg(long, default_value = "/dev/ipmi0")]
    pub ipmi_device: PathBuf,
    /// User name on the BMC.
    #[arg(long, default_value = "fence")]
    pub bmc_user: String,
    /// File with the BMC's password.
    #[arg(long)]
    pub bmc_credentials_file: Option<PathBuf>,
    /// Authority of the BMC's certificate, PEM. Without it the certificate is not verified.
    #[arg(long)]
    pub bmc_ca: Option<PathBuf>,
}

/// Kind of hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HypervisorKind {
    /// libvirt.
    Libvirt,
    /// Nothing runs.
    Memory,
}

/// Type of the domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DomainType {
    /// KVM where the host's capabilities have it, else emulation.
    Auto,
    /// Software emulation.
    Qemu,
    /// KVM.
    Kvm,
}

/// Renews the host's Lease, beats on shared storage, and empties the host when both are lost.
#[derive(Clone, Debug, Parser)]
#[command(version, name = "zhengyun-guard")]
pub struct GuardOptions {
    /// Name of this host's `Host` object.
    #[arg(long)]
    pub host: String,
    /// Kubeconfig with this host's certificate.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Folder that it shares with the agent.
    #[arg(long, default_value = "/run/zhengyun")]
    pub run_dir: PathBuf,
    /// The hardware watchdog, opened only where the host has `spec.selfFencing`.
    #[arg(long, default_value = "/dev/watchdog")]
    pub watchdog: PathBuf,
    /// A file that stands in for the watchdog and that whoever plays the hardware watches, for labs.
    #[arg(long)]
    pub simulated_watchdog: Option<PathBuf>,
    /// Cgroups that hold QEMU processes; killed whole when the guard fires.
    #[arg(long = "guest-cgroup", default_value = "/sys/fs/cgroup/machine.slice")]
    pub guest_cgroups: Vec<PathBuf>,
}

/// What VMs may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Logical processors.
    pub cpu: i32,
    /// Memory.
    pub memory: Bytes,
}

/// Why a capacity is none.
#[derive(Debug, Error)]
#[error("{0:?} is no capacity; write cpu=64,memory=240Gi")]
pub struct CapacityError(String);

impl FromStr for Capacity {
    type Err = CapacityError;

    fn from_str(text: &str) -> Result<Self, CapacityError> {
        let error = || CapacityError(text.to_owned());
        let (mut cpu, mut memory) = (None, None);
        for part in text.trim().split(',') {
            match part.split_once('=').ok_or_else(error)? {
                ("cpu", value) => cpu = value.parse().ok().filter(|cpu| *cpu > 0),
                ("memory", value) => memory = Bytes::parse(value).ok(),
                _ => return Err(error()),
            }
        }
        Ok(Self {
            cpu: cpu.ok_or_else(error)?,
            memory: memory.ok_or_else(error)?,
        })
    }
}

/// Logs to standard error; `RUST_LOG` sets the level.
pub fn start_logging() {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_is_read_or_refused_with_the_form() {
        let capacity: Capacity = "cpu=8,memory=1Gi".parse().expect("a capacity");
        assert_eq!((capacity.cpu, capacity.memory), (8, Bytes(1 << 30)));
        for text in [
            "",
            "cpu=8",
            "cpu=0,memory=1Gi",
            "cpu=8,memory=much",
            "disk=3",
        ] {
            let error = text.parse::<Capacity>().expect_err(text).to_string();
            assert!(error.contains("write cpu=64,memory=240Gi"), "{error}");
        }
    }
}
