//! A data centre in a box: real libvirt hosts in namespaces, BMC simulators, a real
//! Kubernetes control plane, faults. `zylab` drives it; tests use it as a library.
//!
//! Everything of a lab lives in its own folder, cgroup and network namespaces; `down`
//! removes all of it. Nothing here is needed by production, which never depends on it.

#![forbid(unsafe_code)]

pub mod address;
pub mod bmc;
pub mod chaos;
pub mod clock;
pub mod cluster;
pub mod controlplane;
pub mod declarations;
pub mod edge;
pub mod fault;
pub mod files;
pub mod forward;
pub mod guards;
pub mod guest;
pub mod host;
pub mod init;
pub mod inside;
pub mod install;
pub mod judges;
pub mod lifecycle;
pub mod loss;
pub mod machine;
pub mod namespace;
pub mod owner;
pub mod pki;
pub mod process;
pub mod rest;
pub mod root_disk;
pub mod runtime;
pub mod status;
pub mod users;
pub mod watchdog;

pub use address::Addresses;
pub use controlplane::ControlPlane;
pub use fault::Fault;
pub use files::LabFiles;
pub use install::install_api;
pub use lifecycle::{Lab, LabOptions};
