//! The demo's story, asserted; the operator is killed in the middle of the recovery.

use anyhow::Result;
use e2e::story::{Play, check_programs, play};
use lab::{Lab, LabOptions};

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_with_the_operator_killed_in_the_middle() -> Result<()> {
    check_programs()?;
    let lab = Lab::up(LabOptions {
        name: "story".to_owned(),
        ..LabOptions::default()
    })
    .await?;
    play(
        &lab,
        Play {
            talk: true,
            kill_operator: true,
        },
    )
    .await?;
    lab.down()
}
