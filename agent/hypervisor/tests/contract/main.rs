//! One contract for every hypervisor: the in-memory one, and libvirt on two private hosts that the
//! test starts in namespaces of its own.

mod boot;
mod hosts;
mod libvirt;
mod moved_memory;

use std::time::{Duration, Instant};

use hypervisor::memory::MemoryFabric;
use hypervisor::{
    DomainSpec, DomainState, Error, Event, Hypervisor, MigrationTarget, Owner, StopCause,
};
use model::Epoch;
use uuid::Uuid;

/// Machines may be heavily loaded.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where a target and its memory stream are reached, and under which certificate name.
type Route<'a> = (&'a str, &'a str, Option<&'a str>);

/// Two hosts of one kind of hypervisor.
struct Pair<'a> {
    source: &'a dyn Hypervisor,
    target: &'a dyn Hypervisor,
    route: Route<'a>,
    /// The domain type that the hosts run.
    domain_type: &'a str,
    /// The bandwidth at which a migration of the test guest takes long enough to be aborted.
    slow_mebibytes: Option<u64>,
}

fn spec(pair: &Pair<'_>, number: u128, boot_id: &str, epoch: i64) -> DomainSpec {
    let uuid = Uuid::from_u128(0x5a00_0000_0000_4000_8000_0000_0000_0000 + number);
    DomainSpec {
        uuid,
        name: format!("contract-{number}"),
        cpus: 1,
        memory_kib: 64 * 1024,
        domain_type: pair.domain_type.to_owned(),
        architecture: "x86_64".to_owned(),
        cpu_model: None,
        boot: None,
        disks: vec![],
        nics: vec![],
        console_log: None,
        owner: Owner {
            vm: uuid.to_string().into(),
            namespace: "n".into(),
            name: "v".into(),
            boot_id: boot_id.into(),
            epoch: Epoch(epoch),
        },
    }
}

async fn wait<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn state(hypervisor: &dyn Hypervisor, uuid: Uuid) -> Option<DomainState> {
    hypervisor
        .list()
        .await
        .expect("list")
        .into_iter()
        .find(|domain| domain.uuid == uuid)
        .map(|domain| domain.state)
}

/// Whether a copy that arrived stands still: libvirt gives more than one reason for that.
fn waits(state: Option<DomainState>) -> bool {
    matches!(state, Some(DomainState::Paused | DomainState::Suspended))
}

async fn stopped(events: &mut tokio::sync::broadcast::Receiver<Event>, uuid: Uuid) -> StopCause {
    let next = async {
        loop {
            if let Ok(Event::Stopped(stopped, cause)) = events.recv().await
                && stopped == uuid
            {
                return cause;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next)
        .await
        .expect("a stop is told")
}

/// A started domain is there with its owner, once; destroyed it is gone, and that is told.
async fn starts_once_and_is_destroyed_any_number_of_times(pair: &Pair<'_>) {
    let spec = spec(pair, 1, "boot-1", 7);
    let mut events = pair.source.events();
    pair.source.start(&spec).await.expect("start");
    let domains = pair.source.list().await.expect("list");
    let domain = domains
        .iter()
        .find(|domain| domain.uuid == spec.uuid)
        .expect("it is active");
    assert_eq!(
        domain.owner.as_ref(),
        Some(&spec.owner),
        "the owner is kept"
    );
    assert_eq!(domain.state, DomainState::Running);
    assert_eq!(
        pair.source.start(&spec).await,
        Err(Error::Exists(spec.uuid)),
        "a second start is refused"
    );
    assert!(
        pair.source
            .stats()
            .await
            .expect("stats")
            .iter()
            .any(|stats| stats.uuid == spec.uuid)
    );
    assert_eq!(pair.source.job(spec.uuid).await, Ok(None), "no job runs");
    pair.source.dirty_rate(spec.uuid).await.expect("a rate");
    pair.source.destroy(spec.uuid).await.expect("destroy");
    assert_eq!(stopped(&mut events, spec.uuid).await, StopCause::Destroyed);
    assert_eq!(
        state(pair.source, spec.uuid).await,
        None,
        "a transient domain leaves nothing"
    );
    pair.source
        .destroy(spec.uuid)
        .await
        .expect("destroying nothing succeeds");
    assert_eq!(
        pair.source.resume(spec.uuid).await,
        Err(Error::NotFound(spec.uuid))
    );
    assert_eq!(
        pair.source.dirty_rate(spec.uuid).await,
        Err(Error::NotFound(spec.uuid))
    );
}

fn target(pair: &Pair<'_>, spec: DomainSpec) -> MigrationTarget {
    MigrationTarget {
        uri: pair.route.0.to_owned(),
        stream_uri: pair.route.1.to_owned(),
        tls_name: pair.route.2.map(str::to_owned),
        spec,
        bandwidth_mebibytes: None,
        pause_milliseconds: 300,
        storage_is_shared: true,
    }
}

/// What became of a move, and whether the domain's end here was told before.
async fn sent(
    pair: &Pair<'_>,
    uuid: Uuid,
    to: &MigrationTarget,
) -> (hypervisor::Result<hypervisor::Migrated>, bool) {
    let (job, departed) = (pair.source.migrate(uuid, to), pair.source.departed(uuid));
    tokio::pin!(job, departed);
    let mut gone = false;
    loop {
        tokio::select! {
            biased;
            _ = &mut departed, if !gone => gone = true,
            moved = &mut job => return (moved, gone),
        }
    }
}

/// A migrated domain is gone here and stands paused there, under the target's own owner.
/// Whether its end here was told early.
async fn arrives_paused_and_runs_when_it_is_resumed(pair: &Pair<'_>) -> bool {
    let (here, there) = (spec(pair, 2, "boot-1", 1), spec(pair, 2, "boot-2", 2));
    pair.source.start(&here).await.expect("start");
    let mut events = pair.source.events();
    let (moved, departed) = sent(pair, here.uuid, &target(pair, there.clone())).await;
    moved.expect("migrate");
    assert_eq!(stopped(&mut events, here.uuid).await, StopCause::Migrated);
    assert_eq!(
        state(pair.source, here.uuid).await,
        None,
        "the source is gone"
    );
    assert!(waits(state(pair.target, here.uuid).await), "the copy waits");
    let owner = pair
        .target
        .list()
        .await
        .expect("list")
        .into_iter()
        .find(|domain| domain.uuid == here.uuid)
        .and_then(|domain| domain.owner);
    assert_eq!(
        owner,
        Some(there.owner),
        "the copy belongs to the target's incarnation and epoch"
    );
    let again = pair
        .target
        .migrate(here.uuid, &target(pair, here.clone()))
        .await;
    assert!(
        matches!(again, Err(Error::Refused { .. })),
        "a copy that waits is not moved on: {again:?}"
    );
    let writes = pair.target.dirty_rate(here.uuid).await;
    assert!(
        matches!(writes, Err(Error::Refused { .. })),
        "a copy that waits writes nothing: {writes:?}"
    );
    pair.target.resume(here.uuid).await.expect("resume");
    wait("the copy to run", async || {
        state(pair.target, here.uuid).await == Some(DomainState::Running)
    })
    .await;
    pair.target.destroy(here.uuid).await.expect("destroy");
    departed
}

/// A migration that fails or is aborted leaves the source running and the target clean.
async fn stays_where_it_is_when_a_move_fails(pair: &Pair<'_>) {
    // Large enough that its copy takes ten seconds even when nearly all of it is empty: libvirt may take two of them for
    // the first answer about the job, and as many for the abort's.
    let large = |spec| DomainSpec {
        memory_kib: 4 * 1024 * 1024,
        ..spec
    };
    let here = large(spec(pair, 3, "boot-1", 1));
    pair.source.start(&here).await.expect("start");
    let nowhere = MigrationTarget {
        uri: format!("{}-nowhere", pair.route.0),
        ..target(pair, here.clone())
    };
    pair.source
        .migrate(here.uuid, &nowhere)
        .await
        .expect_err("there is no such host");
    assert_eq!(
        state(pair.source, here.uuid).await,
        Some(DomainState::Running)
    );

    let slow = MigrationTarget {
        bandwidth_mebibytes: pair.slow_mebibytes,
        ..target(pair, large(spec(pair, 3, "boot-2", 2)))
    };
    let (moved, ()) = tokio::join!(sent(pair, here.uuid, &slow), async {
        wait("the job to run", async || {
            matches!(pair.source.job(here.uuid).await, Ok(Some(_)))
        })
        .await;
        pair.source.abort_job(here.uuid).await.expect("abort");
    });
    assert_eq!(moved, (Err(Error::Aborted), false));
    wait("the guest to run on", async || {
        state(pair.source, here.uuid).await == Some(DomainState::Running)
    })
    .await;
    wait("the target to be clean", async || {
        state(pair.target, here.uuid).await.is_none()
    })
    .await;
    pair.source
        .abort_job(here.uuid)
        .await
        .expect("aborting nothing succeeds");
    pair.source.destroy(here.uuid).await.expect("destroy");
}

/// Aborts that are tried, at moments spread from the beginning of a move to its end.
const ABORTS: u32 = 12;

/// A move that is aborted ends, whichever of its moments the abort meets: here and not there, or there and
/// not here. Whether the end of one that nobody aborted was told early.
async fn ends_whenever_it_is_aborted(pair: &Pair<'_>) -> bool {
    let (whole, early) = undisturbed(pair).await;
    for attempt in 0..ABORTS {
        let (here, there) = (spec(pair, 4, "boot-1", 1), spec(pair, 4, "boot-2", 2));
        pair.source.start(&here).await.expect("start");
        let to = target(pair, there);
        let both = async {
            tokio::join!(sent(pair, here.uuid, &to), async {
                job_runs(pair, here.uuid).await;
                tokio::time::sleep(whole * attempt / ABORTS).await;
                // The domain may be gone by now: then the move was quicker.
                let said = pair.source.abort_job(here.uuid).await;
                assert!(
                    matches!(said, Ok(()) | Err(Error::NotFound(_))),
                    "abort {attempt}: {said:?}"
                );
            })
        };
        let ((moved, departed), ()) = tokio::time::timeout(PATIENCE, both)
            .await
            .unwrap_or_else(|_| panic!("the move with abort {attempt} does not end"));
        // To tell it is an effort; to tell it of a guest that stayed would be a lie.
        assert!(!departed || moved.is_ok(), "abort {attempt}");
        if let Err(error) = &moved {
            assert_eq!(*error, Error::Aborted, "abort {attempt}");
        }
        wait("one copy to be left", async || {
            let source = state(pair.source, here.uuid).await;
            let target = state(pair.target, here.uuid).await;
            match moved {
                Ok(_) => source.is_none() && waits(target),
                Err(_) => source == Some(DomainState::Running) && target.is_none(),
            }
        })
        .await;
        for hypervisor in [pair.source, pair.target] {
            hypervisor.destroy(here.uuid).await.expect("destroy");
        }
    }
    early
}

async fn job_runs(pair: &Pair<'_>, uuid: Uuid) {
    wait("the job to run", async || {
        !matches!(pair.source.job(uuid).await, Ok(None))
    })
    .await;
}

/// How long the job of a move takes that nobody aborts, and whether the guest's end here was told before.
async fn undisturbed(pair: &Pair<'_>) -> (Duration, bool) {
    let (here, there) = (spec(pair, 4, "boot-1", 1), spec(pair, 4, "boot-2", 2));
    pair.source.start(&here).await.expect("start");
    let to = target(pair, there);
    let ((moved, departed), begin) = tokio::join!(sent(pair, here.uuid, &to), async {
        job_runs(pair, here.uuid).await;
        Instant::now()
    });
    moved.expect("a move that nobody aborts");
    let took = begin.elapsed();
    pair.target.destroy(here.uuid).await.expect("destroy");
    (took, departed)
}

/// What a guest that writes all over its memory writes at least, MiB per second: a quarter of its memory.
const WRITES_MIN: u64 = 16;

/// A guest that writes all over its memory is told from one that rests. `writing` makes such a guest.
async fn tells_who_writes_from_who_rests(
    pair: &Pair<'_>,
    writing: impl Fn(DomainSpec) -> DomainSpec,
) {
    let (rests, writes) = (spec(pair, 8, "boot-1", 1), spec(pair, 10, "boot-1", 1));
    let writes = writing(writes);
    let rate = async |spec: &DomainSpec| {
        let rate = pair.source.dirty_rate(spec.uuid).await;
        rate.expect("a rate")
    };
    for spec in [&rests, &writes] {
        pair.source.start(spec).await.expect("start");
    }
    // Firmware writes as well.
    wait("the guest to write", async || {
        rate(&writes).await >= WRITES_MIN
    })
    .await;
    wait("the other one to rest", async || {
        rate(&rests).await < WRITES_MIN
    })
    .await;
    assert!(
        rate(&writes).await >= WRITES_MIN,
        "it writes all the time, beside others"
    );
    for spec in [&rests, &writes] {
        pair.source.destroy(spec.uuid).await.expect("destroy");
    }
}

async fn contract(pair: &Pair<'_>, writing: impl Fn(DomainSpec) -> DomainSpec) {
    tells_who_writes_from_who_rests(pair, writing).await;
    starts_once_and_is_destroyed_any_number_of_times(pair).await;
    let first = arrives_paused_and_runs_when_it_is_resumed(pair).await;
    stays_where_it_is_when_a_move_fails(pair).await;
    let second = ends_whenever_it_is_aborted(pair).await;
    assert!(
        first || second,
        "that a guest is gone is told before all is cleared up"
    );
}

#[tokio::test]
async fn the_memory_hypervisor_keeps_the_contract() {
    let fabric = MemoryFabric::default();
    let (source, target) = (fabric.host("a"), fabric.host("b"));
    source.set_copy_step(Duration::from_millis(20));
    let pair = Pair {
        source: &source,
        target: &target,
        route: ("memory:b", "", None),
        domain_type: "memory",
        slow_mebibytes: None,
    };
    contract(&pair, |spec| {
        source.set_dirty_rate(spec.uuid, 60);
        spec
    })
    .await;
    source.add_stray(Uuid::from_u128(9), "stray");
    assert!(
        source
            .list()
            .await
            .expect("list")
            .iter()
            .any(|domain| domain.owner.is_none()),
        "strays are listed"
    );
}
