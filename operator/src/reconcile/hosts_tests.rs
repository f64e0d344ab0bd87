//! The finalizer of hosts against an API server in memory, whose lists differ from the caches.

use std::sync::Arc;

use api::CloudPolicySpec;
use axum::http::Method;
use serde_json::{Value, json};

use super::*;
use crate::context_in_memory::{Site, host, vm};

const H1: &str = "/hosts/h1";

fn changed(change: impl FnOnce(&mut Host)) -> Arc<Host> {
    let mut host = Host::clone(&host("h1", Value::Null, Value::Null));
    change(&mut host);
    Arc::new(host)
}

fn deleted() -> Arc<Host> {
    changed(|host| {
        let now = serde_json::from_value(json!("2026-01-01T00:00:00Z"));
        host.metadata.deletion_timestamp = Some(now.expect("a time"));
    })
}

fn list(kind: &str, items: &[Value]) -> Value {
    json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": format!("{kind}List"), "metadata": {}, "items": items})
}

/// A site whose caches hold this h1 and no VM, and whose API server holds these VMs and volumes.
async fn site(h1: Arc<Host>, vms: &[Value], volumes: &[Value]) -> Site {
    let site = Site::new(CloudPolicySpec::default(), vec![h1], vec![], vec![]).await;
    site.holds("virtualmachines", "", list("VirtualMachine", vms));
    site.holds("volumes", "", list("Volume", volumes));
    site
}

/// The finalizers that h1 was left with by a turn; none: it was not written.
async fn left(site: &Site) -> Option<Value> {
    turn(&site.context).await;
    let written = site.written(&Method::PATCH, H1);
    let last = written.last()?;
    Some(last["metadata"]["finalizers"].clone())
}

async fn held(site: &Site) -> Option<Held<'_>> {
    let held = hold(&site.context, &"h1".into()).await;
    held.expect("the host is read")
}

#[tokio::test]
async fn a_host_gets_its_finalizer_before_anything_may_be_assigned_to_it() {
    let bare = site(changed(|host| host.metadata.finalizers = None), &[], &[]).await;
    assert!(held(&bare).await.is_none());
    assert_eq!(left(&bare).await, Some(json!([FINALIZER])));
    let kept = site(changed(|_| {}), &[], &[]).await;
    assert!(held(&kept).await.is_some());
    assert_eq!(left(&kept).await, None);
}

#[tokio::test]
async fn a_host_that_is_deleted_goes_when_nothing_is_assigned_to_it() {
    let other = json!({"spec": {"pool": "p", "size": "1Gi"}, "metadata": {"name": "v"}});
    let site = site(deleted(), &[], &[other]).await;
    assert!(held(&site).await.is_none(), "nothing new is written");
    assert_eq!(left(&site).await, Some(json!([])));
}

/// The caches show nothing yet: the leader before wrote it and died.
#[tokio::test]
async fn a_host_stays_under_what_the_api_server_holds() {
    let right = json!({"host": "h1", "bootId": "b", "epoch": 1});
    let machine = |status: Value| {
        let mut machine = json!(*vm("web", "Normal", "h9", json!({})));
        machine["status"] = status;
        machine
    };
    let volume = |report: Option<&str>| {
        let mut job = json!({"operation": "Create", "sizeBytes": 1});
        crate::merge::add(&mut job, right.clone());
        let reported = report.map(|phase| json!({"assignment": right, "phase": phase}));
        json!({"metadata": {"name": "v", "namespace": "oa"}, "spec": {"pool": "p", "size": "1Gi"},
            "status": {"job": job, "reported": reported}})
    };
    for vms in [json!({"assignment": right}), json!({"incoming": right})] {
        let site = site(deleted(), &[machine(vms.clone())], &[]).await;
        assert_eq!(left(&site).await, None, "{vms}");
    }
    for (report, goes) in [
        (None, false),
        (Some("Working"), false),
        (Some("Done"), true),
        (Some("Failed"), true),
        (Some("Closed"), true),
    ] {
        let site = site(deleted(), &[], &[volume(report)]).await;
        assert_eq!(left(&site).await.is_some(), goes, "{report:?}");
    }
}

#[tokio::test]
async fn a_host_stays_while_its_storage_is_cut_off() {
    let cut = json!({"bootId": "b", "number": 1, "pools": [], "since": "2026-01-01T00:00:00Z", "by": "a"});
    let mut host = Host::clone(&deleted());
    let status = host.status.as_mut().expect("a status");
    status.storage_cut = Some(serde_json::from_value(cut).expect("an order"));
    let site = site(Arc::new(host), &[], &[]).await;
    assert_eq!(left(&site).await, None);
}

#[tokio::test]
async fn a_host_stays_while_something_is_written_that_names_it() {
    let site = site(deleted(), &[], &[]).await;
    site.holds("hosts", "h1", json!(*changed(|_| {})));
    let before = held(&site).await.expect("it was not deleted then");
    site.holds("hosts", "h1", json!(*deleted()));
    assert_eq!(left(&site).await, None);
    drop(before);
    assert_eq!(left(&site).await, Some(json!([])));
}

#[tokio::test]
async fn a_host_stays_while_a_write_that_names_it_may_still_arrive() {
    let mut site = site(deleted(), &[], &[]).await;
    site.holds("hosts", "h1", json!(*changed(|_| {})));
    site.refuse(&Method::PATCH, "/web/status", (504, "Timeout"));
    let machine = vm("web", "Normal", "h9", json!({}));
    let before = held(&site).await.expect("it was not deleted then");
    let write = site.context.writer.swap_status(machine.as_ref(), json!({}));
    before.write(write).await.expect_err("nobody knows");
    site.holds("hosts", "h1", json!(*deleted()));
    assert_eq!(left(&site).await, None);
    site.context.keeper.known().in_doubt_since = Instant::now().checked_sub(ARRIVES_WITHIN);
    assert_eq!(left(&site).await, Some(json!([])));
}

#[tokio::test]
async fn an_operator_that_has_just_begun_to_lead_lets_no_host_go() {
    let site = site(deleted(), &[], &[]).await;
    site.context.keeper.forget();
    assert_eq!(left(&site).await, None);
}
