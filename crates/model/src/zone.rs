//! Site-wide closed sets: network zones, processor architectures, priorities.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Zone of the e-government extranet. A hard property of placement: a VM never runs
/// on a host pool outside its network's zone.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Zone {
    /// 公用网络区, common network zone.
    Common,
    /// 互联网接入区, internet access zone.
    InternetAccess,
    /// 专用网络区, dedicated network zone.
    Dedicated,
}

impl Zone {
    /// Name in Chinese, as the standards write it.
    pub fn chinese(self) -> &'static str {
        match self {
            Zone::Common => "公用网络区",
            Zone::InternetAccess => "互联网接入区",
            Zone::Dedicated => "专用网络区",
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Zone::Common => "Common",
            Zone::InternetAccess => "InternetAccess",
            Zone::Dedicated => "Dedicated",
        })
    }
}

/// Processor architecture, in the words of the kernel.
#[allow(
    non_camel_case_types,
    reason = "serialised as the kernel and images write them"
)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Architecture {
    /// Intel, AMD, Hygon, Zhaoxin.
    x86_64,
    /// Kunpeng, Phytium.
    aarch64,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Architecture::x86_64 => "x86_64",
            Architecture::aarch64 => "aarch64",
        })
    }
}

/// Priority of a business system: recovery, evacuation and placement go by it,
/// the most important first (`Critical` sorts before `Low`).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Priority {
    /// Restarted first; the OA system, for one.
    Critical,
    /// Public services.
    High,
    /// Department applications.
    #[default]
    Normal,
    /// Test and development.
    Low,
}
