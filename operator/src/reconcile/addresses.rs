//! MAC and IP addresses of NICs: given once, kept as long as the VM lives, never given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{Network, Nic, Subnet, VirtualMachine};
use kube::ResourceExt;

use super::networks;
use crate::runtime::Context;
use crate::writer::Writer;

/// Addresses tried in one subnet.
const TRIED_MAX: u32 = 65_536;

/// NICs of a VM: those that it has, or new ones.
///
/// # Errors
/// Which network is missing or full, or that addresses in use can not be read.
pub async fn of(context: &Context, vm: &VirtualMachine) -> Result<Vec<Nic>, String> {
    if let Some(standing) = standing(vm) {
        return Ok(standing.to_vec());
    }
    if vm.spec.networks.is_empty() {
        return Ok(Vec::new());
    }
    context.addresses.hear(&context.writer).await?;
    let networks = context.stores.networks.state();
    let vms = context.stores.vms.state();
    // A lock in memory, as two VMs are given addresses within one turn.
    let mut given = context.addresses.lock();
    given.forget_gone(&vms);
    let uid = vm.metadata.uid.clone().unwrap_or_default();
    let mut taken = given.of_others(&uid);
    let others = vms
        .iter()
        .filter(|other| other.metadata.uid != vm.metadata.uid);
    taken.extend(others.flat_map(|other| nics_of(other)).flat_map(bare));
    taken.extend(reserved(&networks));
    if let Some(nics) = given.to(&uid, &taken) {
        return Ok(nics);
    }
    let nics = choose(vm, &uid, &networks, taken)?;
    given.vms.insert(uid, (nics.clone(), Instant::now()));
    Ok(nics)
}

/// NICs that a VM keeps.
fn standing(vm: &VirtualMachine) -> Option<&[Nic]> {
    let nics = nics_of(vm);
    (nics.len() == vm.spec.networks.len() && !nics.is_empty()).then_some(nics)
}

fn nics_of(vm: &VirtualMachine) -> &[Nic] {
    vm.status.as_ref().map_or(&[], |status| &status.nics)
}

/// Addresses of a NIC without the lengths of their prefixes.
fn bare(nic: &Nic) -> impl Iterator<Item = String> {
    nic.addresses.iter().map(|address| without_length(address))
}

fn without_length(address: &str) -> String {
    address.split('/').next().unwrap_or_default().to_owned()
}

/// Addresses that were given and that the cache may not show yet.
#[derive(Default)]
pub struct Addresses {
    given: Mutex<Given>,
    /// Held while it is read what former leaders gave; when that failed last, and why.
    hearing: tokio::sync::Mutex<Option<(Instant, String)>>,
}

#[derive(Default)]
struct Given {
    /// Whether what former leaders gave was read.
    heard: bool,
    /// By VM uid, and since when.
    vms: BTreeMap<String, (Vec<Nic>, Instant)>,
}

/// Between two tries to read which addresses are in use.
const AGAIN: Duration = Duration::from_secs(5);
/// So long a VM may stand that the cache does not show: watches begin anew within it.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);

impl Addresses {
    fn lock(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another operator leads, and gives addresses.
    pub fn forget(&self) {
        *self.lock() = Given::default();
    }

    /// Before an operator gives its first address it reads which are in use: the cache may be older than what the leader
    /// before it gave.
    async fn hear(&self, writer: &Writer) -> Result<(), String> {
        let mut failed = self.hearing.lock().await;
        if self.lock().heard {
            return Ok(());
        }
        // Nobody waits behind the tries of all that came before.
        if let Some((_, why)) = failed.as_ref().filter(|(at, _)| at.elapsed() < AGAIN) {
            return Err(why.clone());
        }
        let vms = match writer.list::<VirtualMachine>().await {
            Ok(vms) => vms,
            Err(error) => {
                let why = format!("addresses in use can not be read: {error}");
                *failed = Some((Instant::now(), why.clone()));
                return Err(why);
            }
        };
        let mut given = self.lock();
        for vm in &vms {
            if let (Some(uid), Some(nics)) = (&vm.metadata.uid, standing(vm)) {
                let known = (nics.to_vec(), Instant::now());
                given.vms.entry(uid.clone()).or_insert(known);
            }
        }
        given.heard = true;
        Ok(())
    }
}

impl Given {
    fn forget_gone(&mut self, vms: &[Arc<VirtualMachine>]) {
        let known: BTreeSet<&String> = vms
            .iter()
            .filter_map(|vm| vm.metadata.uid.as_ref())
            .collect();
        self.vms
            .retain(|uid, (_, at)| known.contains(uid) || at.elapsed() < SHOWN_WITHIN);
    }

    fn of_others(&self, uid: &str) -> BTreeSet<String> {
        let others = self.vms.iter().filter(|(other, _)| *other != uid);
        others
            .flat_map(|(_, (nics, _))| nics)
            .flat_map(bare)
            .collect()
    }

    /// What a VM was given before, unless another one has it by now.
    fn to(&self, uid: &str, taken: &BTreeSet<String>) -> Option<Vec<Nic>> {
        let (nics, _) = self.vms.get(uid)?;
        let free = !nics
            .iter()
            .flat_map(bare)
            .any(|address| taken.contains(&address));
        free.then(|| nics.clone())
    }
}

/// New NICs of a VM, with addresses that are not taken.
fn choose(
    vm: &VirtualMachine,
    uid: &str,
    networks: &[Arc<Network>],
    mut taken: BTreeSet<String>,
) -> Result<Vec<Nic>, String> {
    let mut nics = Vec::new();
    for (index, name) in vm.spec.networks.iter().enumerate() {
        let network = networks
            .iter()
            .find(|network| network.name_any() == *name)
            .ok_or_else(|| format!("spec.networks: Network {name} does not exist"))?;
        if let Some(why) = networks::collision(network, networks) {
            return Err(format!("Network {name} is not ready: {why}"));
        }
        let mut addresses = Vec::new();
        for subnet in &network.spec.subnets {
            let address = allocate(subnet, &taken).ok_or_else(|| {
                format!(
                    "Network {name}: subnet {} is full; add another network",
                    subnet.cidr
                )
            })?;
            taken.insert(without_length(&address));
            addresses.push(address);
        }
        addresses.sort_by_key(|address| address.contains(':'));
        nics.push(Nic {
            network: name.clone(),
            mac_address: mac_address(uid, index),
            addresses,
        });
    }
    Ok(nics)
}

fn reserved(networks: &[Arc<Network>]) -> Vec<String> {
    networks
        .iter()
        .flat_map(|network| &network.spec.subnets)
        .filter_map(|subnet| subnet.gateway.clone())
        .collect()
}

/// A locally administered hardware address from the VM's uid, the same for ever.
fn mac_address(uid: &str, index: usize) -> String {
    // FNV-1a: spreads uids over 40 bits; the index keeps one VM's NICs apart.
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let bytes = hash
        .wrapping_add(u64::try_from(index).unwrap_or(0))
        .to_be_bytes();
    format!(
        "52:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]
    )
}

/// The first free address of a subnet with its prefix length.
fn allocate(subnet: &Subnet, taken: &BTreeSet<String>) -> Option<String> {
    let (base, length) = subnet.cidr.split_once('/')?;
    let (base, length): (IpAddr, u32) = (base.parse().ok()?, length.parse().ok()?);
    let bits = if base.is_ipv4() { 32 } else { 128 };
    let size = 1_u128.checked_shl(bits - length).unwrap_or(u128::MAX);
    let first = u128::try_from(subnet.first_host_number).ok()?;
    (first..)
        .take(usize::try_from(TRIED_MAX).ok()?)
        // The last one is IPv4's broadcast address.
        .take_while(|number| number + 1 < size)
        .map(|number| match base {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(
                u32::from(base).wrapping_add(u32::try_from(number).unwrap_or(u32::MAX)),
            )),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(number))),
        })
        .find(|address| !taken.contains(&address.to_string()))
        .map(|address| format!("{address}/{length}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::CloudPolicySpec;
    use serde_json::{Value, json};

    use crate::context_in_memory::{Site, typed};

    fn subnet(cidr: &str, first: i32) -> Subnet {
        Subnet {
            cidr: cidr.to_owned(),
            gateway: None,
            first_host_number: first,
        }
    }

    #[test]
    fn addresses_are_given_once_and_a_full_subnet_says_so() {
        let mut taken = BTreeSet::new();
        let tiny = subnet("10.0.0.0/29", 4);
        for wanted in ["10.0.0.4/29", "10.0.0.5/29", "10.0.0.6/29"] {
            let address = allocate(&tiny, &taken).expect("free");
            assert_eq!(address, wanted);
            taken.insert(address.split('/').next().expect("an address").to_owned());
        }
        assert_eq!(
            allocate(&tiny, &taken),
            None,
            "the broadcast address is never given"
        );
        assert_eq!(
            allocate(&subnet("fd00::/64", 10), &taken).as_deref(),
            Some("fd00::a/64")
        );
    }

    fn network() -> Arc<Network> {
        typed(json!({
            "metadata": {"name": "common"},
            "spec": {"zone": "Common", "vlan": {"id": 7},
                "subnets": [{"cidr": "10.0.0.0/29", "firstHostNumber": 4}]}
        }))
    }

    fn machine(name: &str, address: Option<&str>) -> Arc<VirtualMachine> {
        let nic =
            |address| json!({"network": "common", "macAddress": "52:0", "addresses": [address]});
        let nics: Vec<Value> = address.map(nic).into_iter().collect();
        typed(json!({
            "metadata": {"name": name, "namespace": "oa", "uid": name, "resourceVersion": "1"},
            "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": ["common"]},
            "status": {"nics": nics}
        }))
    }

    /// A site whose cache shows these VMs and whose API server holds those.
    async fn site(cached: &[Arc<VirtualMachine>], held: &[Arc<VirtualMachine>]) -> Site {
        let objects = fleet::Objects {
            vms: cached.to_vec(),
            networks: vec![network()],
            ..fleet::Objects::default()
        };
        let site = Site::of(CloudPolicySpec::default(), objects, vec![]).await;
        let items: Vec<Value> = held.iter().map(|vm| json!(**vm)).collect();
        let list = json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "VirtualMachineList",
            "metadata": {"resourceVersion": "9"}, "items": items});
        site.holds("virtualmachines", "", list);
        site
    }

    async fn given(site: &Site, vm: &VirtualMachine) -> String {
        let nics = of(&site.context, vm).await.expect("an address");
        nics[0].addresses[0].clone()
    }

    #[tokio::test]
    async fn what_a_leader_before_gave_is_not_given_again_though_the_cache_does_not_show_it() {
        let (web, other) = (machine("web", None), machine("other", None));
        let shown = machine("other", Some("10.0.0.4/29"));
        let site = site(&[web.clone(), other], &[web.clone(), shown]).await;
        assert_eq!(given(&site, &web).await, "10.0.0.5/29");
    }

    /// It was given to one that could not start, and another leader gave it to another.
    #[tokio::test]
    async fn what_was_given_and_not_written_is_given_up_once_another_has_it() {
        let web = machine("web", None);
        let all = std::slice::from_ref(&web);
        let site = site(all, all).await;
        assert_eq!(given(&site, &web).await, "10.0.0.4/29");
        let other = machine("other", None);
        assert_eq!(given(&site, &other).await, "10.0.0.5/29");
        let stolen = nics_of(&machine("third", Some("10.0.0.4/29"))).to_vec();
        let third = ("third".to_owned(), (stolen, Instant::now()));
        site.context.addresses.lock().vms.extend([third]);
        assert_eq!(given(&site, &web).await, "10.0.0.6/29");
        site.context.addresses.forget();
        assert_eq!(given(&site, &web).await, "10.0.0.4/29");
    }

    #[test]
    fn hardware_addresses_are_local_and_differ() {
        assert_ne!(mac_address("a", 0), mac_address("a", 1));
        assert_ne!(mac_address("a", 0), mac_address("b", 0));
        assert!(mac_address("a", 0).starts_with("52:"));
    }
}
