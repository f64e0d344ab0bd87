//! One file per kind.

mod business_system;
mod cloud_policy;
mod department;
mod flavor;
mod host;
mod host_pool;
mod image;
mod incident;
mod migration;
mod network;
mod storage_pool;
mod virtual_machine;
mod volume;

pub use business_system::*;
pub use cloud_policy::*;
pub use department::*;
pub use flavor::*;
pub use host::*;
pub use host_pool::*;
pub use image::*;
pub use incident::*;
pub use migration::*;
pub use network::*;
pub use storage_pool::*;
pub use virtual_machine::*;
pub use volume::*;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names a Secret in a namespace that the field's documentation states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

pub(crate) fn yes() -> bool {
    true
}
