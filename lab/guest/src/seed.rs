//! What a NoCloud seed says: name, role, tier, sites and the addresses of each NIC. Parsing only.
//!
//! Three files, as cloud-init defines them: `meta-data` (`instance-id`, `local-hostname`), `user-data`
//! (`#cloud-config` with a mapping `zhengyun`), `network-config` (version 2).

use std::fmt;
use std::net::IpAddr;

use crate::yaml::{self, Value, YamlError};

/// Sites that one guest answers for, at most.
pub const SITES_MAXIMUM: usize = 256;

/// Who this guest is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name of the VM: `zhengyun.name`, else `local-hostname`, else `guest`.
    pub name: String,
    /// What it does, such as `database` or `website`.
    pub role: String,
    /// Tier of its business system.
    pub tier: String,
    /// Host headers that it answers for, lower case; empty: any.
    pub sites: Vec<String>,
}

/// One NIC's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Hardware address, lower case.
    pub mac_address: String,
    /// Addresses with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routes: destination (`None` is the default route) and gateway.
    pub routes: Vec<(Option<(IpAddr, u8)>, IpAddr)>,
    /// Largest packet, bytes.
    pub mtu: Option<u16>,
}

/// Why a seed can not be used.
#[derive(Debug, PartialEq, Eq)]
pub enum SeedError {
    /// A file is no YAML that we read.
    Yaml {
        /// Which file.
        file: &'static str,
        /// Where and why.
        error: YamlError,
    },
    /// A field holds what it must not.
    Field {
        /// Path of the field within its file.
        field: String,
        /// What is wrong and what to write.
        message: String,
    },
}

impl fmt::Display for SeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SeedError::Yaml { file, error } => write!(f, "{file}: {error}"),
            SeedError::Field { field, message } => write!(f, "{field}: {message}"),
        }
    }
}

impl std::error::Error for SeedError {}

fn field(field: impl Into<String>, message: impl Into<String>) -> SeedError {
    SeedError::Field {
        field: field.into(),
        message: message.into(),
    }
}

fn document(file: &'static str, text: &str) -> Result<Value, SeedError> {
    yaml::parse(text).map_err(|error| SeedError::Yaml { file, error })
}

/// Reads `meta-data` and `user-data`.
pub fn identity(meta_data: &str, user_data: &str) -> Result<Identity, SeedError> {
    let meta = document("meta-data", meta_data)?;
    let user = document("user-data", user_data)?;
    let ours = user.get("zhengyun").unwrap_or(&Value::Null);
    let text = |key: &str| {
        ours.get(key)
            .and_then(Value::text)
            .unwrap_or_default()
            .to_owned()
    };
    let mut name = text("name");
    if name.is_empty() {
        name = meta
            .get("local-hostname")
            .and_then(Value::text)
            .unwrap_or("guest")
            .to_owned();
    }
    let sites = ours.get("sites").map(Value::items).unwrap_or_default();
    if sites.len() > SITES_MAXIMUM {
        return Err(field(
            "zhengyun.sites",
            format!(
                "{} sites; a guest answers for at most {SITES_MAXIMUM}",
                sites.len()
            ),
        ));
    }
    let sites = sites
        .iter()
        .map(|site| {
            site.text().map(str::to_ascii_lowercase).ok_or_else(|| {
                field(
                    "zhengyun.sites",
                    "each site is one host name, such as www.example.gov.cn",
                )
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Identity {
        name,
        role: text("role"),
        tier: text("tier"),
        sites,
    })
}

/// Reads `network-config`, with or without the outer `network:`.
pub fn network(network_config: &str) -> Result<Vec<Nic>, SeedError> {
    let document = document("network-config", network_config)?;
    let root = document.get("network").unwrap_or(&document);
    match root.get("version").and_then(Value::text) {
        Some("2") => {}
        other => {
            return Err(field(
                "network.version",
                format!("{:?} is not known; write 2", other.unwrap_or("")),
            ));
        }
    }
    let ethernets = root
        .get("ethernets")
        .map(Value::entries)
        .unwrap_or_default();
    ethernets
        .iter()
        .map(|(name, value)| nic(name, value))
        .collect()
}

fn nic(name: &str, value: &Value) -> Result<Nic, SeedError> {
    let at = |key: &str| format!("network.ethernets.{name}.{key}");
    let mac_address = value
        .get("match")
        .and_then(|matched| matched.get("macaddress"))
        .and_then(Value::text)
        .ok_or_else(|| {
            field(
                at("match.macaddress"),
                "is missing; NICs are found by their hardware address",
            )
        })?
        .to_ascii_lowercase();
    let addresses = value.get("addresses").map(Value::items).unwrap_or_default();
    let addresses = addresses
        .iter()
        .map(|address| {
            prefix(address.text().unwrap_or_default())
                .ok_or_else(|| field(at("addresses"), "write each as ADDRESS/LENGTH"))
        })
        .collect::<Result<_, _>>()?;
    let mut routes = Vec::new();
    for route in value.get("routes").map(Value::items).unwrap_or_default() {
        let to = route.get("to").and_then(Value::text).unwrap_or_default();
        let destination = match to {
            "default" | "0.0.0.0/0" | "::/0" => None,
            other => Some(
                prefix(other)
                    .ok_or_else(|| field(at("routes.to"), "write 'default' or ADDRESS/LENGTH"))?,
            ),
        };
        routes.push((destination, gateway(route.get("via"), &at("routes.via"))?));
    }
    for key in ["gateway4", "gateway6"] {
        if let Some(value) = value.get(key) {
            routes.push((None, gateway(Some(value), &at(key))?));
        }
    }
    let mtu = match value.get("mtu").and_then(Value::text) {
        None => None,
        Some(text) => match text.parse() {
            Ok(mtu) if (576..=9000).contains(&mtu) => Some(mtu),
            _ => {
                return Err(field(
                    at("mtu"),
                    format!("{text:?}: write a number from 576 to 9000"),
                ));
            }
        },
    };
    Ok(Nic {
        mac_address,
        addresses,
        routes,
        mtu,
    })
}

fn gateway(value: Option<&Value>, at: &str) -> Result<IpAddr, SeedError> {
    let text = value.and_then(Value::text).unwrap_or_default();
    text.parse()
        .map_err(|_| field(at, format!("{text:?} is no address")))
}

/// Reads `ADDRESS/LENGTH`.
fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_role_comes_from_user_data_and_the_name_from_meta_data() {
        let read = identity(
            "instance-id: i-1\nlocal-hostname: web-0\n",
            "#cloud-config\nzhengyun:\n  role: website\n  tier: web\n  sites: [WWW.a.example, b.example]\n",
        );
        let expected = Identity {
            name: "web-0".into(),
            role: "website".into(),
            tier: "web".into(),
            sites: vec!["www.a.example".into(), "b.example".into()],
        };
        assert_eq!(read, Ok(expected));
        assert_eq!(identity("", "").unwrap().name, "guest");
        assert_eq!(
            identity("local-hostname: x", "zhengyun: {name: y}")
                .unwrap()
                .name,
            "y"
        );
    }

    #[test]
    fn both_families_routes_and_old_gateways_are_read() {
        let nics = network(
            "version: 2\nethernets:\n  nic0:\n    match: {macaddress: '52:54:00:AA:00:01'}\n    addresses: [10.0.0.5/24, 'fd00::5/64']\n    gateway4: 10.0.0.1\n    routes: [{to: '::/0', via: 'fd00::1'}, {to: 10.9.0.0/16, via: 10.0.0.2}]\n    mtu: 1450\n    nameservers: {addresses: [10.0.0.53]}\n",
        )
        .unwrap();
        assert_eq!(nics.len(), 1);
        let nic = &nics[0];
        assert_eq!(nic.mac_address, "52:54:00:aa:00:01");
        assert_eq!(
            nic.addresses,
            [
                ("10.0.0.5".parse().unwrap(), 24),
                ("fd00::5".parse().unwrap(), 64)
            ]
        );
        assert_eq!(nic.routes.len(), 3);
        assert_eq!(nic.routes[1].0, Some(("10.9.0.0".parse().unwrap(), 16)));
        assert_eq!(nic.routes[2], (None, "10.0.0.1".parse().unwrap()));
        assert_eq!(nic.mtu, Some(1450));
    }

    #[test]
    fn mistakes_name_the_field() {
        for (text, name) in [
            ("version: 1\n", "network.version"),
            (
                "version: 2\nethernets: {n: {addresses: [10.0.0.1/24]}}\n",
                "match.macaddress",
            ),
            (
                "version: 2\nethernets: {n: {match: {macaddress: a}, addresses: [10.0.0.1]}}\n",
                "addresses",
            ),
            (
                "version: 2\nethernets: {n: {match: {macaddress: a}, addresses: [10.0.0.1/33]}}\n",
                "addresses",
            ),
            (
                "version: 2\nethernets: {n: {match: {macaddress: a}, gateway4: x}}\n",
                "gateway4",
            ),
            (
                "version: 2\nethernets: {n: {match: {macaddress: a}, mtu: 1}}\n",
                "mtu",
            ),
            ("version: [\n", "network-config: line 1"),
        ] {
            let error = network(text).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let many = format!(
            "zhengyun: {{sites: [{}]}}",
            vec!["a"; SITES_MAXIMUM + 1].join(",")
        );
        assert!(
            identity("", &many)
                .unwrap_err()
                .to_string()
                .contains("zhengyun.sites")
        );
    }
}
