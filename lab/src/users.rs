//! The users of a lab's API server (the operator, hosts, people) and who vouches for them: the lab's
//! own authority, or an existing cluster, which signs what it is asked to.

use std::path::Path;

use anyhow::Result;

use crate::address::Addresses;
use crate::cluster::Cluster;
use crate::files::LabFiles;
use crate::pki::{ApiServer, Authority, write_secret};

/// From where a user reaches the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the control node and hosts.
    Inside,
    /// From the machine that the lab runs on.
    Outside,
}

/// Who vouches for users.
pub enum Users {
    /// The lab's own control plane trusts the lab's authority.
    Own,
    /// An existing cluster signs.
    Cluster(Box<Cluster>),
}

/// Users of every lab but its hosts: file of the kubeconfig, name, group, side.
const USERS: [(&str, &str, &str, Side); 4] = [
    ("operator", api::names::OPERATOR_USER, "", Side::Inside),
    (
        "edge",
        "zhengyun:edge",
        "zhengyun:departments",
        Side::Inside,
    ),
    (
        "ops",
        "ops",
        "zhengyun:system-administrators",
        Side::Outside,
    ),
    (
        "department",
        "dept-user",
        "zhengyun:department:oa-office",
        Side::Outside,
    ),
];

/// How the lab's own API server is reached from a side.
pub fn own_server(addresses: Addresses, side: Side, authority: &Authority) -> ApiServer {
    ApiServer {
        url: match side {
            Side::Inside => inside_url(addresses),
            Side::Outside => format!("https://127.0.0.1:{}", addresses.forward_port()),
        },
        tls_name: "kubernetes".to_owned(),
        authority: authority.certificate.clone(),
    }
}

/// Where hosts and operator reach an API server: the control node.
pub fn inside_url(addresses: Addresses) -> String {
    format!("https://{}:{}", addresses.control(), addresses.api_port())
}

impl Users {
    /// Gives every user of a lab a kubeconfig; hosts get theirs one by one.
    ///
    /// # Errors
    /// A file can not be written, or the cluster does not sign.
    pub async fn write_all(
        &self,
        files: &LabFiles,
        addresses: Addresses,
        authority: &Authority,
    ) -> Result<()> {
        for (file, name, group, side) in USERS {
            self.write(files, addresses, authority, file, (name, group), side)
                .await?;
        }
        Ok(())
    }

    /// Gives a host's agent and guard their kubeconfig.
    ///
    /// # Errors
    /// A file can not be written, or the cluster does not sign.
    pub async fn write_host(
        &self,
        files: &LabFiles,
        addresses: Addresses,
        authority: &Authority,
        host: &str,
    ) -> Result<()> {
        let name = format!("{}{host}", api::names::HOST_USER_PREFIX);
        let user = (name.as_str(), api::names::HOSTS_GROUP);
        self.write(files, addresses, authority, host, user, Side::Inside)
            .await
    }

    async fn write(
        &self,
        files: &LabFiles,
        addresses: Addresses,
        authority: &Authority,
        file: &str,
        user: (&str, &str),
        side: Side,
    ) -> Result<()> {
        let (identity, server) = match self {
            Users::Own => (
                authority.issue(user.0, user.1, &[], &[])?,
                own_server(addresses, side, authority),
            ),
            Users::Cluster(cluster) => {
                (cluster.issue(user).await?, cluster.server(addresses, side))
            }
        };
        write_kubeconfig(&files.pki(), file, &server.kubeconfig(&identity)?)
    }
}

/// Writes the kubeconfig of a user.
///
/// # Errors
/// The folder can not be written.
pub fn write_kubeconfig(folder: &Path, file: &str, content: &str) -> Result<()> {
    write_secret(&folder.join(format!("{file}.kubeconfig")), content)
}
