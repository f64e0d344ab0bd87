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

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    /// A merge of such a value leaves nothing of an earlier one standing.
    fn names_every_field<T: JsonSchema + Serialize + DeserializeOwned>(least: Value) {
        let told: T = serde_json::from_value(least).expect("what it must have");
        let (told, schema) = (json!(told), json!(schemars::schema_for!(T)));
        let fields = schema["properties"].as_object().expect("an object").keys();
        let unnamed: Vec<_> = fields.filter(|field| told.get(field).is_none()).collect();
        assert!(
            unnamed.is_empty(),
            "{} does not name {unnamed:?}",
            T::schema_name()
        );
    }

    #[test]
    fn what_agents_merge_whole_names_every_field() {
        let (incarnation, capacity) = (
            json!({"bootId": "b", "systemUuid": "u"}),
            json!({"cpu": 1, "memory": "1Gi"}),
        );
        names_every_field::<Incarnation>(incarnation.clone());
        names_every_field::<HostCapacity>(capacity.clone());
        names_every_field::<HostVersions>(json!({}));
        names_every_field::<FrozenReport>(json!({"cause": "c", "highestEpoch": 1}));
        names_every_field::<HostReport>(json!({
            "incarnation": incarnation, "capacity": capacity, "architecture": "x86_64", "domainType": "kvm",
        }));
        let assignment = json!({"host": "h1", "bootId": "b", "epoch": 1});
        names_every_field::<VolumeReport>(json!({"assignment": assignment, "phase": "Done"}));
        names_every_field::<Runtime>(json!({
            "assignment": assignment, "phase": "Running", "since": "2026-01-01T00:00:00Z",
        }));
    }
}
