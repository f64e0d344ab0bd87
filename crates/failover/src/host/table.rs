//! The signal table: what the signals of one silent or living host mean together, and what
//! may be done about it. One function over closed sets; a test walks every combination.
//! Whatever is not listed never fences, and says why.

use serde::{Deserialize, Serialize};

use crate::proof::power::PowerState;
use crate::reason::Sentence;

/// A periodic signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Freshness {
    /// Changed within its interval and grace.
    Fresh,
    /// Did not.
    Stale,
    /// There is no such signal for this host.
    Unknown,
}

/// The power signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PowerSignal {
    /// Its own BMC reads On.
    On,
    /// Its own BMC reads Off and no sign of life changed since.
    Off,
    /// Its own BMC reads Off, but a sign of life changed after the first such reading.
    OffContradicted,
    /// No usable answer, or another machine's BMC, or no BMC at all.
    NoAnswer,
    /// Not read yet, or the reading is too old to say anything.
    NotRead,
}

/// Probes of addresses owned by one VM on this host alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProbeSignal {
    /// At least one answered lately.
    Answer,
    /// None did.
    Silent,
    /// There is nothing to probe.
    Unknown,
}

/// All signals of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signals {
    /// Its Lease; never Unknown for a registered host.
    pub lease: Freshness,
    /// Its storage heartbeat, as other hosts see it.
    pub heartbeat: Freshness,
    /// Its power.
    pub power: PowerSignal,
    /// Its VMs.
    pub probes: ProbeSignal,
    /// Its agent says that its storage is lost.
    pub storage_lost: bool,
}

/// What the signals mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Conclusion {
    /// Alive.
    Alive,
    /// Alive, but its storage paths fail.
    AliveWithoutStorage,
    /// Its management network is cut; VMs answer.
    ManagementCut,
    /// It runs but is isolated.
    Isolated,
    /// Its BMC says Off and it shows life.
    BmcContradicts,
    /// Off.
    Dead,
    /// On, and shows no life.
    Hung,
    /// On, its VMs answer, but neither Lease nor storage heartbeat moves.
    HalfAlive,
    /// Nothing answers: dead, or its rack is without power.
    NothingAnswers,
    /// Management and BMC share a dead switch; storage is fine.
    SwitchDead,
    /// Off, but a signal is not stale yet: look again.
    OffUndecided,
    /// Its power was not read yet.
    PowerNotRead,
    /// Not in the table.
    Unlisted,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Response {
    /// Nothing.
    None,
    /// Alert, place nothing new there, never force off.
    AlertOnly,
    /// Conclude the proof from what is read; nothing is forced.
    Prove,
    /// Force off once the host counts as unreachable.
    Fence,
    /// Force off after the longer wait for hosts that still run, if the policy says so.
    FenceIsolated,
    /// No BMC helps: other proofs, or a person.
    OtherProofs,
    /// Wait for a clearer picture.
    Wait,
}

/// The table.
pub fn conclude(signals: Signals) -> Conclusion {
    use Freshness::{Fresh, Stale, Unknown};
    use PowerSignal::{NoAnswer, NotRead, Off, OffContradicted, On};
    use ProbeSignal::{Answer, Silent};
    let Signals {
        lease,
        heartbeat,
        power,
        probes,
        storage_lost,
    } = signals;
    match (lease, heartbeat, power, probes) {
        (Fresh, ..) if storage_lost => Conclusion::AliveWithoutStorage,
        (Fresh, ..) => Conclusion::Alive,
        (Unknown, ..) => Conclusion::Unlisted,
        (Stale, _, NotRead, _) => Conclusion::PowerNotRead,
        (Stale, _, OffContradicted, _) => Conclusion::BmcContradicts,
        (Stale, Fresh, On, Answer) => Conclusion::ManagementCut,
        (Stale, Fresh, On, Silent | ProbeSignal::Unknown) => Conclusion::Isolated,
        (Stale, Fresh, NoAnswer, _) => Conclusion::SwitchDead,
        (Stale, Stale | Unknown, Off, Silent | ProbeSignal::Unknown) => Conclusion::Dead,
        // Fresh may only be late, and the answered probe may have been sent before the power
        // went: either it ages within a second or two, or it contradicts.
        (Stale, Fresh, Off, _) | (Stale, _, Off, Answer) => Conclusion::OffUndecided,
        (Stale, Stale | Unknown, On, Silent | ProbeSignal::Unknown) => Conclusion::Hung,
        (Stale, Stale, On, Answer) => Conclusion::HalfAlive,
        (Stale, Stale | Unknown, NoAnswer, Silent | ProbeSignal::Unknown) => {
            Conclusion::NothingAnswers
        }
        // VMs answer and nothing says that their storage is gone.
        (Stale, Unknown, On, Answer) | (Stale, Stale | Unknown, NoAnswer, Answer) => {
            Conclusion::Unlisted
        }
    }
}

impl Conclusion {
    /// What may be done.
    pub fn response(self) -> Response {
        match self {
            Conclusion::Alive => Response::None,
            Conclusion::AliveWithoutStorage
            | Conclusion::ManagementCut
            | Conclusion::BmcContradicts
            | Conclusion::SwitchDead
            | Conclusion::Unlisted => Response::AlertOnly,
            Conclusion::Dead => Response::Prove,
            Conclusion::Hung => Response::Fence,
            Conclusion::Isolated | Conclusion::HalfAlive => Response::FenceIsolated,
            Conclusion::NothingAnswers => Response::OtherProofs,
            Conclusion::OffUndecided | Conclusion::PowerNotRead => Response::Wait,
        }
    }

    /// The conclusion in one sentence.
    pub fn sentence(self) -> Sentence {
        let (english, chinese) = match self {
            Conclusion::Alive => ("alive", "正常"),
            Conclusion::AliveWithoutStorage => {
                ("alive, but its storage paths fail", "正常,但存储路径失效")
            }
            Conclusion::ManagementCut => (
                "its management network is cut and its VMs answer; it is not fenced",
                "管理网络中断,虚拟机仍应答;不隔离",
            ),
            Conclusion::Isolated => ("it runs but is isolated", "仍在运行但已被孤立"),
            Conclusion::BmcContradicts => (
                "its BMC says Off while it shows life; the BMC is wrong or another host's, so this is no proof",
                "BMC 读为关闭但宿主机有存活迹象;BMC 有误或属于他机,不构成证据",
            ),
            Conclusion::Dead => (
                "its BMC reads Off and it shows no life",
                "BMC 读为关闭且无任何存活迹象",
            ),
            Conclusion::Hung => (
                "it is powered on and shows no life",
                "已通电但无任何存活迹象",
            ),
            Conclusion::HalfAlive => (
                "it is powered on and its VMs answer, but neither Lease nor storage heartbeat moves",
                "已通电且虚拟机应答,但租约与存储心跳均停滞",
            ),
            Conclusion::NothingAnswers => {
                ("neither it nor its BMC answers", "宿主机与 BMC 均无应答")
            }
            Conclusion::SwitchDead => (
                "management and BMC are unreachable while its storage heartbeat beats; a switch is suspected and it is not fenced",
                "管理网与 BMC 均不可达但存储心跳正常;疑为交换机故障,不隔离",
            ),
            Conclusion::OffUndecided => (
                "its BMC reads Off, but not every signal is silent yet",
                "BMC 读为关闭,但并非所有信号都已静默",
            ),
            Conclusion::PowerNotRead => ("its power is being read", "正在读取电源状态"),
            Conclusion::Unlisted => (
                "its VMs answer and nothing proves that it lost its storage; it is not fenced",
                "虚拟机应答且无证据表明其失去存储;不隔离",
            ),
        };
        Sentence {
            english: english.to_owned(),
            chinese: chinese.to_owned(),
        }
    }
}

/// Turns a judged reading into the power signal.
pub(crate) fn power_signal(
    state: Option<PowerState>,
    contradicted: bool,
    has_bmc: bool,
) -> PowerSignal {
    match state {
        _ if !has_bmc => PowerSignal::NoAnswer,
        None => PowerSignal::NotRead,
        Some(PowerState::On) => PowerSignal::On,
        Some(PowerState::Off) if contradicted => PowerSignal::OffContradicted,
        Some(PowerState::Off) => PowerSignal::Off,
        Some(PowerState::NoAnswer | PowerState::OtherMachine) => PowerSignal::NoAnswer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESHNESS: [Freshness; 3] = [Freshness::Fresh, Freshness::Stale, Freshness::Unknown];
    const POWER: [PowerSignal; 5] = [
        PowerSignal::On,
        PowerSignal::Off,
        PowerSignal::OffContradicted,
        PowerSignal::NoAnswer,
        PowerSignal::NotRead,
    ];
    const PROBES: [ProbeSignal; 3] = [
        ProbeSignal::Answer,
        ProbeSignal::Silent,
        ProbeSignal::Unknown,
    ];

    fn every() -> Vec<Signals> {
        let mut all = Vec::new();
        for lease in FRESHNESS {
            for heartbeat in FRESHNESS {
                for power in POWER {
                    for probes in PROBES {
                        for storage_lost in [false, true] {
                            all.push(Signals {
                                lease,
                                heartbeat,
                                power,
                                probes,
                                storage_lost,
                            });
                        }
                    }
                }
            }
        }
        all
    }

    /// The design's table, written a second time as data: every combination, what is concluded
    /// and what may be done. `None` in a column is "any"; the first row that fits counts.
    #[test]
    fn every_combination_has_the_row_of_the_design_and_no_other() {
        use Freshness::{Fresh, Stale, Unknown};
        use PowerSignal::{NoAnswer, NotRead, Off, OffContradicted, On};
        type Row = (
            Option<PowerSignal>,
            Option<Freshness>,
            Option<bool>,
            Conclusion,
            Response,
        );
        const STALE_LEASE: [Row; 15] = [
            (
                Some(NotRead),
                None,
                None,
                Conclusion::PowerNotRead,
                Response::Wait,
            ),
            (
                Some(OffContradicted),
                None,
                None,
                Conclusion::BmcContradicts,
                Response::AlertOnly,
            ),
            (
                Some(On),
                Some(Fresh),
                Some(true),
                Conclusion::ManagementCut,
                Response::AlertOnly,
            ),
            (
                Some(On),
                Some(Fresh),
                Some(false),
                Conclusion::Isolated,
                Response::FenceIsolated,
            ),
            (
                Some(On),
                Some(Stale),
                Some(false),
                Conclusion::Hung,
                Response::Fence,
            ),
            (
                Some(On),
                Some(Unknown),
                Some(false),
                Conclusion::Hung,
                Response::Fence,
            ),
            (
                Some(On),
                Some(Stale),
                Some(true),
                Conclusion::HalfAlive,
                Response::FenceIsolated,
            ),
            (
                Some(On),
                Some(Unknown),
                Some(true),
                Conclusion::Unlisted,
                Response::AlertOnly,
            ),
            (
                Some(Off),
                Some(Fresh),
                None,
                Conclusion::OffUndecided,
                Response::Wait,
            ),
            (
                Some(Off),
                None,
                Some(true),
                Conclusion::OffUndecided,
                Response::Wait,
            ),
            (
                Some(Off),
                None,
                Some(false),
                Conclusion::Dead,
                Response::Prove,
            ),
            (
                Some(NoAnswer),
                Some(Fresh),
                None,
                Conclusion::SwitchDead,
                Response::AlertOnly,
            ),
            (
                Some(NoAnswer),
                None,
                Some(false),
                Conclusion::NothingAnswers,
                Response::OtherProofs,
            ),
            (
                Some(NoAnswer),
                None,
                Some(true),
                Conclusion::Unlisted,
                Response::AlertOnly,
            ),
            (None, None, None, Conclusion::Unlisted, Response::AlertOnly),
        ];
        let all = every();
        assert_eq!(all.len(), 270);
        for signals in all {
            let answers = signals.probes == ProbeSignal::Answer;
            let expected = match (signals.lease, signals.storage_lost) {
                (Fresh, true) => (Conclusion::AliveWithoutStorage, Response::AlertOnly),
                (Fresh, false) => (Conclusion::Alive, Response::None),
                (Unknown, _) => (Conclusion::Unlisted, Response::AlertOnly),
                (Stale, _) => STALE_LEASE
                    .into_iter()
                    .find(|(power, heartbeat, probes, ..)| {
                        power.is_none_or(|power| power == signals.power)
                            && heartbeat.is_none_or(|heartbeat| heartbeat == signals.heartbeat)
                            && probes.is_none_or(|probes| probes == answers)
                    })
                    .map(|(.., conclusion, response)| (conclusion, response))
                    .expect("the last row fits all"),
            };
            let concluded = conclude(signals);
            assert_eq!((concluded, concluded.response()), expected, "{signals:?}");
        }
    }

    #[test]
    fn every_conclusion_has_a_sentence_in_both_languages() {
        for signals in every() {
            let sentence = conclude(signals).sentence();
            assert!(!sentence.english.is_empty() && !sentence.chinese.is_empty());
        }
    }
}
