//! The users of a lab's API server (the operator, hosts, people) and who vouches for them: the lab's
//! own authority, or an existing cluster, which signs what it is asked to.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::address::Addresses;
use crate::cluster::Cluster;
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
pub enum Signer<'a> {
    /// The lab's own control plane trusts the lab's authority.
    Own(&'a Authority),
    /// An existing cluster signs.
    Cluster(Box<Cluster>),
}

/// The users of one lab.
pub struct Users<'a> {
    /// Folder of their kubeconfigs.
    pub folder: PathBuf,
    /// Where the API server is reached.
    pub addresses: Addresses,
    /// Who vouches for them.
    pub signer: Signer<'a>,
}

/// A user: file of the kubeconfig, name, group, side.
type User<'a> = (&'a str, &'a str, &'a str, Side);

/// Users of every lab but its hosts.
const USERS: [User<'static>; 4] = [
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

/// Users that a control plane of the lab's own has besides; an existing cluster has its own.
const OWN_USERS: [User<'static>; 2] = [
    ("admin", "admin", "system:masters", Side::Outside),
    (
        "controller-manager",
        "system:kube-controller-manager",
        "",
        Side::Inside,
    ),
];

/// Where hosts and operator reach an API server: the control node.
pub fn inside_url(addresses: Addresses) -> String {
    format!("https://{}:{}", addresses.control(), addresses.api_port())
}

impl Users<'_> {
    /// Gives every user of a lab a kubeconfig; hosts get theirs one by one.
    ///
    /// # Errors
    /// A file can not be written, or the cluster does not sign.
    pub async fn write_all(&self) -> Result<()> {
        let own: &[User<'_>] = match self.signer {
            Signer::Own(_) => &OWN_USERS,
            Signer::Cluster(_) => &[],
        };
        for user in USERS.iter().chain(own) {
            self.write(*user).await?;
        }
        Ok(())
    }

    /// Gives a host's agent and guard their kubeconfig.
    ///
    /// # Errors
    /// A file can not be written, or the cluster does not sign.
    pub async fn write_host(&self, host: &str) -> Result<()> {
        let name = format!("{}{host}", api::names::HOST_USER_PREFIX);
        self.write((host, &name, api::names::HOSTS_GROUP, Side::Inside))
            .await
    }

    async fn write(&self, (file, name, group, side): User<'_>) -> Result<()> {
        let (identity, server) = match &self.signer {
            Signer::Own(authority) => (
                authority.issue(name, group, &[], &[])?,
                self.own_server(side, authority),
            ),
            Signer::Cluster(cluster) => (
                cluster.issue(name, group).await?,
                cluster.server(self.addresses, side),
            ),
        };
        write_kubeconfig(&self.folder, file, &server.kubeconfig(&identity)?)
    }

    /// How the lab's own API server is reached from a side.
    fn own_server(&self, side: Side, authority: &Authority) -> ApiServer {
        ApiServer {
            url: match side {
                Side::Inside => inside_url(self.addresses),
                Side::Outside => format!("https://127.0.0.1:{}", self.addresses.forward_port()),
            },
            tls_name: "kubernetes".to_owned(),
            authority: authority.certificate.clone(),
        }
    }
}

/// Writes the kubeconfig of a user.
///
/// # Errors
/// The folder can not be written.
pub fn write_kubeconfig(folder: &Path, file: &str, content: &str) -> Result<()> {
    write_secret(&folder.join(format!("{file}.kubeconfig")), content)
}
