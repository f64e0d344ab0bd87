//! The lab's control plane: real etcd, kube-apiserver and kube-controller-manager, started in
//! the control node's namespace with TLS, RBAC, no anonymous access, and an audit log.

pub mod binaries;

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::address::Addresses;
use crate::files::{LabFiles, tail};
use crate::namespace;
use crate::pki::{Authority, write_secret};
use crate::process::{Daemon, PATIENCE, run, wait_for};

pub use binaries::Binaries;

/// Controllers that a site without Kubernetes nodes needs.
const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,serviceaccount-controller,\
serviceaccount-token-controller,clusterrole-aggregation-controller,root-ca-certificate-publisher-controller,\
validatingadmissionpolicy-status-controller,certificatesigningrequest-signing-controller";

/// The audit policy that sites are given: who wrote what in our group, people's words in full.
const AUDIT_POLICY: &str = include_str!("../../charts/zhengyun/audit/policy.yaml");

/// Writes the certificates and keys of a control plane of the lab's own.
///
/// # Errors
/// The folder can not be written.
pub fn write_credentials(
    files: &LabFiles,
    addresses: Addresses,
    authority: &Authority,
) -> Result<()> {
    let pki = files.pki();
    write_secret(&pki.join("ca.crt"), &authority.certificate)?;
    write_secret(&pki.join("ca.key"), &authority.key())?;
    let server_addresses = [
        addresses.control().into(),
        std::net::Ipv4Addr::LOCALHOST.into(),
    ];
    let server = authority.issue(
        "kube-apiserver",
        "",
        &["kubernetes", "localhost"],
        &server_addresses,
    )?;
    write_secret(&pki.join("apiserver.crt"), &server.certificate)?;
    write_secret(&pki.join("apiserver.key"), &server.key)?;
    let service_accounts = authority.issue("service-accounts", "", &[], &[])?;
    write_secret(
        &pki.join("service-accounts.crt"),
        &service_accounts.certificate,
    )?;
    write_secret(&pki.join("service-accounts.key"), &service_accounts.key)?;
    Ok(())
}

fn daemon(files: &LabFiles, name: &str, command: Vec<OsString>) -> Result<()> {
    Daemon {
        cgroup: &namespace::cgroup(&files.name, "control")?,
        namespace: Some(&namespace::control(&files.name)),
        log: &files.logs().join(format!("{name}.log")),
        command,
    }
    .start()
}

fn command(program: &Path, arguments: &[String]) -> Vec<OsString> {
    std::iter::once(program.into())
        .chain(arguments.iter().map(OsString::from))
        .collect()
}

/// Starts etcd and the API server.
///
/// # Errors
/// A program can not be started.
pub fn start_api(files: &LabFiles, addresses: Addresses, binaries: &Binaries) -> Result<()> {
    let data = files.control().join("etcd");
    let etcd = [
        "--name=default".to_owned(),
        format!("--data-dir={}", data.display()),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-cluster=default=http://127.0.0.1:2380".to_owned(),
    ];
    daemon(files, "etcd", command(&binaries.etcd, &etcd))?;
    start_apiserver(files, addresses, binaries)
}

/// Puts a copy of etcd's data aside, as a nightly backup does. The API server is down meanwhile: the lab
/// has no etcdctl, which would take a snapshot of an etcd that runs.
///
/// # Errors
/// A program can not be started, or the data not be copied.
pub async fn back_up(files: &LabFiles, addresses: Addresses) -> Result<()> {
    exchange_data(files, addresses, "etcd", "etcd-backup").await
}

/// Puts what was backed up in place of what etcd holds: the API server then knows only what was so
/// when the backup was taken. Kubernetes' own controllers begin anew, as its handbook asks for after a
/// restore; nothing of Zhengyun is touched.
///
/// # Errors
/// There is no backup, or a program can not be started.
pub async fn restore(files: &LabFiles, addresses: Addresses) -> Result<()> {
    let binaries = Binaries::get()?;
    kill(files, &binaries.controller_manager)?;
    exchange_data(files, addresses, "etcd-backup", "etcd").await?;
    start_controller_manager(files, &binaries)
}

/// Copies one folder of etcd's data over another while nobody uses either.
async fn exchange_data(files: &LabFiles, addresses: Addresses, from: &str, to: &str) -> Result<()> {
    ensure!(
        !files.is_on_existing_cluster(),
        "the API server is an existing cluster's, not this lab's; back it up and restore it there"
    );
    let binaries = Binaries::get()?;
    for program in [&binaries.apiserver, &binaries.etcd] {
        kill(files, program)?;
        let gone = || Ok(processes(files, program)?.is_empty());
        wait_for("a program of the control plane to end", PATIENCE, gone)?;
    }
    let (from, to) = (files.control().join(from), files.control().join(to));
    ensure!(from.is_dir(), "{}: there is no backup", from.display());
    if to.exists() {
        std::fs::remove_dir_all(&to)?;
    }
    let arguments: [&std::ffi::OsStr; 3] = ["-a".as_ref(), from.as_ref(), to.as_ref()];
    run("cp", arguments)?;
    start_api(files, addresses, &binaries)?;
    wait_ready(files).await.map(drop)
}

/// Has etcd say that its space is used up, as it does at its quota, or take that back: the API server then refuses
/// every write and answers every read.
///
/// # Errors
/// etcd does not answer, or the API server is an existing cluster's.
pub fn fill(files: &LabFiles, full: bool) -> Result<()> {
    ensure!(
        !files.is_on_existing_cluster(),
        "the API server is an existing cluster's, not this lab's; its storage can not be filled from here"
    );
    let status: serde_json::Value = ask_etcd(files, "status", &serde_json::json!({}))?;
    let member = &status["header"]["member_id"];
    let action = if full { "ACTIVATE" } else { "DEACTIVATE" };
    let alarm = serde_json::json!({"action": action, "memberID": member, "alarm": "NOSPACE"});
    ask_etcd(files, "alarm", &alarm).map(drop)
}

/// Asks etcd for maintenance, by its door for JSON.
fn ask_etcd(files: &LabFiles, what: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
    let (inside, body) = (namespace::control(&files.name), body.to_string());
    let url = format!("http://127.0.0.1:2379/v3/maintenance/{what}");
    let command = ["netns", "exec", &inside, "curl", "--silent", "--show-error"];
    let options = [
        "--fail-with-body",
        "--max-time",
        "10",
        "--data",
        &body,
        &url,
    ];
    let answer = run("ip", command.into_iter().chain(options))?;
    serde_json::from_str(&answer).with_context(|| format!("etcd answered {answer}"))
}

/// Starts the API server alone, as after the fault "API server down".
///
/// # Errors
/// The program can not be started.
pub fn start_apiserver(files: &LabFiles, addresses: Addresses, binaries: &Binaries) -> Result<()> {
    let pki = files.pki();
    let policy = files.control().join("audit-policy.yaml");
    std::fs::write(&policy, AUDIT_POLICY)?;
    let path = |name: &str| pki.join(name).display().to_string();
    let apiserver = [
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--bind-address={}", addresses.control()),
        format!("--secure-port={}", addresses.api_port()),
        format!("--tls-cert-file={}", path("apiserver.crt")),
        format!("--tls-private-key-file={}", path("apiserver.key")),
        format!("--client-ca-file={}", path("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!(
            "--service-account-key-file={}",
            path("service-accounts.crt")
        ),
        format!(
            "--service-account-signing-key-file={}",
            path("service-accounts.key")
        ),
        "--authorization-mode=RBAC".to_owned(),
        "--anonymous-auth=false".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
        format!("--audit-policy-file={}", policy.display()),
        format!(
            "--audit-log-path={}",
            files.logs().join("audit.log").display()
        ),
        "--audit-log-maxsize=50".to_owned(),
        "--audit-log-maxbackup=2".to_owned(),
    ];
    daemon(
        files,
        "kube-apiserver",
        command(&binaries.apiserver, &apiserver),
    )
}

/// Starts the controller manager.
///
/// # Errors
/// The program can not be started.
pub fn start_controller_manager(files: &LabFiles, binaries: &Binaries) -> Result<()> {
    let kubeconfig = files.kubeconfig("controller-manager").display().to_string();
    let pki = files.pki();
    let manager = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!(
            "--service-account-private-key-file={}",
            pki.join("service-accounts.key").display()
        ),
        format!("--root-ca-file={}", pki.join("ca.crt").display()),
        format!(
            "--cluster-signing-cert-file={}",
            pki.join("ca.crt").display()
        ),
        format!(
            "--cluster-signing-key-file={}",
            pki.join("ca.key").display()
        ),
        format!("--controllers={CONTROLLERS}"),
    ];
    daemon(
        files,
        "kube-controller-manager",
        command(&binaries.controller_manager, &manager),
    )
}

/// The administrator's configuration, through the loopback forwarder.
///
/// # Errors
/// The kubeconfig can not be read.
pub async fn admin_config(files: &LabFiles) -> Result<Config> {
    let path = files.kubeconfig("admin");
    let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("{}", path.display()))?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

/// Waits until the API server answers `/readyz`.
///
/// # Errors
/// It does not in time; the end of its log is shown.
pub async fn wait_ready(files: &LabFiles) -> Result<Client> {
    let client = Client::try_from(admin_config(files).await?)?;
    let begin = Instant::now();
    loop {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        match client.request_text(request).await {
            Ok(_) => return Ok(client),
            Err(error) if begin.elapsed() > PATIENCE => {
                let log = tail(&files.logs().join("kube-apiserver.log"), 2_000);
                return Err(error)
                    .with_context(|| format!("the API server is not ready; its log ends:\n{log}"));
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

/// Kills a control plane program by its name within the lab's cgroup.
///
/// # Errors
/// The cgroup can not be read.
pub fn kill(files: &LabFiles, program: &Path) -> Result<()> {
    for pid in processes(files, program)? {
        let _ = run("kill", ["-9", &pid]);
    }
    Ok(())
}

/// Process ids of a program in the control node.
///
/// # Errors
/// The cgroup can not be read.
pub fn processes(files: &LabFiles, program: &Path) -> Result<Vec<String>> {
    let procs =
        std::fs::read_to_string(namespace::cgroup(&files.name, "control")?.join("cgroup.procs"))?;
    let runs =
        |pid: &&str| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    Ok(procs.lines().filter(runs).map(str::to_owned).collect())
}

/// A control plane without hosts, for tests of the API.
pub struct ControlPlane {
    lab: crate::Lab,
}

impl ControlPlane {
    /// Starts one under a name of its own.
    ///
    /// # Errors
    /// What did not start.
    pub async fn start_private(name: &str) -> Result<Self> {
        let short: String = name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(6)
            .collect();
        let options = crate::LabOptions {
            name: format!("{short}{}", std::process::id() % 100_000),
            hosts: 0,
            operators: 0,
            ..crate::LabOptions::default()
        };
        Ok(Self {
            lab: crate::Lab::up(options).await?,
        })
    }

    /// The administrator's configuration.
    ///
    /// # Errors
    /// The kubeconfig can not be read.
    pub async fn admin_config(&self) -> Result<Config> {
        admin_config(&self.lab.files).await
    }

    /// The administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.lab.files.kubeconfig("admin")
    }

    /// The API server's audit log.
    pub fn audit_log(&self) -> std::path::PathBuf {
        self.lab.files.logs().join("audit.log")
    }

    /// Stops it and removes everything.
    ///
    /// # Errors
    /// What was left.
    pub async fn stop(self) -> Result<()> {
        self.lab.down()
    }
}
