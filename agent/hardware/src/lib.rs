//! Hardware faults before they kill a host: probes that read what the kernel, the disks and the
//! BMC say, and pure judges that turn it into facts.
//!
//! Each probe is a small file with a reader (bounded, over passed-in [`Roots`]) and a pure
//! parser and judge. [`Probes::poll`] runs those that are due, [`FaultTracker`] adds hysteresis
//! and history. A probe that can not read says so as a [`ProbeError`]: that is never a fault and
//! never counts as health.
//!
//! This crate has no async, no network client and no clock: the caller passes the moment, the
//! BMC's answers ([`RedfishSource`] or the text of `ipmitool`), measured pool latencies and the
//! clock's state. What a fault leads to is decided elsewhere (`failover`, `placement`).

#![forbid(unsafe_code)]
// A test that unwraps fails with the place and the error, which is what it should do.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod array;
mod clock;
mod command;
mod file_system;
mod finding;
mod hwmon;
mod ipmi;
mod kernel_log;
mod link;
mod link_speed;
mod memory;
mod probes;
mod redfish;
mod smart;
mod source;
mod storage_pool;
mod thresholds;
mod tracker;
mod window;

pub use array::{Array, judge_arrays, parse_mdstat};
pub use clock::{ClockState, judge_clock};
pub use command::{CommandError, Runner as CommandRunner};
pub use file_system::{Mount, parse_mountinfo, parse_mounts};
pub use finding::{Finding, Findings, Moment, ProbeError, Quantity, Reading};
pub use ipmi::{IpmiSensor, judge_ipmi, parse_sensors};
pub use kernel_log::{LogRecord, parse_record};
pub use link_speed::link_speed_megabits;
pub use probes::{Bmc, Inputs, Poll, Probe, Probes, State};
pub use redfish::{RedfishError, RedfishSource, walk as probe_redfish};
pub use smart::judge_disk;
pub use source::{ReadError, Roots};
pub use storage_pool::{PoolAnswer, PoolSample, judge_pools};
pub use thresholds::Thresholds;
pub use tracker::{Change, FaultTracker, StandingFault};
