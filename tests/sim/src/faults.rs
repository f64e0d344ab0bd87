//! What can go wrong, and what people do, as data: a plan is a list of these with times. The
//! world inflicts them (`inflict`); programs see only the consequences.

use serde::{Deserialize, Deserializer};

use crate::machine::Bmc;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(pub usize);

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.strip_prefix($prefix)
                    .and_then(|number| number.parse::<usize>().ok())
                    .and_then(|number| number.checked_sub(1))
                    .map(Self)
                    .ok_or_else(|| format!("{text:?} is not {}1, {}2, …", $prefix, $prefix))
            }
        }
    };
}

index!(
    /// A host by its name, `h1` being the first.
    HostIndex,
    "h"
);
index!(
    /// A VM by its name, `vm1` being the first.
    VmIndex,
    "vm"
);
index!(
    /// An operator, `operator1` being the first.
    OperatorIndex,
    "operator"
);

/// Seconds in a file, milliseconds here.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if !(0.0..1e6).contains(&value) {
        return Err(serde::de::Error::custom("seconds out of range"));
    }
    // Whole milliseconds are meant; the range was checked.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked above"
    )]
    Ok((value * 1000.0).round() as u64)
}

/// What goes wrong, or what people do. Durations are milliseconds (seconds in files).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    tag = "do",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
#[allow(missing_docs, reason = "the names of the fields say it")]
pub enum Fault {
    /// A host loses power; with its BMC when `bmc` is set.
    PowerLoss {
        host: HostIndex,
        #[serde(default)]
        bmc: bool,
    },
    /// Power returns, or a person presses the button.
    PowerOn { host: HostIndex },
    /// The kernel reboots.
    Reboot { host: HostIndex },
    /// All processes of a host stand still; guests may run on.
    Hang {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// A host is cut off from the management network.
    ManagementCut {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// A host is cut off from its storage.
    StorageCut {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// A host can not write its heartbeat, as the folder of heartbeats on the pool is full or read-only: it reads
    /// others' heartbeats, and the disks of its VMs answer.
    HeartbeatReadOnly {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// A host is cut off from the business network: its VMs run on, and nobody reaches them.
    BusinessCut {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// The services in a host's guests answer their users with errors; the guests run.
    ServicesFail {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// The management switch reboots: every host is cut off.
    SwitchReboot {
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// A BMC misbehaves.
    Bmc {
        host: HostIndex,
        mode: BmcMode,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// The second BMC of a host misbehaves, where the site's hosts have two.
    SecondBmc {
        host: HostIndex,
        mode: BmcMode,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// An operator's process dies and is started again.
    OperatorCrash {
        operator: OperatorIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// An operator's process stands still and goes on.
    OperatorPause {
        operator: OperatorIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// Both operators believe that they lead.
    SplitLeaders {
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// An operator's watches stand still.
    StaleOperator {
        operator: OperatorIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// An agent's watches stand still.
    StaleAgent {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// The API server answers nobody.
    ApiDown {
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// The API server loses and delays messages.
    ApiLossy {
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// An agent dies and is started again.
    AgentCrash {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// The ledger of a host's boot is lost.
    LedgerLost { host: HostIndex },
    /// An agent's loop is stuck.
    AgentStuck {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// A guard does not run.
    GuardStop {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// A host's agent says of a VM what is not so: that another host's copy is closed, handed over and
    /// running, and that a copy of epochs that nobody has issued is.
    FalseWord { host: HostIndex, vm: VmIndex },
    /// A host's guard tells of all other hosts' heartbeats what is not so: a beat beyond all measure that has
    /// not changed for ever.
    FalseBeats {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// A machine that booted a clone of a host's disk reports and renews under its name.
    Twin {
        host: HostIndex,
        /// It has the host's system UUID too, and NICs of its own.
        #[serde(default)]
        same_uuid: bool,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// An operator's wall clock is an hour ahead, or behind.
    OperatorClock {
        operator: OperatorIndex,
        ahead: bool,
    },
    /// A host's wall clock jumps forward.
    ClockJump {
        host: HostIndex,
        #[serde(deserialize_with = "seconds")]
        by: u64,
    },
    /// A VM's QEMU crashes.
    GuestCrash { vm: VmIndex },
    /// A guest shuts itself down.
    GuestShutdown { vm: VmIndex },
    /// Its user halts a VM.
    Halt { vm: VmIndex },
    /// Its user wants a VM to run (again).
    Run { vm: VmIndex },
    /// Its user deletes a VM.
    Delete { vm: VmIndex },
    /// A VM of the same name and volume is made again, once the former is gone.
    Recreate { vm: VmIndex },
    /// A host is to be emptied.
    Drain { host: HostIndex },
    /// No longer.
    EndDrain { host: HostIndex },
    /// A VM is to move.
    Move {
        vm: VmIndex,
        #[serde(default)]
        to: Option<HostIndex>,
    },
    /// All moves are cancelled.
    CancelMoves,
    /// Starts of QEMU hang on a host.
    StartHangs {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// Starts of QEMU fail on a host.
    StartFails {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// Disks fail on a host: the guests that run there stand still.
    DisksFail {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// QEMU processes of a host do not end.
    CloseHangs {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// libvirt of a host does not clear up after guests that moved away.
    ClearingHangs {
        host: HostIndex,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// Moves lose their last reply.
    FinishLost {
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// QEMU processes of moves' sources die by themselves at switch-over: before the target has finished, or after it.
    SourceDies {
        #[serde(default)]
        finished: bool,
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// What follows the death of a move's source goes wrong: its agent does not see it, or dies before or after it has
    /// said so; libvirt takes long to clear up, or calls the move failed.
    HandOverDisturbed {
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// A person confirms that a host, by its registered boot, is off.
    Confirm { host: HostIndex },
    /// A person disarms failover.
    Disarm {
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// Another machine stands under a host's name from its next boot on: a new one, or a clone of
    /// the host named.
    Replace {
        host: HostIndex,
        #[serde(default)]
        clone_of: Option<HostIndex>,
    },
    /// NICs of a host are replaced, one or all of them; its next boot finds the new ones.
    ReplaceNics {
        host: HostIndex,
        #[serde(default)]
        all: bool,
    },
    /// The API server's storage is full: it answers reads and refuses writes.
    ApiReadOnly {
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// etcd is backed up.
    BackUp,
    /// etcd is restored from the last backup; the API server is away meanwhile.
    Restore {
        #[serde(rename = "for", deserialize_with = "seconds")]
        span: u64,
    },
    /// A person asks for a rebase, where the site is frozen.
    Rebase,
    /// A hardware alarm is raised.
    Alarm { host: HostIndex },
    /// The alarm is cleared.
    EndAlarm { host: HostIndex },
}

/// A BMC's misbehaviour in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "documented at machine::Bmc")]
pub enum BmcMode {
    Dead,
    RefusesLogin,
    Slow,
    AcksOnly,
    LiesOn,
    LiesOff,
    OtherMachine,
}

impl From<BmcMode> for Bmc {
    fn from(mode: BmcMode) -> Self {
        match mode {
            BmcMode::Dead => Bmc::Dead,
            BmcMode::RefusesLogin => Bmc::RefusesLogin,
            BmcMode::Slow => Bmc::Slow,
            BmcMode::AcksOnly => Bmc::AcksOnly,
            BmcMode::LiesOn => Bmc::LiesOn,
            BmcMode::LiesOff => Bmc::LiesOff,
            BmcMode::OtherMachine => Bmc::OtherMachine,
        }
    }
}
