//! The few moves that most improve a pool, each worth its cost; nothing when nothing is.
//!
//! *Balance*: the imbalance of a pool is the root mean square of how far each host's share of
//! memory and of CPU is from the pool's, in per mille of the host. The search that also solves the public
//! benchmark finds where all VMs would better be ([`target`]); of the moves that lead there those are made that
//! gain the most, as long as each gains what the mode asks for and every rule and N+1 are kept ([`course`]);
//! two VMs change places where no single move helps.
//! *Consolidation*: hosts are emptied, as long as everything else keeps its place and N+1 still holds without them: one after
//! the other, and where the same search empties more of them, by what it finds ([`consolidate`]).

mod consolidate;
mod course;
mod shares;
mod target;

use std::collections::{BTreeMap, BTreeSet};

use model::{HostName, VmUid};

use crate::core::ModelError;
use crate::engine::Engine;
use crate::evacuation::{EvacuationRequest, timed};
use crate::fleet::Fleet;
use crate::plan::{Limits, Plan};
use course::{Course, Until};
use target::Aim;

/// Searches of one plan. The first finds nearly all; others are for what a rule or N+1 refused to it.
const ROUNDS: usize = 4;

/// What is wanted of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Hosts carry alike.
    Balance,
    /// Few hosts carry all, so that others can be switched off: of the named hosts as many as
    /// possible; when none is named, of all.
    Consolidate(BTreeSet<HostName>),
}

/// How much a move must gain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is moved.
    Off,
    /// Only what gains much.
    Cautious,
    /// The usual.
    #[default]
    Normal,
    /// Whatever gains something.
    Eager,
    /// As the site's policy says.
    Set {
        /// Imbalance, per mille, up to which nothing is done.
        imbalance_permille: u64,
        /// Share of the squared distance of its two hosts that a move must take away, per cent.
        gain_percent: u32,
    },
}

impl Mode {
    /// Imbalance, per mille, below which nothing is done, and how much of the squared distance
    /// of its two hosts one move must take away, per cent: a small VM on a crowded host is not
    /// worth its migration.
    fn thresholds(self) -> Option<(u64, i64)> {
        match self {
            Mode::Off => None,
            Mode::Cautious => Some((150, 20)),
            Mode::Normal => Some((80, 10)),
            Mode::Eager => Some((20, 3)),
            Mode::Set {
                imbalance_permille,
                gain_percent,
                // More than all of it is never taken away, however much is asked for.
            } => Some((imbalance_permille, i64::from(gain_percent.min(1_000)))),
        }
    }
}

/// What to improve, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebalanceRequest {
    /// The pool.
    pub pool: String,
    /// What is wanted.
    pub goal: Goal,
    /// How eagerly.
    pub mode: Mode,
    /// At most that many moves.
    pub moves_max: usize,
    /// When each VM last moved, seconds on any clock; who is not named has not.
    pub moved_at_s: BTreeMap<VmUid, u64>,
    /// The time on that clock.
    pub now_s: u64,
    /// A VM that moved is left alone for so long, seconds.
    pub cool_down_s: u64,
    /// VMs that can not move now, such as those that do not run.
    pub fixed: BTreeSet<VmUid>,
    /// What the network and the hosts bear.
    pub limits: Limits,
    /// Bytes per second that a VM writes to its memory.
    pub dirty_bytes_per_second: BTreeMap<VmUid, u64>,
    /// What the search draws from; the same seed, the same plan.
    pub seed: u64,
}

impl RebalanceRequest {
    /// Balance of a pool, as usual: at most eight moves, an hour's cool-down.
    pub fn new(pool: impl Into<String>) -> Self {
        Self {
            pool: pool.into(),
            goal: Goal::Balance,
            mode: Mode::Normal,
            moves_max: 8,
            moved_at_s: BTreeMap::new(),
            now_s: 0,
            cool_down_s: 3_600,
            fixed: BTreeSet::new(),
            limits: Limits::default(),
            dirty_bytes_per_second: BTreeMap::new(),
            seed: 1,
        }
    }

    fn rests(&self, uid: &VmUid) -> bool {
        if self.fixed.contains(uid) {
            return true;
        }
        let moved = self.moved_at_s.get(uid);
        moved.is_some_and(|at| self.now_s < at.saturating_add(self.cool_down_s))
    }

    fn evacuation(&self, hosts: BTreeSet<HostName>) -> EvacuationRequest {
        EvacuationRequest {
            hosts,
            limits: self.limits.clone(),
            dirty_bytes_per_second: self.dirty_bytes_per_second.clone(),
            ..EvacuationRequest::default()
        }
    }
}

/// What one move gains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gain {
    /// The VM that moves.
    pub vm: VmUid,
    /// Imbalance of the pool before it, per mille.
    pub before_permille: u64,
    /// And after it.
    pub after_permille: u64,
}

/// Moves that improve a pool.
#[must_use = "a plan says why nothing moves"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// The moves with their times.
    pub plan: Plan,
    /// For balance: what each move gains, in the order of choice.
    pub gains: Vec<Gain>,
    /// For consolidation: the hosts that are empty afterwards.
    pub emptied: BTreeSet<HostName>,
    /// Imbalance of the pool before, per mille.
    pub before_permille: u64,
    /// And after everything.
    pub after_permille: u64,
    /// One sentence: why so many moves, or none.
    pub why: String,
}

/// Plans the moves. Same fleet and request, same plan.
pub fn plan_rebalance(fleet: &Fleet, request: &RebalanceRequest) -> Rebalance {
    let engine = Engine::new(fleet.clone());
    match &request.goal {
        Goal::Balance => balance(engine, request),
        Goal::Consolidate(wanted) => consolidate::consolidate(engine, request, wanted),
    }
}

fn balance(engine: Engine, request: &RebalanceRequest) -> Rebalance {
    let mut course = Course::new(engine, &request.pool);
    let before_permille = course.shares.imbalance();
    let thresholds = request.mode.thresholds();
    let mut searched = Ok(());
    if let Some((calm, least)) = thresholds {
        let until = Until {
            moves_max: request.moves_max,
            calm,
            least,
        };
        searched = search(&mut course, request, until);
    }
    let why = match (thresholds, course.gains.len(), searched) {
        (None, _, _) => "rebalancing is off".to_owned(),
        (Some((calm, _)), 0, _) if before_permille <= calm => {
            format!("imbalance of {before_permille} per mille is not worth a move")
        }
        (Some(_), 0, Err(error)) => format!("no better place can be looked for: {error}"),
        (Some(_), 0, Ok(())) if course.promise_forbids => {
            "the moves that gain enough would break N+1".to_owned()
        }
        (Some(_), 0, Ok(())) => "no move gains enough".to_owned(),
        (Some(_), 1, _) => "1 move gains enough".to_owned(),
        (Some(_), moves, _) => format!("{moves} moves gain enough"),
    };
    let evacuation = request.evacuation(BTreeSet::new());
    Rebalance {
        plan: timed(course.begun.fleet(), &evacuation, course.steps),
        gains: course.gains,
        emptied: BTreeSet::new(),
        before_permille,
        after_permille: course.shares.imbalance(),
        why,
    }
}

/// Searches, makes what is worth it, and searches again from there and without what was refused.
fn search(course: &mut Course, request: &RebalanceRequest, until: Until) -> Result<(), ModelError> {
    for _ in 0..ROUNDS {
        if !course.goes_on(until) {
            break;
        }
        let (begun, shares) = (&course.begun, &course.shares);
        let wanted = target::wanted(
            begun,
            shares,
            request,
            Aim::Even(until.least),
            &course.refused,
        )?;
        let before = (course.steps.len(), course.refused.len());
        course.follow(wanted, until);
        if (course.steps.len(), course.refused.len()) == before {
            break;
        }
    }
    Ok(())
}
