//! Hosts: `machine` holds one host's states and the diagram, `table` what signals mean
//! together, `fencing` how a host is forced off, `incarnation` which boot of which machine
//! stands behind a name, `fleet` all hosts in one step.

pub mod fencing;
pub mod fleet;
pub mod incarnation;
pub mod machine;
pub mod table;
