//! The agent's main loop: gathers facts, decides for each VM, hands the work to one task per
//! VM, and looks after volumes, images, migrations and the host's report. Level-triggered:
//! woken by the API, by the hypervisor and by a timer, it always acts on the whole state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::{RunStrategy, Runtime, VirtualMachine};
use failover::copy::CopyPhase;
use hypervisor::libvirt::LibvirtHypervisor;
use hypervisor::memory::MemoryFabric;
use hypervisor::{Domain, Hypervisor, Node};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use model::{BootId, Epoch, HostName};
use tokio::task::JoinSet;

use crate::alarm::Alarms;
use crate::certificates::Certificates;
use crate::ends::Ends;
use crate::freeze::Freezer;
use crate::guard::files::Firings;
use crate::ledger::Ledger;
use crate::migration::Moves;
use crate::network::{Standing, Uplink};
use crate::options::{AgentOptions, DomainType, HypervisorKind};
use crate::storage::images::Checked;
use crate::storage::jobs::Jobs;
use crate::under_way::UnderWay;
use crate::view::View;
use crate::vm::claiming::Claiming;
use crate::vm::closing::Closes;
use crate::vm::decide::{Action, ApiFacts, Facts, copy_phase, decide, domain as copy_of};
use crate::vm::departed::Departed;
use crate::vm::dirty_rate::{self, DirtyRates};
use crate::vm::last_words::LastWords;
use crate::vm::preparing::Preparing;
use crate::vm::resuming::Resumes;
use crate::vm::worker::{Done, VmRef, carry_out};
use crate::{freeze, guard, hardware_report, hook_check, metrics, migration, report, storage};

/// The loop goes round at least this often.
const TURN: Duration = Duration::from_millis(500);
/// Wait before libvirt is asked again at start-up.
const LIBVIRT_AGAIN: Duration = Duration::from_millis(200);

/// What every part of the agent needs.
pub struct Context {
    /// Command line.
    pub options: AgentOptions,
    /// This host.
    pub host: HostName,
    /// This incarnation: the kernel's boot, and how often the guard has fired in it.
    pub boot_id: BootId,
    /// The guard's firings when this incarnation began: no start outlives another one.
    pub guard_firings: u64,
    /// The API.
    pub client: Client,
    /// Its caches.
    pub view: View,
    /// The hypervisor.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// What the host can run.
    pub node: Node,
    /// The ledger of this boot.
    pub ledger: Ledger,
    /// Starts that wait for what they need.
    pub preparing: Preparing,
    /// Claims that are being written beside the data.
    pub claiming: Claiming,
    /// Closes under way.
    pub closes: Closes,
    /// Why copies were closed, until that was seen to be told.
    pub last_words: LastWords,
    /// Copies that were handed over and are still shown.
    pub departed: Departed,
    /// Guests that were let run on after a disk had failed.
    pub resumes: Resumes,
    /// How fast guests write to their memory.
    pub dirty_rates: DirtyRates,
    /// Volume jobs of this boot.
    pub jobs: Jobs,
    /// What this host remembers of the API, and whether it is frozen.
    pub freezer: Freezer,
    /// What the host brings to networks.
    pub uplink: Uplink,
    /// Networks that stand here.
    pub networks: Standing,
    /// Certificates of this host.
    pub certificates: Certificates,
    /// Images found whole.
    pub checked: Checked,
    /// Folder of serial consoles.
    pub console_folder: PathBuf,
    /// Migrations and hand-overs under way.
    pub moves: Moves,
    /// Client for other agents, made when it is first needed.
    pub moves_client: tokio::sync::OnceCell<reqwest::Client>,
    /// Why nothing is started, if so.
    pub alarms: Alarms,
}

impl Context {
    /// Why this host starts nothing; none: it starts.
    pub fn starts_forbidden(&self) -> Option<String> {
        self.alarms.starts_forbidden()
    }

    /// # Errors
    /// This host starts nothing, and why.
    pub fn must_start(&self) -> Result<()> {
        match self.starts_forbidden() {
            None => Ok(()),
            Some(why) => bail!("this host starts nothing: {why}"),
        }
    }

    /// Whether the guard has fired since this incarnation of the host began, or nobody can tell.
    pub fn is_over(&self) -> bool {
        let firings = Firings::read(&self.options.run_dir);
        !firings.is_ok_and(|firings| firings.count == self.guard_firings)
    }
}

/// Runs the agent until it is told to stop, or an essential part of it ends.
///
/// # Errors
/// What made it impossible to go on. No VM is touched by its end.
pub async fn run(options: AgentOptions) -> Result<()> {
    std::fs::create_dir_all(&options.run_dir)
        .with_context(|| format!("--run-dir {}", options.run_dir.display()))?;
    let firings = wait_emptied(&options).await?;
    let hypervisor = open_hypervisor(&options)?;
    let node = wait_node(hypervisor.as_ref()).await;
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)
        .with_context(|| format!("--kubeconfig {}", options.kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let certificates = Certificates::at_start(&config.auth_info, &options.tls.tls_cert);
    let watches = wire::client::watches(config.clone())?;
    let client = wire::client::client(config)?;
    let mut tasks = JoinSet::new();
    let view = View::start(&watches, &options.host, &mut tasks);
    let console_folder = options.run_dir.join("consoles");
    std::fs::create_dir_all(&console_folder)?;
    let boot_id = failover::guard::incarnation(&guard::boot_id()?.into(), firings.count);
    let context = Arc::new(Context {
        host: options.host.as_str().into(),
        alarms: Alarms::open(&options.run_dir, boot_id.clone())?,
        boot_id,
        guard_firings: firings.count,
        ledger: Ledger::new(&options.run_dir),
        preparing: Preparing::default(),
        claiming: Claiming::default(),
        closes: Closes::default(),
        last_words: LastWords::default(),
        departed: Departed::default(),
        resumes: Resumes::default(),
        dirty_rates: DirtyRates::default(),
        jobs: Jobs::new(&options.run_dir),
        freezer: Freezer::open(&options.run_dir)?,
        uplink: Uplink {
            vtep: options.vtep_address,
            device: options.business_device.clone(),
        },
        networks: Standing::default(),
        certificates,
        checked: Checked::default(),
        moves: Moves::default(),
        moves_client: tokio::sync::OnceCell::new(),
        client,
        view,
        hypervisor,
        node,
        console_folder,
        options,
    });
    // Before anything is decided, so that a host in order loses no turn.
    let hook = hook_check::check(&[hook_check::HOOK], hook_check::BOUND).await;
    context.alarms.set_hook(hook.err());
    tracing::info!(host = %context.host, boot_id = %context.boot_id, domain_type = context.node.domain_type, "agent starts");
    migration::handover::serve(&context, &mut tasks).await?;
    {
        let (context, probes) = (context.clone(), hardware_report::open(&context));
        tasks.spawn(async move { hardware_report::run(&context, probes).await });
    }
    {
        let context = context.clone();
        tasks.spawn(async move { report::run(&context).await });
    }
    {
        let context = context.clone();
        tasks.spawn(async move { freeze::run(&context).await });
    }
    {
        let context = context.clone();
        tasks.spawn(async move { dirty_rate::run(&context).await });
    }
    {
        let context = context.clone();
        tasks.spawn(async move { converge(&context).await });
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = tasks.join_next() => bail!("an essential task ended: {ended:?}"),
        _ = terminate.recv() => tracing::info!("stopped on request; VMs run on"),
        _ = tokio::signal::ctrl_c() => tracing::info!("interrupted; VMs run on"),
    }
    if !context.moves.stop(migration::STOP_WITHIN).await {
        tracing::warn!(
            "a move from here has not ended yet; the agent that is started next goes on from what it finds"
        );
    }
    Ok(())
}

fn open_hypervisor(options: &AgentOptions) -> Result<Arc<dyn Hypervisor>> {
    let domain_type = match options.domain_type {
        DomainType::Auto => None,
        DomainType::Qemu => Some("qemu".to_owned()),
        DomainType::Kvm => Some("kvm".to_owned()),
    };
    Ok(match options.hypervisor {
        HypervisorKind::Libvirt => Arc::new(LibvirtHypervisor::connect(
            &options.libvirt_uri,
            domain_type,
        )?),
        HypervisorKind::Memory => Arc::new(MemoryFabric::default().host(&options.host)),
    })
}

/// The guard's firings; after one, nothing begins before all that it killed is gone.
async fn wait_emptied(options: &AgentOptions) -> Result<Firings> {
    loop {
        let firings = Firings::read(&options.run_dir)
            .with_context(|| format!("--run-dir {}", options.run_dir.display()))?;
        if !firings.killing {
            return Ok(firings);
        }
        tracing::warn!("the guard is emptying this host");
        tokio::time::sleep(TURN).await;
    }
}

async fn wait_node(hypervisor: &dyn Hypervisor) -> Node {
    loop {
        match hypervisor.node().await {
            Ok(node) => return node,
            Err(error) => tracing::warn!(%error, "waiting for libvirt"),
        }
        tokio::time::sleep(LIBVIRT_AGAIN).await;
    }
}

/// Everything that the loop remembers between turns.
#[derive(Default)]
struct Memory {
    busy: Arc<Mutex<BTreeSet<String>>>,
    ends: Ends,
}

/// The converge loop.
async fn converge(context: &Arc<Context>) -> &'static str {
    let mut events = context.hypervisor.events();
    let mut memory = Memory::default();
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            () = context.view.changed.notified() => {}
            event = events.recv() => if let Ok(event) = event { memory.ends.hear(&event) },
        }
        if context.is_over() {
            return "converge: the guard has fired, so this incarnation of the host is over";
        }
        memory.ends.hear_all(&mut events);
        // Before domains are listed: what ends or is called meanwhile is answered by the next list.
        let answers = context.freezer.answers(is_idle(&memory.busy));
        let before = UnderWay::now(&memory.busy);
        let listed = context.hypervisor.list().await;
        // What has ended since the events were read above may be missing in the list.
        memory.ends.hear_all(&mut events);
        if let Ok(domains) = &listed {
            let known = context.ledger.known(domains);
            context.departed.see(&context.boot_id, &known);
            context.alarms.audit(&context.ledger, known);
        }
        match listed {
            Ok(domains) if context.freezer.acts() => turn(context, &mut memory, &before, &domains),
            Ok(domains) => context.freezer.tell(context, &domains, answers),
            Err(error) => tracing::warn!(%error, "domains can not be listed; nothing is decided"),
        }
        if context.freezer.acts() {
            storage_turn(context, &memory);
        }
        if let Err(error) = tell_guard(context) {
            tracing::error!(%error, "the loop file can not be written; the guard will report the agent as stuck");
        }
    }
}

/// Tells the guard that the loop went round.
fn tell_guard(context: &Context) -> std::io::Result<()> {
    let now = guard::clock::now()?;
    guard::pulse::tell(&context.options.run_dir, &context.boot_id, now)
}

/// A VM, and its object where a cache of ours has it.
type Concerned = (VmRef, Option<Arc<VirtualMachine>>);

/// Every VM that concerns this host, by uid: those that the API gives it, and those that are here.
fn concerned(context: &Context, domains: &[Domain]) -> BTreeMap<String, Concerned> {
    let mut vms = BTreeMap::new();
    for owner in domains.iter().filter_map(|domain| domain.owner.as_ref()) {
        let vm = VmRef {
            uid: owner.vm.to_string(),
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
        };
        vms.insert(vm.uid.clone(), (vm, None));
    }
    let (assigned, incoming) = (&context.view.assigned, &context.view.incoming);
    for object in assigned.state().into_iter().chain(incoming.state()) {
        let metadata = &object.metadata;
        let vm = VmRef {
            uid: metadata.uid.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        };
        vms.insert(vm.uid.clone(), (vm, Some(object)));
    }
    vms
}

/// One turn over every VM that concerns this host, by domains that were listed after `before`.
fn turn(context: &Arc<Context>, memory: &mut Memory, before: &UnderWay, domains: &[Domain]) {
    let vms = concerned(context, domains);
    memory.ends.begin_turn(|uid| vms.contains_key(uid));
    context.last_words.retain(|uid, epoch| {
        let vm = vms.get(uid);
        vm.is_some_and(|(_, object)| !shows_closed(context, object.as_deref(), epoch))
    });
    for (uid, (vm, object)) in vms {
        let works = context.moves.is_moving(&uid) || is_busy(&memory.busy, &uid);
        if works || before.has_vm(&uid) {
            continue;
        }
        let ledger = match context.ledger.entry(&uid) {
            Ok(ledger) => ledger,
            Err(error) => {
                tracing::error!(%error, "nothing is decided for this VM");
                continue;
            }
        };
        let domain = domains.iter().find(|domain| domain.uuid.to_string() == uid);
        let action = decide(&Facts {
            host: &context.host,
            boot_id: &context.boot_id,
            api: object.as_deref().map(|object| api_facts(context, object)),
            ledger: &ledger,
            domain: domain.and_then(|domain| Some(copy_of(domain.state, domain.owner.as_ref()?))),
            moving_out: context.moves.is_moving(&uid),
            shut_down_inside: memory.ends.shut_down_inside(&uid),
        });
        if matches!(action, Action::Close(..)) && before.has_arrival(&uid) {
            // The list may be older than the copy, or than its end.
            continue;
        }
        if memory.ends.is_to_confirm(&uid, &action) {
            continue;
        }
        if matches!(action, Action::Start(_)) {
            memory.ends.forget(&uid);
        }
        if action != Action::Nothing {
            tracing::debug!(vm = vm.name, ?action, "decided");
            begin(context, &memory.busy, vm, action);
        }
    }
    migration::turn(context, &memory.busy, before, domains);
}

/// Whether an object of a VM shows that an epoch was told to be closed here, or that a later one has been.
fn shows_closed(context: &Context, vm: Option<&VirtualMachine>, epoch: Epoch) -> bool {
    let reported = vm.and_then(|vm| api_facts(context, vm).reported);
    reported.is_some_and(|(shown, phase)| {
        shown > epoch.0 || (shown == epoch.0 && phase == CopyPhase::Closed)
    })
}

/// What an object of a VM says that decides about its copy here.
pub fn api_facts(context: &Context, vm: &VirtualMachine) -> ApiFacts {
    let status = vm.status.clone().unwrap_or_default();
    let own = |said: Option<Runtime>| {
        let said = said.filter(|said| {
            said.assignment.host == context.host && said.assignment.boot_id == context.boot_id
        });
        said.map(|said| (said.assignment.epoch.0, copy_phase(said.phase)))
    };
    ApiFacts {
        assignment: status.assignment,
        incoming: status.incoming,
        halt: vm.metadata.deletion_timestamp.is_some()
            || vm.spec.run_strategy == RunStrategy::Halted,
        reported: own(status.runtime),
        reported_incoming: own(status.incoming_runtime),
    }
}

fn is_busy(busy: &Mutex<BTreeSet<String>>, key: &str) -> bool {
    busy.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .contains(key)
}

/// No work is under way.
fn is_idle(busy: &Mutex<BTreeSet<String>>) -> bool {
    busy.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_empty()
}

fn begin(context: &Arc<Context>, busy: &Arc<Mutex<BTreeSet<String>>>, vm: VmRef, action: Action) {
    let context = context.clone();
    let key = vm.uid.clone();
    in_task(busy, key, async move {
        match carry_out(&context, &vm, action).await {
            Ok(Done::Changed) => context.view.changed.notify_one(),
            Ok(Done::Waits) => {}
            Err(error) => tracing::warn!(
                vm = vm.name,
                error = format!("{error:#}"),
                "tried again at the next tick"
            ),
        }
    });
}

/// Runs work for a key, unless work for it runs already.
pub fn in_task(
    busy: &Arc<Mutex<BTreeSet<String>>>,
    key: String,
    work: impl Future<Output = ()> + Send + 'static,
) {
    if !busy
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key.clone())
    {
        return;
    }
    let busy = busy.clone();
    tokio::spawn(async move {
        // Released however the work ends.
        struct Release(Arc<Mutex<BTreeSet<String>>>, String);
        impl Drop for Release {
            fn drop(&mut self) {
                self.0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&self.1);
            }
        }
        let _release = Release(busy, key);
        work.await;
    });
}

/// Volume jobs and images that the operator gave to this host.
fn storage_turn(context: &Arc<Context>, memory: &Memory) {
    storage::jobs::turn(context, &memory.busy);
    storage::fetching::turn(context, &memory.busy);
    metrics::TURNS.inc();
}
