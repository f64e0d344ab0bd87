//! Networks: judges whether one declares what another has already, publishes the tunnel end points and
//! counts addresses.

use std::net::IpAddr;
use std::sync::Arc;

use api::{Host, NETWORK_COLLIDES, Network, Vtep};
use kube::ResourceExt;
use serde_json::json;

use crate::conditions::condition;
use crate::runtime::Context;
use crate::writer::logged;

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    let hosts = context.stores.hosts.state();
    let vms = context.stores.vms.state();
    let networks = context.stores.networks.state();
    for network in &networks {
        let name = network.name_any();
        let status = network.status.clone().unwrap_or_default();
        let mut wanted = end_points(&hosts, &status.vteps);
        wanted.extend(network.spec.edge.as_ref().map(|edge| Vtep {
            host: "edge".to_owned(),
            address: edge.address.clone(),
        }));
        let used = vms
            .iter()
            .filter_map(|vm| vm.status.as_ref())
            .flat_map(|status| &status.nics)
            .filter(|nic| nic.network == name)
            .count();
        let collides = collision(network, &networks);
        let (reason, message) = match &collides {
            None => ("Published", "tunnel end points are published"),
            Some(sentence) => (NETWORK_COLLIDES, sentence.as_str()),
        };
        let conditions = condition(
            &status.conditions,
            "Ready",
            collides.is_none(),
            reason,
            message,
            network.metadata.generation,
        );
        let patch = json!({"vteps": wanted, "addressesUsed": used, "conditions": conditions});
        let same = status.vteps == wanted
            && usize::try_from(status.addresses_used).ok() == Some(used)
            && json!(status.conditions) == patch["conditions"];
        if !same && context.writer.settled(network.as_ref()) {
            logged(
                "network",
                &name,
                context.writer.swap_status(network.as_ref(), patch).await,
            );
        }
    }
}

/// The tunnel end points of hosts, by name. What a machine reports whose boot was not accepted counts for nothing: a
/// clone of a host's disk would draw the frames for that host's guests to itself. What stands published stands.
fn end_points(hosts: &[Arc<Host>], published: &[Vtep]) -> Vec<Vtep> {
    let end_point = |host: &Arc<Host>| {
        let (name, status) = (host.name_any(), host.status.as_ref()?);
        let reported = status.reported.as_ref()?;
        let accepted = status.accepted.as_ref().map(|accepted| &accepted.boot_id);
        if accepted != Some(&reported.incarnation.boot_id) {
            let known = published.iter().find(|known| known.host == name);
            return known.cloned();
        }
        let address = reported.vtep_address.clone()?;
        Some(Vtep {
            host: name,
            address,
        })
    };
    let mut found: Vec<Vtep> = hosts.iter().filter_map(end_point).collect();
    found.sort();
    found
}

/// What a network declares that an earlier one declares too: field, value, the other's name and the
/// remedy. Two networks of one VNI or VLAN id are one segment and join their zones. What was accepted
/// stays accepted, as none of these fields can change: the later one gives way, even to one that itself
/// collides.
pub fn collision(network: &Network, all: &[Arc<Network>]) -> Option<String> {
    let age = |network: &Network| {
        let created = network.metadata.creation_timestamp.as_ref();
        (created.map(|time| time.0), network.name_any())
    };
    let own = age(network);
    let earlier = all.iter().map(|other| (age(other), other));
    let colliding = earlier
        .filter(|(age, _)| *age < own)
        .filter_map(|(age, other)| Some((age, shared(network, other)?)));
    // The earliest is named, whatever the order of the cache.
    let first = colliding.min_by(|(one, _), (other, _)| one.cmp(other));
    first.map(|(_, sentence)| sentence)
}

/// What two networks may not have in common.
fn shared(network: &Network, other: &Network) -> Option<String> {
    let vni = |network: &Network| network.spec.vxlan.as_ref().map(|vxlan| vxlan.vni);
    let vlan = |network: &Network| network.spec.vlan.as_ref().map(|vlan| vlan.id);
    let (own, name) = (network.name_any(), other.name_any());
    if let Some(vni) = vni(network).filter(|own| vni(other) == Some(*own)) {
        return Some(format!(
            "spec.vxlan.vni: {vni} is the VNI of network {name}; make network {own} anew with a VNI of its own"
        ));
    }
    if let Some(id) = vlan(network).filter(|own| vlan(other) == Some(*own)) {
        return Some(format!(
            "spec.vlan.id: {id} is the VLAN id of network {name}; make network {own} anew with an id of its own"
        ));
    }
    let theirs = |cidr: &str| {
        let mut subnets = other.spec.subnets.iter();
        subnets.find(|subnet| overlap(cidr, &subnet.cidr))
    };
    network.spec.subnets.iter().find_map(|subnet| {
        let taken = theirs(&subnet.cidr)?;
        Some(format!(
            "spec.subnets.cidr: {} overlaps with {} of network {name}; make network {own} anew with a range of its own",
            subnet.cidr, taken.cidr
        ))
    })
}

/// Whether two ranges in CIDR notation have an address in common.
fn overlap(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (range(one), range(other)) else {
        return false;
    };
    one.family == other.family && one.first <= other.last && other.first <= one.last
}

/// The first and the last address of a range.
struct Range {
    /// Bits of an address of its family.
    family: u32,
    first: u128,
    last: u128,
}

fn range(cidr: &str) -> Option<Range> {
    let (base, length) = cidr.split_once('/')?;
    let (family, base) = match base.parse::<IpAddr>().ok()? {
        IpAddr::V4(base) => (32, u128::from(u32::from(base))),
        IpAddr::V6(base) => (128, u128::from(base)),
    };
    let host_bits = u32::checked_sub(family, length.parse().ok()?)?;
    let mask = 1_u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |size| size - 1);
    Some(Range {
        family,
        first: base & !mask,
        last: base | mask,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, created: &str, spec: serde_json::Value) -> Arc<Network> {
        let object = json!({
            "apiVersion": "zhengyun.io/v1alpha1", "kind": "Network",
            "metadata": {"name": name, "creationTimestamp": created}, "spec": spec});
        Arc::new(serde_json::from_value(object).expect("a network"))
    }

    #[test]
    fn only_the_boot_that_was_accepted_says_where_frames_for_a_host_go() {
        let host = |name: &str, accepted: Option<&str>, reports: &str, address: &str| {
            let accepted = accepted.map(|boot| json!({"bootId": boot, "systemUuid": "s"}));
            let object = json!({
                "metadata": {"name": name}, "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
                "status": {"accepted": accepted, "reported": {
                    "incarnation": {"bootId": reports, "systemUuid": "s"}, "domainType": "kvm",
                    "capacity": {"cpu": 16, "memory": "64Gi"}, "architecture": "x86_64",
                    "vtepAddress": address}}});
            Arc::new(serde_json::from_value(object).expect("a host"))
        };
        let vtep = |host: &str, address: &str| Vtep {
            host: host.to_owned(),
            address: address.to_owned(),
        };
        let published = [vtep("edge", "10.1.0.254"), vtep("h1", "10.1.0.1")];
        let hosts = [
            host("h3", None, "b3", "10.1.0.3"),
            host("h2", Some("b2"), "b2", "10.1.0.2"),
            host("h1", Some("b1"), "clone", "10.1.0.9"),
        ];
        let expected = [vtep("h1", "10.1.0.1"), vtep("h2", "10.1.0.2")];
        assert_eq!(end_points(&hosts, &published), expected);
        // It has booted anew and was accepted: it may have another address.
        let moved = [host("h1", Some("b4"), "b4", "10.1.0.4")];
        assert_eq!(end_points(&moved, &published), [vtep("h1", "10.1.0.4")]);
    }

    #[test]
    fn of_two_networks_with_one_vni_the_later_gives_way_and_names_the_other() {
        let spec = |vni: i32, cidr: &str| json!({"zone": "Common", "vxlan": {"vni": vni}, "subnets": [{"cidr": cidr}]});
        let old = network("old", "2026-01-01T00:00:00Z", spec(7, "10.1.0.0/24"));
        let new = network("new", "2026-01-02T00:00:00Z", spec(7, "10.2.0.0/24"));
        let apart = network("apart", "2026-01-03T00:00:00Z", spec(8, "10.3.0.0/24"));
        let all = [new.clone(), apart.clone(), old.clone()];
        assert_eq!(collision(&old, &all), None, "the earlier one stands");
        assert_eq!(collision(&apart, &all), None);
        assert_eq!(
            collision(&new, &all).expect("it collides"),
            "spec.vxlan.vni: 7 is the VNI of network old; make network new anew with a VNI of its own"
        );
        // Of one second: the name decides, and only one of the two gives way.
        let twin = network("twin", "2026-01-01T00:00:00Z", spec(7, "10.4.0.0/24"));
        let both = [twin.clone(), old.clone()];
        assert_eq!(collision(&old, &both), None);
        assert!(collision(&twin, &both).is_some());
    }

    #[test]
    fn vlan_ids_and_subnets_are_unique_too_and_a_vni_is_no_vlan_id() {
        let vlan = |id: i32, cidr: &str| json!({"zone": "Common", "vlan": {"id": id}, "subnets": [{"cidr": cidr}]});
        let vxlan =
            json!({"zone": "Common", "vxlan": {"vni": 5}, "subnets": [{"cidr": "fd00:1::/64"}]});
        let first = network("first", "2026-01-01T00:00:00Z", vlan(5, "10.0.0.0/16"));
        let tunnel = network("tunnel", "2026-01-02T00:00:00Z", vxlan);
        let same = network("same", "2026-01-03T00:00:00Z", vlan(5, "10.9.0.0/24"));
        let inside = network("inside", "2026-01-04T00:00:00Z", vlan(6, "10.0.3.0/24"));
        let all = [first, tunnel.clone(), same.clone(), inside.clone()];
        assert_eq!(collision(&tunnel, &all), None);
        let sentence = collision(&same, &all).expect("one VLAN id");
        assert!(sentence.starts_with("spec.vlan.id: 5 is the VLAN id of network first"));
        let sentence = collision(&inside, &all).expect("a range within a range");
        assert!(sentence.contains("10.0.3.0/24 overlaps with 10.0.0.0/16 of network first"));
    }

    #[test]
    fn ranges_overlap_as_their_addresses_do() {
        assert!(
            overlap("10.0.0.5/24", "10.0.0.200/25"),
            "host bits do not count"
        );
        assert!(!overlap("10.0.0.0/25", "10.0.0.128/25"));
        assert!(overlap("0.0.0.0/0", "192.168.0.0/16"));
        assert!(overlap("::/0", "fd00::/64") && overlap("fd00::1/128", "fd00::/64"));
        assert!(
            !overlap("0.0.0.0/0", "::/0"),
            "two families have nothing in common"
        );
        assert!(
            !overlap("10.0.0.0/33", "10.0.0.0/8"),
            "the API server refuses such a range"
        );
    }
}
