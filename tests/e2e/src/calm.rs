//! What must not change while nobody may act.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::Lab;

use crate::declared::holds;
use crate::ledger::incidents;
use crate::power::fences;
use crate::standing::{Guests, Standing, guests, standing};

/// Longer than the time-out after which a dead host would be given up.
pub const STILL: Duration = Duration::from_secs(12);

/// How the site stood at a moment.
pub struct Calm<'a> {
    lab: &'a Lab,
    /// What was assigned.
    pub standing: Standing,
    guests: Guests,
    /// How often a host had been forced off.
    pub fences: usize,
    incidents: usize,
}

impl<'a> Calm<'a> {
    /// How it stands now.
    ///
    /// # Errors
    /// The API or a host's cgroup can not be read.
    pub async fn now(lab: &'a Lab) -> Result<Self> {
        Ok(Self {
            lab,
            standing: standing(lab).await?,
            guests: guests(lab)?,
            fences: fences(lab)?.len(),
            incidents: incidents(lab).await?.len(),
        })
    }

    /// Looks for so long whether nothing is assigned anew, no process starts or ends and nobody is forced off.
    ///
    /// # Errors
    /// It is not so any more.
    pub async fn lasts(&self, how_long: Duration) -> Result<()> {
        let what = "no VM is touched and no host forced off";
        holds(what, how_long, async || self.stands().await.map(|()| true)).await
    }

    /// It still stands so.
    ///
    /// # Errors
    /// What is otherwise; or the API or a host's cgroup can not be read.
    pub async fn stands(&self) -> Result<()> {
        let (assigned, running) = (standing(self.lab).await?, guests(self.lab)?);
        ensure!(
            assigned == self.standing,
            "assigned was {:?}; is {assigned:?}",
            self.standing
        );
        ensure!(
            running == self.guests,
            "processes were {:?}; are {running:?}",
            self.guests
        );
        let forced = fences(self.lab)?.len();
        ensure!(
            forced == self.fences,
            "hosts were forced off {} times; {forced} times now",
            self.fences
        );
        Ok(())
    }

    /// Causes of the Incidents that were opened since.
    ///
    /// # Errors
    /// The API can not be read.
    pub async fn new_incidents(&self) -> Result<Vec<String>> {
        let all = incidents(self.lab).await?;
        let new = all.iter().skip(self.incidents);
        Ok(new.map(|one| one.spec.cause.clone()).collect())
    }
}
