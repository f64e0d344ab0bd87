//! The API of Zhengyun: custom resource types of group `zhengyun.io/v1alpha1`, one
//! file per kind, with user-facing field docs, CEL rules and printer columns.
//! `make crds` writes the CRDs to `charts/zhengyun/crds`.
//!
//! May not live here: reconcile logic, clients. Who writes which field is told in
//! `docs/contract.md` and enforced by `charts/zhengyun/templates/admission`.

#![forbid(unsafe_code)]
#![allow(
    clippy::duplicated_attributes,
    reason = "kube repeats printcolumn; clippy takes equal parts of two columns for a slip"
)]

pub mod kinds;
pub mod names;
mod signer;
mod watch;

pub use kinds::*;
pub use signer::signer;
pub use watch::{Anew, WATCH_SECONDS, watch_anew, watch_backoff};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Every CRD of the group, in the order in which they are installed.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    vec![
        Host::crd(),
        HostPool::crd(),
        StoragePool::crd(),
        Network::crd(),
        Image::crd(),
        Flavor::crd(),
        Department::crd(),
        CloudPolicy::crd(),
        Incident::crd(),
        BusinessSystem::crd(),
        VirtualMachine::crd(),
        Volume::crd(),
        VirtualMachineMigration::crd(),
    ]
}
