//! A private control plane with our API installed, and writes to it under any identity.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config};
use serde::Deserialize;
use serde_json::Value;

use crate::cases::{STANDING, standing_statuses, standing_words};

/// Who writes: a user name and groups, impersonated by the administrator.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// User name.
    pub user: &'static str,
    /// Groups.
    pub groups: &'static [&'static str],
}

/// The operator.
pub const OPERATOR: Identity = Identity {
    user: "zhengyun:operator",
    groups: &[],
};
/// The agent of host h1.
pub const AGENT_H1: Identity = Identity {
    user: "zhengyun:host:h1",
    groups: &["zhengyun:hosts"],
};
/// The agent of host h2.
pub const AGENT_H2: Identity = Identity {
    user: "zhengyun:host:h2",
    groups: &["zhengyun:hosts"],
};
/// A user of department `oa-office`.
pub const DEPARTMENT_USER: Identity = Identity {
    user: "dept-user",
    groups: &["zhengyun:department:oa-office", "zhengyun:departments"],
};
/// A system administrator of the site.
pub const SYSTEM_ADMINISTRATOR: Identity = Identity {
    user: "ops",
    groups: &["zhengyun:system-administrators"],
};
/// Who is on call.
pub const ON_CALL: Identity = Identity {
    user: "li",
    groups: &["zhengyun:on-call"],
};
/// The cluster's administrator.
pub const CLUSTER_ADMINISTRATOR: Identity = Identity {
    user: "admin",
    groups: &["system:masters"],
};

/// One write.
#[derive(Clone, Debug)]
pub enum Write {
    /// Merge patch of the object.
    Patch(Value),
    /// Merge patch of its status.
    PatchStatus(Value),
    /// Creation of the object with this body.
    Create(Value),
    /// Deletion.
    Delete,
}

/// Kind, namespace and name of the written object.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Kind of our group, or `Lease`, `RoleBinding`, `Namespace`.
    pub kind: &'static str,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: &'static str,
    /// Name.
    pub name: &'static str,
}

impl Target {
    /// An object in a namespace.
    pub const fn of(kind: &'static str, namespace: &'static str, name: &'static str) -> Self {
        Self {
            kind,
            namespace,
            name,
        }
    }

    /// An object of the whole site.
    pub const fn of_site(kind: &'static str, name: &'static str) -> Self {
        Self::of(kind, "", name)
    }
}

/// The plurals of our kinds. Made once: a CRD takes milliseconds, and tests write thousands of times.
static PLURALS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let names = api::all_crds().into_iter().map(|crd| crd.spec.names);
    names.map(|names| (names.kind, names.plural)).collect()
});

/// The resource of a kind.
pub fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "Lease" => ("coordination.k8s.io", "v1"),
        "RoleBinding" => ("rbac.authorization.k8s.io", "v1"),
        "Namespace" => ("", "v1"),
        _ => (api::names::GROUP, "v1alpha1"),
    };
    let plural = match kind {
        "Lease" => "leases".to_owned(),
        "RoleBinding" => "rolebindings".to_owned(),
        "Namespace" => "namespaces".to_owned(),
        kind => PLURALS
            .get(kind)
            .cloned()
            .unwrap_or_else(|| kind.to_lowercase()),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
}

/// A client that acts as somebody else.
pub fn client_as(config: &Config, identity: Identity) -> Result<Client> {
    let mut config = config.clone();
    config.auth_info.impersonate = Some(identity.user.to_owned());
    config.auth_info.impersonate_groups = Some(
        identity
            .groups
            .iter()
            .map(|group| (*group).to_owned())
            .collect(),
    );
    Client::try_from(config).context("client with impersonation")
}

/// The API of a target for a client.
pub fn api_of(client: Client, target: Target) -> Api<DynamicObject> {
    let resource = resource(target.kind);
    if target.namespace.is_empty() {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, target.namespace, &resource)
    }
}

/// Carries out a write; with `dry_run` the server judges it and changes nothing.
///
/// # Errors
/// What the API server answered.
pub async fn write(
    client: Client,
    target: Target,
    write: &Write,
    dry_run: bool,
) -> Result<(), kube::Error> {
    let api = api_of(client, target);
    let patch_params = PatchParams {
        dry_run,
        ..PatchParams::default()
    };
    match write {
        Write::Patch(body) => {
            api.patch(target.name, &patch_params, &Patch::Merge(body))
                .await?;
        }
        Write::PatchStatus(body) => {
            api.patch_status(target.name, &patch_params, &Patch::Merge(body))
                .await?;
        }
        Write::Create(body) => {
            let mut object = DynamicObject::new(target.name, &resource(target.kind));
            object.data = body.clone();
            if !target.namespace.is_empty() {
                object.metadata.namespace = Some(target.namespace.to_owned());
            }
            api.create(
                &PostParams {
                    dry_run,
                    ..PostParams::default()
                },
                &object,
            )
            .await?;
        }
        Write::Delete => {
            let params = if dry_run {
                DeleteParams::default().dry_run()
            } else {
                DeleteParams::default()
            };
            api.delete(target.name, &params).await?;
        }
    }
    Ok(())
}

/// Creates an object from YAML as it would be applied by a person.
///
/// # Errors
/// What the API server answered, or that the YAML is none.
pub async fn create_yaml(client: Client, yaml: &str, dry_run: bool) -> Result<()> {
    let value: Value = serde_yaml::from_str(yaml).context("manifest")?;
    let kind = value["kind"].as_str().context("manifest without kind")?;
    let name = value["metadata"]["name"]
        .as_str()
        .context("manifest without name")?
        .to_owned();
    let namespace = value["metadata"]["namespace"].as_str();
    let resource = resource(kind);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let object: DynamicObject = serde_json::from_value(value)?;
    if object.types.is_none() {
        bail!("manifest {name} has no apiVersion and kind");
    }
    api.create(
        &PostParams {
            dry_run,
            ..PostParams::default()
        },
        &object,
    )
    .await?;
    Ok(())
}

/// How long any condition of these tests may take; machines may be heavily loaded.
const PATIENCE: Duration = Duration::from_secs(120);

/// A control plane with our API installed. With `ZHENGYUN_TEST_KUBECONFIG` an existing one is
/// used, whose objects of our kinds the tests then overwrite.
pub struct Server {
    /// The administrator's configuration.
    pub config: Config,
    /// The administrator's client.
    pub client: Client,
    plane: Option<lab::ControlPlane>,
}

impl Server {
    /// Starts a control plane and installs CRDs, roles and policies from the chart.
    ///
    /// # Errors
    /// What did not start, and where its log is.
    pub async fn start(name: &str) -> Result<Self> {
        let (config, plane) = match std::env::var_os("ZHENGYUN_TEST_KUBECONFIG") {
            Some(path) => {
                let kubeconfig = kube::config::Kubeconfig::read_from(&path)?;
                (
                    Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?,
                    None,
                )
            }
            None => {
                let plane = lab::ControlPlane::start_private(name).await?;
                (plane.admin_config().await?, Some(plane))
            }
        };
        let client = Client::try_from(config.clone())?;
        lab::install_api(client.clone()).await?;
        Ok(Self {
            config,
            client,
            plane,
        })
    }

    /// Waits until a condition holds.
    ///
    /// # Errors
    /// The condition's own error, or that it did not come in time.
    pub async fn wait(
        &self,
        what: &str,
        mut condition: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let begin = std::time::Instant::now();
        while !condition().await? {
            if begin.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for {what}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Applies the standing objects, their statuses and people's words, and waits until the policies judge.
    ///
    /// # Errors
    /// Names the object that was not accepted.
    pub async fn set_standing_objects(&self) -> Result<()> {
        for document in serde_yaml::Deserializer::from_str(STANDING) {
            let value = Value::deserialize(document)?;
            let object: DynamicObject = serde_json::from_value(value)?;
            let name = object.metadata.name.clone().unwrap_or_default();
            apply(self.client.clone(), &object)
                .await
                .with_context(|| format!("standing object {name}"))?;
        }
        self.wait("the policies to be in force", async || {
            let probe = Target { kind: "Host", namespace: "", name: "h1" };
            let status = Write::PatchStatus(serde_json::json!({"status": {"power": "On"}}));
            let refused = write(self.client.clone(), probe, &status, true).await;
            Ok(matches!(refused, Err(kube::Error::Api(status)) if status.message.contains("may change spec only")))
        })
        .await?;
        for (identity, target, status) in standing_statuses() {
            let body = Write::PatchStatus(serde_json::json!({ "status": status }));
            write(client_as(&self.config, identity)?, target, &body, false)
                .await
                .with_context(|| format!("status of {} {}", target.kind, target.name))?;
        }
        for (identity, target, spec) in standing_words() {
            let body = Write::Patch(serde_json::json!({ "spec": spec }));
            write(client_as(&self.config, identity)?, target, &body, false)
                .await
                .with_context(|| format!("spec of {} {}", target.kind, target.name))?;
        }
        Ok(())
    }

    /// Names of our admission policies, without the group's suffix.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn policy_names(&self) -> Result<Vec<String>> {
        let policies: Api<k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy> =
            Api::all(self.client.clone());
        let names = policies
            .list(&kube::api::ListParams::default())
            .await?
            .items
            .into_iter();
        Ok(names
            .filter_map(|policy| {
                policy
                    .metadata
                    .name?
                    .strip_suffix(".zhengyun.io")
                    .map(str::to_owned)
            })
            .collect())
    }

    /// Stops the control plane, if it is ours.
    ///
    /// # Errors
    /// What did not stop.
    pub async fn stop(self) -> Result<()> {
        match self.plane {
            Some(plane) => plane.stop().await,
            None => Ok(()),
        }
    }
}

/// Server-side apply of any object.
async fn apply(client: Client, object: &DynamicObject) -> Result<()> {
    let types = object.types.clone().context("object without kind")?;
    let resource = match types.kind.as_str() {
        "ClusterRoleBinding" => ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding"),
            "clusterrolebindings",
        ),
        kind => resource(kind),
    };
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let name = object
        .metadata
        .name
        .clone()
        .context("object without name")?;
    api.patch(
        &name,
        &PatchParams::apply("api-tests").force(),
        &Patch::Apply(object),
    )
    .await?;
    Ok(())
}
