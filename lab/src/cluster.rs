//! An existing cluster instead of a control plane of the lab's own. It signs the certificates of the
//! lab's users, and hosts reach it through the control node, where a forwarder stands for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;

use crate::address::Addresses;
use crate::files::LabFiles;
use crate::pki::{ApiServer, Identity, request};
use crate::process::PATIENCE;
use crate::users::{Side, inside_url, write_kubeconfig};

/// Signs certificates of clients; every cluster that kubeadm or the like has made runs it.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// How long a lab's users are valid, seconds: labs are short.
const VALID_SECONDS: i32 = 7 * 24 * 3600;

/// A cluster that is there.
pub struct Cluster {
    client: Client,
    outside: ApiServer,
    target: SocketAddr,
}

impl Cluster {
    /// Connects with an administrator's kubeconfig, and keeps a copy of it as the lab's `admin`.
    ///
    /// # Errors
    /// The file can not be used, or nothing answers.
    pub async fn connect(kubeconfig: &Path, files: &LabFiles) -> Result<Self> {
        let named = || format!("--kubeconfig {}", kubeconfig.display());
        let read = Kubeconfig::read_from(kubeconfig).with_context(named)?;
        let text = serde_yaml::to_string(&read).with_context(named)?;
        write_kubeconfig(&files.pki(), "admin", &text)?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .with_context(named)?;
        let host = config
            .cluster_url
            .host()
            .with_context(|| format!("{}: its server has no host name", named()))?
            .trim_matches(['[', ']'])
            .to_owned();
        let path = config.cluster_url.path();
        if path != "/" {
            bail!(
                "{}: its server is reached under {path}; the lab forwards connections, not paths: give it the API server's own address",
                named()
            );
        }
        let port = config.cluster_url.port_u16().unwrap_or(443);
        let target = tokio::net::lookup_host((host.as_str(), port))
            .await
            .with_context(|| format!("{}: server {host}", named()))?
            .next()
            .with_context(|| format!("{}: server {host} has no address", named()))?;
        let authority = certificates(config.root_cert.as_deref().unwrap_or_default());
        if authority.is_empty() {
            bail!(
                "{}: cluster.certificate-authority is missing; the lab's hosts could not know the server",
                named()
            );
        }
        let outside = ApiServer {
            url: config.cluster_url.to_string(),
            tls_name: config.tls_server_name.clone().unwrap_or(host),
            authority,
        };
        let client = Client::try_from(config).with_context(named)?;
        client
            .apiserver_version()
            .await
            .with_context(|| format!("{}: the API server does not answer", named()))?;
        Ok(Self {
            client,
            outside,
            target,
        })
    }

    /// An administrator's client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Address at which this machine reaches it.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// How it is reached from a side.
    pub fn server(&self, addresses: Addresses, side: Side) -> ApiServer {
        match side {
            Side::Outside => self.outside.clone(),
            Side::Inside => ApiServer {
                url: inside_url(addresses),
                ..self.outside.clone()
            },
        }
    }

    /// Has the cluster sign a certificate for a user and its group.
    ///
    /// # Errors
    /// It refuses, or nobody signs.
    pub async fn issue(&self, user: &str, group: &str) -> Result<Identity> {
        let (request, key) = request(user, group)?;
        let requests: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let object = CertificateSigningRequest {
            metadata: ObjectMeta {
                generate_name: Some("zylab-".to_owned()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".to_owned(),
                    "zylab".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                expiration_seconds: Some(VALID_SECONDS),
                request: ByteString(request.into_bytes()),
                signer_name: SIGNER.to_owned(),
                usages: Some(vec!["client auth".to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let name = requests
            .create(&PostParams::default(), &object)
            .await?
            .name_any();
        let certificate = approved(&requests, &name).await;
        // Whatever came of it, the cluster keeps nothing of a lab.
        requests.delete(&name, &DeleteParams::default()).await?;
        let certificate = certificate.with_context(|| format!("certificate of {user}"))?;
        Ok(Identity { certificate, key })
    }
}

/// Approves a request and waits for its certificate.
async fn approved(requests: &Api<CertificateSigningRequest>, name: &str) -> Result<String> {
    let approval = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "Lab", "message": "a user of a lab"}]}});
    requests
        .patch_approval(name, &PatchParams::default(), &Patch::Strategic(&approval))
        .await?;
    signed(requests, name).await
}

async fn signed(requests: &Api<CertificateSigningRequest>, name: &str) -> Result<String> {
    let begin = Instant::now();
    loop {
        let status = requests.get(name).await?.status.unwrap_or_default();
        if let Some(certificate) = status.certificate {
            return Ok(String::from_utf8(certificate.0)?);
        }
        if begin.elapsed() > PATIENCE {
            bail!(
                "nobody signed {name} for {SIGNER}; the cluster's controller manager needs a signing key"
            );
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// DER as PEM.
fn certificates(der: &[Vec<u8>]) -> String {
    der.iter()
        .map(|certificate| crate::pki::pem("CERTIFICATE", certificate))
        .collect()
}
