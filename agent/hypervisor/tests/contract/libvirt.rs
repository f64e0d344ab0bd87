//! libvirt keeps the contract, and what only real hosts can show.

use std::path::Path;

use hypervisor::libvirt::LibvirtHypervisor;
use hypervisor::{DiskSpec, DomainSpec, DomainState, Hypervisor};
use uuid::Uuid;

use super::boot::{WRITES_ALL_OVER, boot_disk};
use super::hosts::{self, Hosts, TO_SECOND};
use super::{Pair, Route, contract, spec, state, wait};

impl<'a> Pair<'a> {
    /// Two private hosts.
    pub fn of_libvirt(
        source: &'a LibvirtHypervisor,
        target: &'a LibvirtHypervisor,
        route: Route<'a>,
    ) -> Self {
        Self {
            source,
            target,
            route,
            domain_type: "qemu",
            slow_mebibytes: Some(1),
        }
    }
}

/// Two private hosts whose libvirt answers.
pub async fn libvirt_hosts() -> (Hosts, LibvirtHypervisor, LibvirtHypervisor) {
    assert!(
        hosts::available(),
        "needs root, libvirtd and QEMU; run scripts/setup.sh as root"
    );
    let hosts = Hosts::start().expect("two hosts");
    let (first, second) = (hosts.connect(1), hosts.connect(2));
    for hypervisor in [&first, &second] {
        wait("libvirtd to answer", async || {
            hypervisor.node().await.is_ok()
        })
        .await;
    }
    (hosts, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn libvirt_keeps_the_contract() {
    let (hosts, source, target) = libvirt_hosts().await;
    assert_eq!(source.node().await.expect("node").domain_type, "qemu");
    let pair = Pair::of_libvirt(&source, &target, TO_SECOND);
    let folder = tempfile::tempdir().expect("a folder");
    let disk = boot_disk(&folder.path().join("writes.raw"), WRITES_ALL_OVER);
    contract(&pair, |spec| DomainSpec {
        disks: vec![disk.clone()],
        ..spec
    })
    .await;

    // libvirtd's own end stops no domain, and the connection heals.
    let survivor = spec(&pair, 4, "boot-1", 1);
    source.start(&survivor).await.expect("start");
    hosts.restart_libvirtd(1).expect("restart");
    wait("the connection to heal", async || {
        state_or_none(&source, survivor.uuid).await == Some(DomainState::Running)
    })
    .await;
    source.destroy(survivor.uuid).await.expect("destroy");

    // What an administrator has defined is in nobody's way while it does not run.
    let defined = spec(&pair, 7, "boot-1", 1);
    source.start(&defined).await.expect("start");
    hosts.define(1, &defined.uuid.to_string()).expect("defined");
    source.destroy(defined.uuid).await.expect("destroy");
    assert_eq!(state(&source, defined.uuid).await, None, "it is not active");
    let anew = spec(&pair, 7, "boot-1", 2);
    source.start(&anew).await.expect("a start anew");
    let domains = source.list().await.expect("list");
    let mut owners = domains.iter().map(|domain| domain.owner.as_ref());
    assert!(
        owners.any(|owner| owner == Some(&anew.owner)),
        "{domains:?}"
    );
    source.destroy(anew.uuid).await.expect("destroy");

    a_disk_that_another_process_writes_is_refused(&pair, &hosts.disk().expect("a disk")).await;

    // A domain that somebody else made is a stray.
    hosts.make_stray(1).expect("stray");
    let domains = source.list().await.expect("list");
    assert!(
        domains
            .iter()
            .any(|domain| domain.name == "stray" && domain.owner.is_none()),
        "{domains:?}"
    );
}

/// QEMU's image lock, the last line of defence where the pool carries locks: one plain file, two domains, on one
/// host and on two. libvirt and QEMU are left to their defaults: locking is on.
async fn a_disk_that_another_process_writes_is_refused(pair: &Pair<'_>, file: &Path) {
    let with_disk = |number| {
        let mut spec = spec(pair, number, "boot-1", 1);
        spec.disks.push(DiskSpec {
            file: file.to_owned(),
            format: "raw",
            serial: "shared".to_owned(),
            read_only: false,
        });
        spec
    };
    let (first, second) = (with_disk(5), with_disk(6));
    pair.source.start(&first).await.expect("the first writer");
    for host in [pair.source, pair.target] {
        let refused = host.start(&second).await;
        let refused = refused.expect_err("a second writer of one disk started");
        let message = refused.to_string();
        assert!(
            hypervisor::tells_of_image_lock(&message),
            "the agent knows the refusal by QEMU's words, and these are others: {message}"
        );
        assert_eq!(
            state(pair.source, first.uuid).await,
            Some(DomainState::Running),
            "the first is not disturbed"
        );
        assert_eq!(state(host, second.uuid).await, None);
    }

    let stopped = pair.source.destroy(first.uuid).await;
    stopped.expect("the first writer ends");
    let begun = pair.target.start(&second).await;
    begun.expect("with its end the disk is free");
    pair.target.destroy(second.uuid).await.expect("destroy");
}

async fn state_or_none(hypervisor: &dyn Hypervisor, uuid: Uuid) -> Option<DomainState> {
    let domains = hypervisor.list().await.ok()?;
    domains
        .into_iter()
        .find(|domain| domain.uuid == uuid)
        .map(|domain| domain.state)
}
