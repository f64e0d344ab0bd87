//! Words that are lost: one half of what a host and a server say to each other does not arrive. Connections stay open.

use std::net::SocketAddrV4;

use anyhow::Result;

use crate::files::LabFiles;
use crate::namespace;
use crate::process::run;

/// Which half is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// What the host asks: nothing of it is done.
    Requests,
    /// What the server answers: it was done, and the host does not know.
    Replies,
}

/// Name of the table of rules in a host's network.
const TABLE: &str = "inet zylab-loss";

/// Begins to lose one half of what a host and a server say to each other, and nothing else any more.
///
/// # Errors
/// What `nft` said.
pub fn lose(files: &LabFiles, host: &str, server: SocketAddrV4, half: Half) -> Result<()> {
    nft(files, host, &(nothing() + &rules(server, half)))
}

/// Loses nothing of what a host says and hears any more.
///
/// # Errors
/// What `nft` said.
pub fn end(files: &LabFiles, host: &str) -> Result<()> {
    nft(files, host, &nothing())
}

fn nft(files: &LabFiles, host: &str, rules: &str) -> Result<()> {
    let namespace = namespace::host(&files.name, host);
    run("ip", ["netns", "exec", &namespace, "nft", rules]).map(drop)
}

/// The API server, as a host reaches it.
///
/// # Errors
/// The lab does not run.
pub fn api_server(files: &LabFiles) -> Result<SocketAddrV4> {
    let addresses = files.addresses()?;
    Ok(SocketAddrV4::new(addresses.control(), addresses.api_port()))
}

/// The table is made before it is deleted, as it may not be there.
fn nothing() -> String {
    format!("add table {TABLE}; delete table {TABLE};")
}

fn rules(server: SocketAddrV4, half: Half) -> String {
    let (hook, address_of, port_of) = match half {
        Half::Requests => ("output", "daddr", "dport"),
        Half::Replies => ("input", "saddr", "sport"),
    };
    let (address, port) = (server.ip(), server.port());
    format!(
        "add table {TABLE}; add chain {TABLE} loss {{ type filter hook {hook} priority 0; }}; \
        add rule {TABLE} loss ip {address_of} {address} tcp {port_of} {port} counter drop"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_half_is_dropped() {
        let server = SocketAddrV4::new([10, 9, 0, 254].into(), 6443);
        for (half, chain, rule) in [
            (
                Half::Requests,
                "hook output",
                "ip daddr 10.9.0.254 tcp dport 6443 counter drop",
            ),
            (
                Half::Replies,
                "hook input",
                "ip saddr 10.9.0.254 tcp sport 6443 counter drop",
            ),
        ] {
            let text = rules(server, half);
            assert!(text.contains(chain) && text.ends_with(rule), "{text}");
        }
    }
}
