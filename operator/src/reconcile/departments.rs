//! Departments get a namespace and their role in it; hosts a namespace and their roles.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::names::{
    HOST_USER_PREFIX, LABEL_DEPARTMENT, OPERATOR_USER, SYSTEM_NAMESPACE, host_namespace,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use model::Bytes;
use serde_json::json;

use crate::conditions::condition;
use crate::runtime::Context;
use crate::writer::logged;

fn role(name: &str) -> RoleRef {
    RoleRef {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: "ClusterRole".to_owned(),
        name: name.to_owned(),
    }
}

fn subject(kind: &str, name: &str) -> Subject {
    Subject {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: None,
    }
}

fn binding(
    namespace: &str,
    name: &str,
    role_name: &str,
    subject: Subject,
    owner: Option<&OwnerReference>,
) -> RoleBinding {
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            owner_references: owner.map(|owner| vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        role_ref: role(role_name),
        subjects: Some(vec![subject]),
    }
}

fn namespace(
    name: &str,
    labels: BTreeMap<String, String>,
    owner: Option<&OwnerReference>,
) -> Namespace {
    Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            owner_references: owner.map(|owner| vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

/// One turn.
pub async fn turn(context: &Arc<Context>) {
    for department in context.stores.departments.state() {
        one_department(context, &department).await;
    }
    for host in context.stores.hosts.state() {
        if !host.annotations().contains_key(PREPARED) {
            one_host(context, &host).await;
        }
    }
}

/// Annotation on a host whose namespace and roles stand.
const PREPARED: &str = "zhengyun.io/access-prepared";

async fn one_department(context: &Context, department: &api::Department) {
    let name = department.name_any();
    let status = department.status.clone().unwrap_or_default();
    if status.namespace.is_empty() {
        let labels = BTreeMap::from([(LABEL_DEPARTMENT.to_owned(), name.clone())]);
        // No owner: deleting a department erases nobody's data.
        if let Err(error) = context.writer.create(&namespace(&name, labels, None)).await {
            return logged("namespace", &name, Err(error));
        }
        let group = subject("Group", &format!("zhengyun:department:{name}"));
        for object in [
            binding(
                &name,
                "zhengyun-department",
                "zhengyun-department",
                group,
                None,
            ),
            binding(
                &name,
                "zhengyun-operator-secrets",
                "zhengyun-secrets",
                subject("User", OPERATOR_USER),
                None,
            ),
        ] {
            if let Err(error) = context.writer.create(&object).await {
                return logged("role binding", &name, Err(error));
            }
        }
    }
    let vms: Vec<_> = context
        .stores
        .vms
        .state()
        .into_iter()
        .filter(|vm| vm.namespace().as_deref() == Some(name.as_str()))
        .collect();
    let volumes = context.stores.volumes.state();
    let memory: Bytes = vms
        .iter()
        .filter_map(|vm| Bytes::parse(&vm.spec.memory).ok())
        .sum();
    let volumes: Vec<_> = volumes
        .iter()
        .filter(|volume| volume.namespace().as_deref() == Some(name.as_str()))
        .collect();
    let storage: Bytes = volumes
        .iter()
        .filter_map(|volume| Bytes::parse(&volume.spec.size).ok())
        .sum();
    let cpu = vms.iter().map(|vm| vm.spec.cpu);
    let cpu = cpu.fold(0, i32::saturating_add);
    let wanted = json!({
        "namespace": name, "virtualMachines": vms.len(), "volumes": volumes.len(), "cpuUsed": cpu,
        "memoryUsedMebibytes": memory.0 >> 20, "storageUsedBytes": i64::try_from(storage.0).unwrap_or(i64::MAX),
        "conditions": condition(&status.conditions, "Ready", true, "Prepared", "namespace and roles stand", department.metadata.generation)});
    if json!(status) != wanted && context.writer.settled(department) {
        logged(
            "department",
            &name,
            context.writer.swap_status(department, wanted).await,
        );
    }
}

async fn one_host(context: &Context, host: &api::Host) {
    let name = host.name_any();
    let owner = host.controller_owner_ref(&());
    let (own, user) = (
        host_namespace(&name),
        subject("User", &format!("{HOST_USER_PREFIX}{name}")),
    );
    let prepare = async {
        context
            .writer
            .create_owned(&namespace(&own, BTreeMap::new(), owner.as_ref()))
            .await?;
        context
            .writer
            .create_owned(&binding(
                &own,
                "zhengyun-operator-secrets",
                "zhengyun-secrets",
                subject("User", OPERATOR_USER),
                owner.as_ref(),
            ))
            .await?;
        context
            .writer
            .create_owned(&binding(
                &own,
                "zhengyun-host-secrets",
                "zhengyun-host-secrets",
                user.clone(),
                owner.as_ref(),
            ))
            .await?;
        context
            .writer
            .create_owned(&binding(
                SYSTEM_NAMESPACE,
                &format!("zhengyun-host-lease-{name}"),
                "zhengyun-host-lease",
                user.clone(),
                owner.as_ref(),
            ))
            .await?;
        let cluster = ClusterRoleBinding {
            metadata: ObjectMeta {
                name: Some(format!("zhengyun-host-{name}")),
                owner_references: owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            role_ref: role("zhengyun-host"),
            subjects: Some(vec![user.clone()]),
        };
        context.writer.create_owned(&cluster).await?;
        context
            .writer
            .metadata(host, json!({"annotations": {PREPARED: "true"}}))
            .await
    };
    logged("access of host", &name, prepare.await);
}
