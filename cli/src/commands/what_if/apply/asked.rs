//! Who is asked about in which order, and what is answered: as the operator would, turn by turn. Priority first,
//! and of one system the earlier tiers; a later tier is asked about once those before it run, or after their
//! time-out when they find no place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::VirtualMachine;
use failover::Moment;
use failover::recovery::{self, Candidate, RecoveryClock, TierFact, Tiers};
use fleet::quota::{Exceeded, Ledger};
use model::VmUid;
use placement::{Admission, Engine, Headroom};

use super::wanted::Wanted;
use crate::language::Language;
use crate::said;

/// What would become of a VM.
pub enum Answer {
    /// As `placement` says.
    Asked(Admission),
    /// Its department would use more than its quota.
    Quota(Exceeded),
}

impl Answer {
    /// Where it would start; none when it would wait.
    pub fn host(&self) -> Option<String> {
        match self {
            Answer::Asked(Admission::Placed(choice)) => Some(choice.host.to_string()),
            Answer::Asked(Admission::Refused(_) | Admission::Breaks { .. }) | Answer::Quota(_) => {
                None
            }
        }
    }

    /// Why it would start there, or wait.
    pub fn why(&self, engine: &Engine, language: Language) -> String {
        match self {
            Answer::Asked(Admission::Placed(choice)) => said::list(language, &choice.reasons),
            Answer::Asked(Admission::Refused(refusal)) => {
                said::sentence(language, &refusal.sentence()).into_owned()
            }
            Answer::Asked(Admission::Breaks {
                pool,
                headroom,
                tried,
                ..
            }) => {
                let breaks = breaks(language, engine, pool, headroom);
                let tried = tried.sentence();
                let tried = said::sentence(language, &tried);
                format!("{breaks}{}{tried}", language.pick("; ", ";"))
            }
            Answer::Quota(exceeded) => match language {
                Language::English => exceeded.english(),
                Language::Chinese => exceeded.chinese(),
            },
        }
    }
}

fn breaks(language: Language, engine: &Engine, pool: &str, headroom: &Headroom) -> String {
    match (headroom, language) {
        (Headroom::Broken { failure, vm }, language) => {
            let vm = engine.fleet().name_of(vm);
            match language {
                Language::English => format!(
                    "N+1 of pool {pool} would break: if host {failure} failed, {vm} would find no place"
                ),
                Language::Chinese => format!(
                    "主机池 {pool} 的 N+1 将被破坏:若宿主机 {failure} 故障,{vm} 将找不到位置"
                ),
            }
        }
        (Headroom::Unknown { failure }, Language::English) => {
            format!("N+1 of pool {pool} could not be proven for the failure of host {failure}")
        }
        (Headroom::Unknown { failure }, Language::Chinese) => {
            format!("主机池 {pool} 在宿主机 {failure} 故障情形下的 N+1 无法得到证明")
        }
        (Headroom::Proven | Headroom::NotPromised, _) => String::new(),
    }
}

/// Answers in the order in which they were asked for; the engine is left with those that were placed.
pub fn ask(wanted: &Wanted, engine: &mut Engine) -> Vec<(VmUid, Answer)> {
    let asked = wanted.new.iter().chain(&wanted.waiting);
    let vms: BTreeMap<VmUid, &Arc<VirtualMachine>> = asked.map(|vm| (fleet::uid(vm), vm)).collect();
    let mut left: Vec<Candidate> = vms.iter().map(|(uid, vm)| candidate(uid, vm)).collect();
    let mut tiers = tiers(&vms);
    let longest = tiers.values().map(|tier| tier.timeout_milliseconds).max();
    let (mut clock, mut now) = (RecoveryClock::default(), Moment(0));
    let mut answers = Vec::new();
    while !left.is_empty() {
        let turns = clock.turns(&left, &tiers, now);
        for uid in &turns.start {
            if let Some(vm) = vms.get(uid) {
                answers.push((uid.clone(), answer(wanted, engine, uid, vm)));
            }
        }
        left.retain(|candidate| !turns.start.contains(&candidate.vm));
        let mut stood_still = true;
        for (key, tier) in tiers.iter_mut().filter(|(_, tier)| !tier.runs) {
            let of_it = |candidate: &&Candidate| {
                candidate.order == key.1 && candidate.system.as_ref() == Some(&key.0)
            };
            let placed = |uid: &VmUid| {
                let vm = engine.fleet().vms.get(uid);
                vm.is_some_and(|vm| vm.host.is_some())
            };
            let mut members = vms.iter().map(|(uid, vm)| candidate(uid, vm));
            tier.runs = members.all(|member| !of_it(&&member) || placed(&member.vm));
            stood_still &= !tier.runs;
        }
        if stood_still {
            // What found no place is waited for until its time-out.
            now = Moment(now.0.saturating_add(longest.unwrap_or(1).max(1)));
        }
    }
    answers
}

fn answer(wanted: &Wanted, engine: &mut Engine, uid: &VmUid, vm: &VirtualMachine) -> Answer {
    let ledger = Ledger {
        departments: wanted.departments.as_deref().unwrap_or_default(),
        vms: &wanted.objects.vms,
        volumes: &wanted.objects.volumes,
    };
    match ledger.exceeded(engine.fleet(), vm) {
        Some(exceeded) => Answer::Quota(exceeded),
        None => Answer::Asked(engine.admit(uid, &BTreeSet::new())),
    }
}

fn candidate(uid: &VmUid, vm: &VirtualMachine) -> Candidate {
    Candidate {
        vm: uid.clone(),
        system: fleet::system::system_of(vm),
        priority: vm.spec.priority,
        order: vm.spec.restart_order,
    }
}

/// The tiers of those that are asked about; none of them runs yet.
fn tiers(vms: &BTreeMap<VmUid, &Arc<VirtualMachine>>) -> Tiers {
    let mut tiers = Tiers::new();
    for vm in vms.values() {
        let Some(system) = fleet::system::system_of(vm) else {
            continue;
        };
        let seconds = u64::try_from(vm.spec.start_timeout_seconds).unwrap_or(120);
        let fact = TierFact {
            answers: None,
            runs: false,
            timeout_milliseconds: seconds * 1000,
        };
        recovery::add_tier(&mut tiers, (system, vm.spec.restart_order), fact);
    }
    tiers
}
