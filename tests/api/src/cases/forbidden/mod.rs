//! Writes that must be refused: each fact has one writer.

mod agents;
mod operator;
mod people;
mod words;

use serde_json::{Value, json};

use super::standing::{assignment, clearance, disarmed, report, runtime};
use crate::server::{
    AGENT_H1, AGENT_H2, CLUSTER_ADMINISTRATOR, DEPARTMENT_USER, Identity, ON_CALL, OPERATOR,
    SYSTEM_ADMINISTRATOR, Target, Write,
};

/// What refuses a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// The admission policy of this name (without the group's suffix).
    Policy(&'static str),
    /// A role that the identity lacks.
    Roles,
}

/// One write that must be refused.
#[derive(Clone, Debug)]
pub struct Forbidden {
    /// What is tried, for the test's output.
    pub what: String,
    /// Who tries.
    pub identity: Identity,
    /// On what.
    pub target: Target,
    /// What is written.
    pub write: Write,
    /// What refuses it.
    pub by: RefusedBy,
    /// Part of the sentence that the writer reads.
    pub sentence: &'static str,
}

const VM: Target = Target::of("VirtualMachine", "oa-office", "vm1");
const VOLUME: Target = Target::of("Volume", "oa-office", "vm1-system");
const MOVE: Target = Target::of("VirtualMachineMigration", "oa-office", "move1");
const SYSTEM: Target = Target::of("BusinessSystem", "oa-office", "oa");
const IMAGE: Target = Target::of_site("Image", "linux");
const POLICY: Target = Target::of_site("CloudPolicy", "default");
const H1: Target = Target::of_site("Host", "h1");
const H2: Target = Target::of_site("Host", "h2");
/// It is open.
const INCIDENT: Target = Target::of_site("Incident", "incident1");
/// It is closed.
const CLOSED: Target = Target::of_site("Incident", "incident2");

/// Objects of the site whose status the operator alone writes.
const OPERATORS_ALONE: [Target; 6] = [
    Target::of_site("HostPool", "main"),
    Target::of_site("StoragePool", "shared"),
    Target::of_site("Network", "common"),
    Target::of_site("Department", "oa-office"),
    INCIDENT,
    POLICY,
];

struct Cases(Vec<Forbidden>);

impl Cases {
    fn refuse(
        &mut self,
        by: RefusedBy,
        identity: Identity,
        target: Target,
        write: Write,
        sentence: &'static str,
    ) {
        let what = format!(
            "{} writes {} {}: {write:?}",
            identity.user, target.kind, target.name
        );
        self.0.push(Forbidden {
            what,
            identity,
            target,
            write,
            by,
            sentence,
        });
    }

    fn status(
        &mut self,
        policy: &'static str,
        identity: Identity,
        target: Target,
        status: Value,
        sentence: &'static str,
    ) {
        let write = Write::PatchStatus(json!({"status": status}));
        self.refuse(RefusedBy::Policy(policy), identity, target, write, sentence);
    }

    /// A status that the identity has no role to write.
    fn no_role(&mut self, identity: Identity, target: Target, status: Value) {
        let write = Write::PatchStatus(json!({"status": status}));
        self.refuse(RefusedBy::Roles, identity, target, write, "cannot patch");
    }
}

/// Every forbidden write.
pub fn forbidden() -> Vec<Forbidden> {
    let mut cases = Cases(Vec::new());
    agents::agents_on_hosts(&mut cases);
    agents::agents_on_machines(&mut cases);
    agents::agents_on_the_rest(&mut cases);
    operator::operator(&mut cases);
    people::people(&mut cases);
    people::marks(&mut cases);
    people::on_call(&mut cases);
    people::deletions(&mut cases);
    words::names(&mut cases);
    words::records(&mut cases);
    cases.0
}
