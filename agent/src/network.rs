//! Networks of the host: per `Network` a bridge with an uplink into a VXLAN or VLAN.
//!
//! Frames are never learned from the tunnel: every frame for a VM that is not here goes to all
//! peers, and each host delivers by static entries of its own taps. So while a VM moves, both
//! copies' taps receive, the paused one's queue holds what arrives, and no connection is lost
//! at the switch-over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{NETWORK_COLLIDES, Network};
use serde_json::Value;
use thiserror::Error;

use crate::process::{ProgramError, run};

/// Bound of one `ip` or `bridge` command.
const BOUND: Duration = Duration::from_secs(10);
/// Port of VXLAN by its standard (RFC 7348).
const VXLAN_PORT: &str = "4789";
/// Destination of frames whose target is not known.
const FLOOD: &str = "00:00:00:00:00:00";

/// How often a network that is well is made as declared again, should somebody have changed the host by
/// hand: each time starts several programs.
const AGAIN: Duration = Duration::from_secs(30);

/// Why a network does not stand.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// A command failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The host has no tunnel end point.
    #[error("network {0} is a VXLAN and this host has no --vtep-address")]
    NoVtep(String),
    /// The declaration has neither VXLAN nor VLAN.
    #[error("network {0} declares neither vxlan nor vlan")]
    NoIsolation(String),
    /// The operator refuses it, as another network has what it declares.
    #[error("network {0} is not ready: {1}")]
    Refused(String, String),
    /// The operator has not judged it yet.
    #[error("network {0} waits for the operator to judge it")]
    NotJudged(String),
    /// `ip -j` printed something else than JSON.
    #[error("unreadable answer of {0}")]
    Unreadable(&'static str),
}

/// What this host brings to every network.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// Tunnel end point.
    pub vtep: Option<IpAddr>,
    /// NIC for VLANs.
    pub device: String,
}

/// Name of a network's bridge.
pub fn bridge_name(network: &Network) -> String {
    match (&network.spec.vxlan, &network.spec.vlan) {
        (Some(vxlan), _) => format!("zyb{}", vxlan.vni),
        (None, Some(vlan)) => format!("zybv{}", vlan.id),
        (None, None) => "zyb0".to_owned(),
    }
}

/// Whether a network may be built: two of one VNI or VLAN id are one bridge and would join their zones,
/// and the second would cut the peers of the first. So nothing is built before the operator's judgement.
///
/// # Errors
/// That it was refused, and why, or that it has not been judged.
pub fn admitted(network: &Network) -> Result<(), NetworkError> {
    let name = network.metadata.name.clone().unwrap_or_default();
    match network.ready() {
        None => Err(NetworkError::NotJudged(name)),
        Some(ready) if ready.reason == NETWORK_COLLIDES => {
            Err(NetworkError::Refused(name, ready.message.clone()))
        }
        Some(_) => Ok(()),
    }
}

/// Name of the tap of a VM's NIC: the same on every host, unique by the VM's uid.
pub fn tap_name(vm_uid: &str, nic: usize) -> String {
    let digits: String = vm_uid
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(9)
        .collect();
    format!("zyt{digits}{nic:x}")
}

async fn ip(arguments: &[&str]) -> Result<String, NetworkError> {
    Ok(run("ip", arguments, BOUND).await?)
}

/// Whether the host has a network device of that name.
pub fn exists(device: &str) -> bool {
    nix::net::if_::if_nametoindex(device).is_ok()
}

/// Of which version of its declaration a network stands, and since when that is known.
struct Known {
    version: Option<String>,
    at: Instant,
}

impl Known {
    fn holds(&self, version: Option<&String>, now: Instant) -> bool {
        self.version.as_ref() == version && now.duration_since(self.at) < AGAIN
    }
}

/// What is known of one network. VMs that start together want the same ones: one makes it, the others wait.
type Slot = Arc<tokio::sync::Mutex<Option<Known>>>;

/// Networks of this host that stand as declared.
#[derive(Default)]
pub struct Standing(Mutex<BTreeMap<String, Slot>>);

impl Standing {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a network as declared, unless it was lately, from the same version of its object.
    ///
    /// # Errors
    /// That the operator has not admitted it, or which command failed.
    pub async fn ensure(&self, network: &Network, uplink: &Uplink) -> Result<(), NetworkError> {
        admitted(network)?;
        let name = network.metadata.name.clone().unwrap_or_default();
        let version = &network.metadata.resource_version;
        let slot = self.slots().entry(name).or_default().clone();
        let mut known = slot.lock().await;
        let holds = |known: &Known| known.holds(version.as_ref(), Instant::now());
        if known.as_ref().is_some_and(holds) && exists(&bridge_name(network)) {
            return Ok(());
        }
        // What fails half way is made anew.
        *known = None;
        ensure(network, uplink).await?;
        let (version, at) = (version.clone(), Instant::now());
        *known = Some(Known { version, at });
        Ok(())
    }

    /// Forgets networks that are not declared any more.
    pub fn keep_only(&self, declared: &[Arc<Network>]) {
        let is_declared = |name: &String| {
            (declared.iter()).any(|network| network.metadata.name.as_ref() == Some(name))
        };
        self.slots().retain(|name, _| is_declared(name));
    }
}

/// Makes a network's bridge and uplink as declared, and the tunnel's peers as published.
///
/// # Errors
/// Which command failed.
async fn ensure(network: &Network, uplink: &Uplink) -> Result<(), NetworkError> {
    let name = network.metadata.name.clone().unwrap_or_default();
    let (bridge, mtu) = (bridge_name(network), network.spec.mtu.to_string());
    if !exists(&bridge) {
        ip(&["link", "add", &bridge, "type", "bridge"]).await?;
    }
    ip(&["link", "set", &bridge, "mtu", &mtu, "up"]).await?;
    let port = match (&network.spec.vxlan, &network.spec.vlan) {
        (Some(vxlan), _) => {
            let vtep = uplink.vtep.ok_or(NetworkError::NoVtep(name))?;
            let device = format!("zyx{}", vxlan.vni);
            if !exists(&device) {
                ip(&[
                    "link",
                    "add",
                    &device,
                    "mtu",
                    &mtu,
                    "type",
                    "vxlan",
                    "id",
                    &vxlan.vni.to_string(),
                    "local",
                    &vtep.to_string(),
                    "dstport",
                    VXLAN_PORT,
                    "nolearning",
                ])
                .await?;
            }
            peers(network, &device, vtep).await?;
            device
        }
        (None, Some(vlan)) => {
            let device = format!("zyv{}", vlan.id);
            if !exists(&device) {
                ip(&[
                    "link",
                    "add",
                    "link",
                    &uplink.device,
                    "name",
                    &device,
                    "type",
                    "vlan",
                    "id",
                    &vlan.id.to_string(),
                ])
                .await?;
            }
            device
        }
        (None, None) => return Err(NetworkError::NoIsolation(name)),
    };
    ip(&["link", "set", &port, "master", &bridge, "up"]).await?;
    if network.spec.vxlan.is_some() {
        run(
            "bridge",
            &["link", "set", "dev", &port, "learning", "off"],
            BOUND,
        )
        .await?;
    }
    Ok(())
}

/// Sends frames to exactly the published peers.
async fn peers(network: &Network, device: &str, own: IpAddr) -> Result<(), NetworkError> {
    let listing = run("bridge", &["-j", "fdb", "show", "dev", device], BOUND).await?;
    let present = flooded(&listing)?;
    let status = network.status.clone().unwrap_or_default();
    let own = own.to_string();
    let wanted: BTreeSet<String> = status
        .vteps
        .into_iter()
        .map(|vtep| vtep.address)
        .filter(|address| *address != own)
        .collect();
    for peer in wanted.difference(&present) {
        run(
            "bridge",
            &["fdb", "append", FLOOD, "dev", device, "dst", peer],
            BOUND,
        )
        .await?;
    }
    for peer in present.difference(&wanted) {
        run(
            "bridge",
            &["fdb", "delete", FLOOD, "dev", device, "dst", peer],
            BOUND,
        )
        .await?;
    }
    Ok(())
}

/// Peers in `bridge -j fdb show`.
fn flooded(listing: &str) -> Result<BTreeSet<String>, NetworkError> {
    let value: Value = serde_json::from_str(listing)
        .map_err(|_| NetworkError::Unreadable("bridge -j fdb show"))?;
    let entries = value
        .as_array()
        .ok_or(NetworkError::Unreadable("bridge -j fdb show"))?;
    Ok(entries
        .iter()
        .filter(|entry| entry["mac"] == FLOOD)
        .filter_map(|entry| entry["dst"].as_str().map(str::to_owned))
        .collect())
}

/// Delivers frames for a VM's NIC to its tap and to no other, and nothing else to that tap.
///
/// # Errors
/// Which command failed.
pub async fn attach(tap: &str, mac_address: &str) -> Result<(), NetworkError> {
    isolate(tap).await?;
    deliver(tap, mac_address).await
}

/// Keeps every frame from a tap: a copy that is only arriving must not queue minutes of frames
/// that the source has answered long ago.
///
/// # Errors
/// Which command failed.
pub async fn isolate(tap: &str) -> Result<(), NetworkError> {
    run(
        "bridge",
        &["link", "set", "dev", tap, "learning", "off", "flood", "off"],
        BOUND,
    )
    .await?;
    Ok(())
}

/// Lets frames for a hardware address pass to a tap.
///
/// # Errors
/// Which command failed.
pub async fn deliver(tap: &str, mac_address: &str) -> Result<(), NetworkError> {
    run(
        "bridge",
        &[
            "fdb",
            "replace",
            mac_address,
            "dev",
            tap,
            "master",
            "static",
        ],
        BOUND,
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_names_fit_the_kernel_and_tell_vms_and_nics_apart() {
        let (one, two) = (
            "0a1b2c3d-4e5f-6789-abcd-ef0123456789",
            "0a1b2c3d-5e5f-6789-abcd-ef0123456789",
        );
        assert!(tap_name(one, 7).len() < 16);
        assert_ne!(tap_name(one, 0), tap_name(two, 0));
        assert_ne!(tap_name(one, 0), tap_name(one, 1));
    }

    #[test]
    fn peers_are_the_flood_entries_only() {
        let listing = r#"[{"mac":"00:00:00:00:00:00","dst":"10.0.0.2"},{"mac":"52:54:00:00:00:01","dst":"10.0.0.3"}]"#;
        assert_eq!(
            flooded(listing).expect("peers"),
            BTreeSet::from(["10.0.0.2".to_owned()])
        );
        flooded("nonsense").expect_err("not JSON");
    }

    #[test]
    fn a_network_is_built_only_when_the_operator_has_judged_it_and_refused_nothing() {
        let with = |status: Value| -> Network {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "zhengyun.io/v1alpha1", "kind": "Network", "metadata": {"name": "twin"},
                "spec": {"zone": "Common", "vxlan": {"vni": 7}, "subnets": [{"cidr": "10.0.0.0/24"}]},
                "status": status}))
            .expect("a network")
        };
        let ready = |status: &str, reason: &str| {
            serde_json::json!({"conditions": [{"type": "Ready", "status": status, "reason": reason,
                "message": "spec.vxlan.vni: 7 is the VNI of network common",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
        };
        let error = admitted(&with(Value::Null)).expect_err("not judged");
        assert!(matches!(error, NetworkError::NotJudged(name) if name == "twin"));
        let error = admitted(&with(ready("False", NETWORK_COLLIDES))).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "network twin is not ready: spec.vxlan.vni: 7 is the VNI of network common"
        );
        admitted(&with(ready("True", "Published"))).expect("admitted");
    }

    #[test]
    fn a_network_is_made_again_when_its_declaration_changed_or_it_was_long_ago() {
        let (version, other) = ("7".to_owned(), "8".to_owned());
        let at = Instant::now();
        let known = Known {
            version: Some(version.clone()),
            at,
        };
        assert!(known.holds(Some(&version), at + AGAIN / 2));
        assert!(!known.holds(Some(&other), at + AGAIN / 2));
        assert!(!known.holds(Some(&version), at + AGAIN));
    }
}
