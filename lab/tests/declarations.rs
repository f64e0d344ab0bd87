//! The declarations in `manifests/` against a real API server: those of the lab are accepted, twice,
//! and those of a site and the examples pass as they lie in the repository. The server lets in who is
//! known and has a right, and writes down who wrote what.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Config, ResourceExt};
use lab::ControlPlane;
use lab::declarations::{self, Values};

/// Makes the departments' namespaces, as the operator does.
async fn make_namespaces(client: &Client) {
    for name in ["egov-center", "tourism", "trade-union"] {
        let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let api: Api<Namespace> = Api::all(client.clone());
        api.patch(name, &PatchParams::apply("test"), &Patch::Apply(namespace))
            .await
            .unwrap();
    }
}

fn lab_values() -> Values {
    let digest = "ab".repeat(32);
    let image = format!(
        r#"{{"hash": "0123456789abcdef", "kernel": {{"file": "vmlinux", "sha256": "{digest}"}},
            "initrd": {{"file": "initrd.cpio", "sha256": "{digest}"}}, "disk": {{"file": "system.qcow2", "sha256": "{digest}"}},
            "disk_format": "Qcow2", "minimum_size": "16Mi", "kernel_command_line": "quiet"}}"#
    );
    let mut values = lab::guest::values(&serde_json::from_str(&image).unwrap());
    values.insert("edge".into(), "10.100.1.254".into());
    values.insert(
        "images".into(),
        "http://10.100.0.254:8100/0123456789abcdef".into(),
    );
    values
}

/// A user without rights is refused for want of them, and a stranger because it is none.
async fn nobody_gets_in(admin: &Config) {
    let code = async |config: Config| {
        let systems: Api<api::BusinessSystem> = Api::all(Client::try_from(config).unwrap());
        match systems.list(&Default::default()).await {
            Err(kube::Error::Api(status)) => status.code,
            answer => panic!("no refusal: {answer:?}"),
        }
    };
    let mut unknown = admin.clone();
    unknown.auth_info.impersonate = Some("somebody".to_owned());
    assert_eq!(code(unknown).await, 403, "RBAC is off");
    let mut stranger = Config::new(admin.cluster_url.clone());
    stranger.root_cert = admin.root_cert.clone();
    stranger.tls_server_name = admin.tls_server_name.clone();
    assert_eq!(code(stranger).await, 401, "anonymous access is on");
}

/// The audit log tells who wrote an object of ours, and of people's words (`said`) what was sent.
fn is_written_down(
    plane: &ControlPlane,
    resource: &str,
    name: &str,
    verb: &str,
    said: Option<&str>,
) {
    let told = || -> anyhow::Result<bool> {
        let log = std::fs::read_to_string(plane.audit_log())?;
        let of_write = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            let object = &event["objectRef"];
            event["verb"] == verb
                && object["apiGroup"] == "zhengyun.io"
                && object["resource"] == resource
                && object["name"] == name
                && event["user"]["username"].is_string()
                && said.is_none_or(|said| event["requestObject"].to_string().contains(said))
        };
        Ok(log.lines().any(of_write))
    };
    let what = format!("the audit log to tell: {verb} {resource} {name}");
    lab::process::wait_for(&what, std::time::Duration::from_secs(10), told).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_declarations_are_accepted() {
    let plane = ControlPlane::start_private("declare").await.unwrap();
    let config = plane.admin_config().await.unwrap();
    let client = Client::try_from(config.clone()).unwrap();
    make_namespaces(&client).await;

    let folder = declarations::folder();
    let objects = declarations::for_lab(&folder, &lab_values()).unwrap();
    for round in ["first", "again"] {
        declarations::apply(&client, &objects)
            .await
            .unwrap_or_else(|error| panic!("{round}: {error:#}"));
    }
    let systems: Api<api::BusinessSystem> = Api::all(client.clone());
    let mut names: Vec<_> = systems
        .list(&Default::default())
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    names.sort();
    assert_eq!(names, ["oa", "tourism", "trade-union", "website-group"]);
    let oa = Api::<api::BusinessSystem>::namespaced(client.clone(), "egov-center")
        .get("oa")
        .await
        .unwrap();
    assert_eq!(oa.spec.impact.len(), 4);

    // A site applies the same systems without the overlay, on a control plane of its own.
    for name in names {
        let namespace = if name == "oa" || name == "website-group" {
            "egov-center"
        } else {
            name.as_str()
        };
        Api::<api::BusinessSystem>::namespaced(client.clone(), namespace)
            .delete(&name, &Default::default())
            .await
            .unwrap();
    }
    let mut site = Vec::new();
    for part in ["base", "site", "systems", "examples"] {
        site.extend(declarations::read_folder(&folder.join(part), None).unwrap());
    }
    declarations::apply(&client, &site)
        .await
        .unwrap_or_else(|error| panic!("site: {error:#}"));
    nobody_gets_in(&config).await;
    is_written_down(&plane, "businesssystems", "oa", "patch", None);
    is_written_down(&plane, "businesssystems", "oa", "delete", None);
    let armed = serde_json::json!({"at": "2026-01-01T00:00:00Z", "by": "admin", "reason": "the switch is back"});
    let word = serde_json::json!({"spec": {"failover": {"armed": armed}}});
    Api::<api::CloudPolicy>::all(client)
        .patch("default", &Default::default(), &Patch::Merge(&word))
        .await
        .unwrap();
    let said = Some("the switch is back");
    is_written_down(&plane, "cloudpolicies", "default", "patch", said);
    plane.stop().await.unwrap();
}
