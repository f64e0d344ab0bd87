//! Judges how storage pools answer; the caller measures (a hung mount may block for ever, so the
//! measuring needs its own threads and is no business of this crate). Pure.

use model::{FaultKind, Severity};

use crate::finding::{Finding, Findings, Quantity, id_part, quote};
use crate::thresholds::Thresholds;

/// How a pool answered the last small write and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolAnswer {
    /// It answered after so long.
    Answered {
        /// Milliseconds.
        milliseconds: u64,
    },
    /// It has not answered yet.
    Pending {
        /// Milliseconds since it was asked.
        milliseconds: u64,
    },
    /// It answered with an error.
    Failed {
        /// What it said.
        message: String,
    },
}

/// One pool's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSample {
    /// Name of the pool.
    pub pool: String,
    /// Its answer.
    pub answer: PoolAnswer,
}

/// Judges pools: one that fails or is silent is lost (critical), a slow one is degraded.
pub fn judge_pools(samples: &[PoolSample], thresholds: &Thresholds) -> Findings {
    let mut findings = Findings::default();
    for sample in samples {
        let component = format!("storage-pool/{}", id_part(&sample.pool));
        let lost = |evidence| {
            Finding::new(
                &component,
                FaultKind::StorageLost,
                Severity::Critical,
                evidence,
            )
        };
        let slow = |milliseconds: u64, word: &str| {
            let hold = thresholds.pool_slow_hold_seconds;
            let evidence = format!(
                "{word} {milliseconds} ms (limit {} ms for {hold} s)",
                thresholds.pool_slow_milliseconds
            );
            Finding::new(
                &component,
                FaultKind::StorageSlow,
                Severity::Degraded,
                evidence,
            )
            .held(hold)
        };
        match &sample.answer {
            PoolAnswer::Failed { message } => findings.add(lost(format!(
                "pool answers with an error: {}",
                quote(message, 200)
            ))),
            PoolAnswer::Pending { milliseconds } => {
                findings.read(
                    &component,
                    Quantity::PoolLatency,
                    *milliseconds as f64 / 1000.0,
                );
                if *milliseconds >= thresholds.pool_lost_milliseconds {
                    findings.add(lost(format!(
                        "pool has not answered for {} s",
                        milliseconds / 1000
                    )));
                } else if *milliseconds >= thresholds.pool_slow_milliseconds {
                    findings.add(slow(*milliseconds, "pool has not answered for"));
                }
            }
            PoolAnswer::Answered { milliseconds } => {
                findings.read(
                    &component,
                    Quantity::PoolLatency,
                    *milliseconds as f64 / 1000.0,
                );
                if *milliseconds >= thresholds.pool_slow_milliseconds {
                    findings.add(slow(*milliseconds, "pool answered after"));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_of_each_limit() {
        let limits = Thresholds::default();
        let judged = |answer| {
            judge_pools(
                &[PoolSample {
                    pool: "shared".into(),
                    answer,
                }],
                &limits,
            )
            .findings
            .first()
            .map(|f| (f.kind, f.severity))
        };
        let slow = Some((FaultKind::StorageSlow, Severity::Degraded));
        let lost = Some((FaultKind::StorageLost, Severity::Critical));
        assert_eq!(judged(PoolAnswer::Answered { milliseconds: 999 }), None);
        assert_eq!(judged(PoolAnswer::Answered { milliseconds: 1000 }), slow);
        assert_eq!(judged(PoolAnswer::Pending { milliseconds: 999 }), None);
        assert_eq!(
            judged(PoolAnswer::Pending {
                milliseconds: 9_999
            }),
            slow
        );
        assert_eq!(
            judged(PoolAnswer::Pending {
                milliseconds: 10_000
            }),
            lost
        );
        assert_eq!(
            judged(PoolAnswer::Failed {
                message: "ESTALE".into()
            }),
            lost
        );
    }
}
