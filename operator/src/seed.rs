//! What a guest is told at its first boot: cloud-init's meta-data, user-data and network-config,
//! and the Secret that carries them to the one host that runs it.

use std::collections::BTreeMap;

use api::names::{host_namespace, seed_secret_name};
use api::{Network, Nic, VirtualMachine};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde_json::json;

/// The Secret for a VM on a host. `user_data` is the department's own.
pub fn secret(
    vm: &VirtualMachine,
    nics: &[Nic],
    networks: &[Network],
    user_data: Vec<u8>,
    host: &str,
) -> Secret {
    let uid = vm.metadata.uid.clone().unwrap_or_default();
    let data = BTreeMap::from([
        (
            "meta-data".to_owned(),
            ByteString(meta_data(vm, &uid).into_bytes()),
        ),
        ("user-data".to_owned(), ByteString(user_data)),
        (
            "network-config".to_owned(),
            ByteString(network_config(nics, networks).into_bytes()),
        ),
    ]);
    Secret {
        metadata: ObjectMeta {
            name: Some(seed_secret_name(&uid)),
            namespace: Some(host_namespace(host)),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..Secret::default()
    }
}

fn meta_data(vm: &VirtualMachine, uid: &str) -> String {
    format!("instance-id: {uid}\nlocal-hostname: {}\n", vm.name_any())
}

/// Version 2 of the network configuration, as netplan reads it.
fn network_config(nics: &[Nic], networks: &[Network]) -> String {
    let mut text = String::from("version: 2\nethernets:\n");
    for (index, nic) in nics.iter().enumerate() {
        text.push_str(&format!(
            "  nic{index}:\n    match: {{macaddress: {}}}\n    set-name: eth{index}\n",
            json!(nic.mac_address)
        ));
        text.push_str(&format!("    addresses: {}\n", json!(nic.addresses)));
        let network = networks
            .iter()
            .find(|network| network.name_any() == nic.network);
        if let Some(network) = network {
            text.push_str(&format!("    mtu: {}\n", network.spec.mtu));
        }
        // One default route: the first NIC's.
        let gateways = network
            .into_iter()
            .filter(|_| index == 0)
            .flat_map(|network| &network.spec.subnets)
            .filter_map(|subnet| subnet.gateway.clone());
        let routes: Vec<String> = gateways
            .map(|gateway| {
                format!(
                    "{{to: {}, via: {}}}",
                    json!(if gateway.contains(':') {
                        "::/0"
                    } else {
                        "0.0.0.0/0"
                    }),
                    json!(gateway)
                )
            })
            .collect();
        if !routes.is_empty() {
            text.push_str(&format!("    routes: [{}]\n", routes.join(", ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_told_with_both_families_and_one_default_route() {
        let network: Network = serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"zone": "Common", "vxlan": {"vni": 1},
            "subnets": [{"cidr": "10.0.0.0/24", "gateway": "10.0.0.1"}, {"cidr": "fd00::/64", "gateway": "fd00::1"}]}})).expect("a network");
        let nic = Nic {
            network: "n".to_owned(),
            mac_address: "52:54:00:00:00:01".to_owned(),
            addresses: vec!["10.0.0.10/24".to_owned(), "fd00::a/64".to_owned()],
        };
        let text = network_config(&[nic.clone(), nic], &[network]);
        assert_eq!(text.matches("0.0.0.0/0").count(), 1, "{text}");
        assert!(
            text.contains(r#"addresses: ["10.0.0.10/24","fd00::a/64"]"#),
            "{text}"
        );
    }
}
