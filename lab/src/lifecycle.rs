//! Up and down of a whole lab.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use kube::Client;

use crate::address::{Addresses, HOSTS_MAX};
use crate::bmc;
use crate::cluster::Cluster;
use crate::controlplane::{self, Binaries};
use crate::fault::{self, Fault};
use crate::files::{LabFiles, all_labs, lock};
use crate::forward::Inside;
use crate::host;
use crate::install::{apply_yaml, install_api};
use crate::machine;
use crate::namespace;
use crate::owner::{self, Owner};
use crate::pki::Authority;
use crate::process::{Daemon, Undisturbed, go_on, zylab};
use crate::runtime::tell_person;
use crate::users::{Signer, Users};

/// What a lab is made of.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Name, of lower-case letters and digits.
    pub name: String,
    /// Number of hosts, up to 8; 0 for a control plane alone.
    pub hosts: u8,
    /// Number of operators, 0 for none.
    pub operators: u8,
    /// Folder with the programs of the product. Default: beside `zylab`.
    pub bin_dir: Option<PathBuf>,
    /// What each host offers to VMs.
    pub capacity: String,
    /// Hypervisor of the agents: `libvirt`, or `memory`, which runs nothing and is for measuring them.
    pub hypervisor: String,
    /// An administrator's kubeconfig of an existing cluster that is used instead of a control plane of
    /// the lab's own.
    pub kubeconfig: Option<PathBuf>,
    /// Process that will take the lab down, also when this one leaves it running; once it is dead, the
    /// next lab that comes up removes this one. Default: this process, until [`Lab::keep`].
    pub owner: Option<u32>,
    /// Say on standard error what is done.
    pub talk: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            name: "demo".to_owned(),
            hosts: 4,
            operators: 1,
            bin_dir: None,
            capacity: host::CAPACITY.to_owned(),
            hypervisor: "libvirt".to_owned(),
            kubeconfig: None,
            owner: None,
            talk: false,
        }
    }
}

/// A running lab.
pub struct Lab {
    /// Its folder.
    pub files: LabFiles,
    /// Its addresses.
    pub addresses: Addresses,
    /// The administrator's client.
    pub client: Client,
    /// How long its own API server took from its start to its first good `/readyz`, when this process
    /// started it.
    pub api_ready: Option<Duration>,
    down_on_drop: bool,
}

impl Lab {
    /// Brings a lab up; what a former one of this name left is removed first, and every lab whose owner
    /// died without taking it down.
    ///
    /// # Errors
    /// What did not start. What had started is removed again.
    pub async fn up(options: LabOptions) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a lab makes namespaces and runs libvirtd; run it as root");
        }
        if options.hosts > HOSTS_MAX {
            bail!("--hosts {}: at most {HOSTS_MAX}", options.hosts);
        }
        let files = LabFiles::of(&options.name)?;
        let addresses = take_place(&files, &options)?;
        match start(&files, addresses, &options).await {
            Ok((client, api_ready)) => Ok(Self {
                files,
                addresses,
                client,
                api_ready,
                down_on_drop: true,
            }),
            Err(error) => {
                if !keeps_all()
                    && let Err(left) = remove(&files)
                {
                    eprintln!("zylab: {left:#}");
                }
                Err(error)
            }
        }
    }

    /// Connects to a lab that runs.
    ///
    /// # Errors
    /// It does not run.
    pub async fn open(name: &str) -> Result<Self> {
        let files = LabFiles::of(name)?;
        let addresses = files.addresses()?;
        let client = Client::try_from(controlplane::admin_config(&files).await?)?;
        Ok(Self {
            files,
            addresses,
            client,
            api_ready: None,
            down_on_drop: false,
        })
    }

    /// Names of its hosts.
    ///
    /// # Errors
    /// The folder can not be read.
    pub fn hosts(&self) -> Result<Vec<String>> {
        hosts(&self.files)
    }

    /// Makes a fault happen.
    ///
    /// # Errors
    /// See [`fault::inject`].
    pub fn fault(&self, host: Option<&str>, fault: Fault) -> Result<()> {
        fault::inject(&self.files, host, fault)
    }

    /// Ends a fault.
    ///
    /// # Errors
    /// See [`fault::heal`].
    pub fn heal(&self, host: Option<&str>, fault: Fault) -> Result<()> {
        fault::heal(&self.files, host, fault)
    }

    /// Leaves the lab running when this value goes, and when this process ends. An owner that was
    /// named in [`LabOptions::owner`] stays its owner.
    ///
    /// # Errors
    /// The lab's folder can not be written.
    pub fn keep(&mut self) -> Result<()> {
        self.down_on_drop = false;
        owner::release(&self.files)
    }

    /// Stops everything and removes every trace.
    ///
    /// # Errors
    /// What was left.
    pub fn down(mut self) -> Result<()> {
        self.down_on_drop = false;
        remove(&self.files)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.down_on_drop
            && !keeps_all()
            && let Err(error) = remove(&self.files)
        {
            eprintln!("zylab: {error:#}");
        }
    }
}

/// Whether whoever looks for a fault wants every lab left as it is.
fn keeps_all() -> bool {
    std::env::var_os("ZYLAB_KEEP").is_some()
}

/// Makes the lab's folder, where nothing of a former lab of its name or of a dead process is left.
fn take_place(files: &LabFiles, options: &LabOptions) -> Result<Addresses> {
    let owner = match options.owner {
        Some(pid) => Some(Owner::of(pid)?),
        None if keeps_all() => None,
        None => Some(Owner::of(std::process::id())?),
    };
    // One at a time: a lab that just comes up is not mistaken for the ruin of its name.
    let _lock = lock(&all_labs().join("up.lock"))?;
    owner::remove_abandoned()?;
    remove(files).context("leftovers of a former lab could not be removed")?;
    files.create(owner)
}

/// Names of a lab's hosts.
///
/// # Errors
/// The folder can not be read.
pub fn hosts(files: &LabFiles) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(files.root.join("hosts"))? {
        names.extend(entry?.file_name().into_string());
    }
    names.retain(|name| !machine::is_clone(files, name));
    names.sort();
    Ok(names)
}

/// The control plane of a lab.
enum Plane<'a> {
    /// Its own.
    Own(Binaries),
    /// An existing cluster, by an administrator's kubeconfig.
    Existing(&'a Path),
}

async fn start(
    files: &LabFiles,
    addresses: Addresses,
    options: &LabOptions,
) -> Result<(Client, Option<Duration>)> {
    let begin = Instant::now();
    let say = |what: &str| {
        if options.talk {
            let elapsed = begin.elapsed().as_secs_f64();
            tell_person(&format!("[{elapsed:6.1} s] {what}"));
        }
    };
    let plane = match &options.kubeconfig {
        None => Plane::Own(Binaries::get()?),
        Some(kubeconfig) => Plane::Existing(kubeconfig),
    };
    let bin_dir = match &options.bin_dir {
        Some(folder) => folder
            .canonicalize()
            .with_context(|| format!("--bin-dir {}", folder.display()))?,
        None => zylab()?
            .parent()
            .context("zylab lies in a folder")?
            .to_owned(),
    };
    fs::write(files.root.join("bin-dir"), bin_dir.display().to_string())?;
    fs::write(files.root.join("capacity"), &options.capacity)?;
    fs::write(files.root.join("hypervisor"), &options.hypervisor)?;
    fs::write(files.root.join("operators"), options.operators.to_string())?;
    let authority = Authority::new("zhengyun-lab")?;
    namespace::make_cgroup(&namespace::cgroup(&files.name, "control")?)?;
    namespace::make_control(&files.name, addresses)?;
    let inside = SocketAddr::from((addresses.control(), addresses.api_port()));
    let api_start = Instant::now();
    let signer = match &plane {
        Plane::Existing(kubeconfig) => {
            say("an existing cluster, and users that it vouches for");
            let cluster = Cluster::connect(kubeconfig, files).await?;
            start_forwarder(files, inside, cluster.target(), Inside::Listener)?;
            Signer::Cluster(Box::new(cluster))
        }
        Plane::Own(binaries) => {
            say("control plane: etcd, kube-apiserver, kube-controller-manager");
            controlplane::write_credentials(files, addresses, &authority)?;
            controlplane::start_api(files, addresses, binaries)?;
            let outside = SocketAddr::from((Ipv4Addr::LOCALHOST, addresses.forward_port()));
            start_forwarder(files, outside, inside, Inside::Target)?;
            Signer::Own(&authority)
        }
    };
    let users = Users {
        folder: files.pki(),
        addresses,
        signer,
    };
    users.write_all().await?;
    // Asked while the hosts are made, so that its own time is told and not theirs.
    let asked = files.clone();
    let mut ready = tokio::task::JoinSet::new();
    ready.spawn(async move {
        let client = controlplane::wait_ready(&asked).await?;
        anyhow::Ok((client, api_start.elapsed()))
    });
    for number in 1..=options.hosts {
        go_on()?;
        let name = host::name(number);
        say(&format!(
            "host {name}: namespaces, certificates, BMC, power on"
        ));
        host::prepare(files, addresses, number, options.hosts, &authority)?;
        users.write_host(&name).await?;
        namespace::make_host(&files.name, addresses, &name, number)?;
        bmc::start(files, addresses, &name)?;
        host::power_on(files, &name)?;
    }
    let ready = ready.join_next().await;
    let (client, took) = ready.context("the API server was not asked")???;
    say("API server ready; installing CRDs, roles and admission policies");
    let mut api_ready = None;
    if let Plane::Own(binaries) = &plane {
        api_ready = Some(took);
        controlplane::start_controller_manager(files, binaries)?;
    }
    install_api(client.clone()).await?;
    for number in 1..=options.hosts {
        apply_yaml(&client, &host_objects(files, addresses, number)?).await?;
        bmc::wait_ready(files, addresses, &host::name(number))?;
    }
    if options.hosts > 0 {
        start_helper(files, "edge")?;
        start_helper(files, "watchdogs")?;
    }
    for number in 0..options.operators {
        say("operator");
        start_operator(files, number)?;
    }
    say("up");
    Ok((client, api_ready))
}

/// What ops declares for a host: the object and the credentials of its BMCs.
fn host_objects(files: &LabFiles, addresses: Addresses, number: u8) -> Result<String> {
    let name = host::name(number);
    let password = fs::read_to_string(files.host(&name).join("bmc-password"))?;
    let (control, redfish, ipmi) = (
        addresses.control(),
        addresses.redfish_port(number),
        addresses.ipmi_port(number),
    );
    let redfish = format!(
        "{{protocol: Redfish, address: 'http://{control}:{redfish}', credentials: {{name: bmc-{name}}}}}"
    );
    let ipmi = format!(
        "{{protocol: Ipmi, address: '{control}:{ipmi}', cipherSuite: 3, credentials: {{name: bmc-{name}}}}}"
    );
    let bmcs = if bmc::has_redfish(number) {
        format!("[{redfish}, {ipmi}]")
    } else {
        format!("[{ipmi}]")
    };
    Ok(format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: bmc-{name}, namespace: {}}}\nstringData: {{username: {}, password: '{password}'}}\n---\napiVersion: {}/v1alpha1\nkind: Host\nmetadata: {{name: {name}}}\nspec: {{pool: main, managementAddress: {}, rack: rack-{}, site: lab, bmcs: {bmcs}}}\n",
        api::names::SYSTEM_NAMESPACE,
        bmc::USER,
        api::names::GROUP,
        addresses.management(number),
        (number - 1) / 2 + 1,
    ))
}

fn control_daemon(
    files: &LabFiles,
    name: &str,
    inside: bool,
    command: Vec<std::ffi::OsString>,
) -> Result<()> {
    let namespace = namespace::control(&files.name);
    Daemon {
        cgroup: &namespace::cgroup(&files.name, "control")?,
        namespace: inside.then_some(namespace.as_str()),
        log: &files.logs().join(format!("{name}.log")),
        command,
    }
    .start()
}

fn start_forwarder(
    files: &LabFiles,
    listen: SocketAddr,
    target: SocketAddr,
    inside: Inside,
) -> Result<()> {
    let inside = inside.to_possible_value().context("a word")?;
    control_daemon(
        files,
        "forward",
        false,
        vec![
            zylab()?.into(),
            "forward".into(),
            "--listen".into(),
            listen.to_string().into(),
            "--namespace".into(),
            namespace::control(&files.name).into(),
            "--target".into(),
            target.to_string().into(),
            "--inside".into(),
            inside.get_name().into(),
        ],
    )
}

/// Starts a part of the lab itself that is a command of `zylab`.
fn start_helper(files: &LabFiles, command: &str) -> Result<()> {
    control_daemon(
        files,
        command,
        false,
        vec![
            zylab()?.into(),
            command.into(),
            "--name".into(),
            (&files.name).into(),
        ],
    )
}

/// How many operators a lab was brought up with.
///
/// # Errors
/// The lab does not run.
pub fn operators(files: &LabFiles) -> Result<u8> {
    fs::read_to_string(files.root.join("operators"))?
        .parse()
        .context("the lab's file `operators` is damaged; run zylab down")
}

/// Starts an operator in the control node.
///
/// # Errors
/// The program is not built.
pub fn start_operator(files: &LabFiles, number: u8) -> Result<()> {
    let folder = PathBuf::from(fs::read_to_string(files.root.join("bin-dir"))?);
    let program = folder.join("zhengyun-operator");
    if !program.is_file() {
        bail!(
            "{}: not built; run: cargo build --workspace",
            program.display()
        );
    }
    let identity = format!("operator-{number}");
    let metrics = format!("127.0.0.1:{}", 9100 + u16::from(number));
    control_daemon(
        files,
        &identity,
        true,
        vec![
            program.into(),
            "--kubeconfig".into(),
            files.kubeconfig("operator").into(),
            "--metrics-address".into(),
            metrics.into(),
            "--identity".into(),
            (&identity).into(),
        ],
    )
}

/// Removes everything that a lab of this name has, whether it runs or crashed.
///
/// # Errors
/// What was left.
pub fn remove(files: &LabFiles) -> Result<()> {
    let _undisturbed = Undisturbed::begin();
    let control = namespace::cgroup(&files.name, "control")?;
    let mut cgroups = namespace::cgroups_of_lab(&files.name)?;
    // The control node first: who plays a watchdog there would boot a host that was just killed.
    cgroups.sort_by_key(|cgroup| *cgroup != control);
    for cgroup in cgroups {
        // A frozen host is thawed so that its end can be seen.
        namespace::freeze(&cgroup, false)?;
        namespace::remove_cgroup(&cgroup)?;
    }
    for name in namespace::of_lab(&files.name) {
        namespace::remove(&name)?;
    }
    if files.root.exists() {
        fs::remove_dir_all(&files.root)
            .with_context(|| format!("{}: can not be removed", files.root.display()))?;
    }
    Ok(())
}
