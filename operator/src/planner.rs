//! The engine of `placement` on which the VM loop decides, and the one that every other loop reads.
//!
//! The VM loop makes its engine true once a turn and leaves in it what it decided. It holds the lock only
//! while it computes, never while it writes. Whoever shows or plans anything else reads a second engine,
//! which becomes that fleet by its deltas and keeps proofs of its own: so what is shown never differs from
//! what is decided by the age of a cache, and a long proof for a person's eyes holds up no recovery.

use placement::{Engine, Fleet};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

/// The two engines, once the VM loop has filled its own.
#[derive(Default)]
pub struct Planner {
    decides: Mutex<Decides>,
    shows: Mutex<Option<(Age, Engine)>>,
}

/// How old a state is: which engine, counted, and its clock.
type Age = (u64, u64);

#[derive(Default)]
struct Decides {
    engine: Option<Engine>,
    /// How many engines there were.
    engines: u64,
}

impl Decides {
    fn own(&mut self) -> &mut Engine {
        self.engine.get_or_insert_with(|| {
            self.engines += 1;
            Engine::default()
        })
    }
}

impl Planner {
    /// For the VM loop, which alone changes the fleet; empty before its first turn. Not to be held
    /// over a write.
    pub async fn own(&self) -> MappedMutexGuard<'_, Engine> {
        MutexGuard::map(self.decides.lock().await, Decides::own)
    }

    /// For everybody else, the fleet as the VM loop last left it; none before its first turn.
    pub async fn read(&self) -> Option<MappedMutexGuard<'_, Engine>> {
        let mut shows = self.shows.lock().await;
        let known = shows.as_ref().map(|(age, _)| *age);
        let (age, fleet) = self.newer_than(known).await?;
        if let Some(fleet) = fleet {
            let mut engine = shows
                .take()
                .map_or_else(Engine::default, |(_, engine)| engine);
            engine.sync(fleet);
            *shows = Some((age, engine));
        }
        MutexGuard::try_map(shows, |shows| shows.as_mut().map(|(_, engine)| engine)).ok()
    }

    /// The age of the fleet that the VM loop left, and the fleet where it is not the known one.
    async fn newer_than(&self, known: Option<Age>) -> Option<(Age, Option<Fleet>)> {
        let decides = self.decides.lock().await;
        let engine = decides.engine.as_ref()?;
        let age = (decides.engines, engine.clock());
        let fleet = (known != Some(age)).then(|| engine.fleet().clone());
        Some((age, fleet))
    }

    /// Somebody else decides now: what was known grows old.
    pub async fn forget(&self) {
        self.decides.lock().await.engine = None;
        *self.shows.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::HostName;
    use std::time::Duration;

    fn host(memory_bytes: u64) -> placement::Host {
        crate::fleet_in_memory::host("main", 1, memory_bytes)
    }

    #[tokio::test]
    async fn what_is_read_is_what_was_left_and_holds_up_nobody_who_decides() {
        let (planner, name) = (Planner::default(), HostName("h".to_owned()));
        assert!(planner.read().await.is_none(), "before the first turn");
        planner.own().await.upsert_host(name.clone(), host(1));
        let shown = planner.read().await.expect("an engine");
        assert_eq!(shown.fleet().hosts[&name].memory_bytes, 1);
        // Somebody still proves something on it.
        let deciding = tokio::time::timeout(Duration::from_secs(10), planner.own());
        deciding
            .await
            .expect("no reader holds up the VM loop")
            .upsert_host(name.clone(), host(2));
        drop(shown);
        let shown = planner.read().await.expect("an engine");
        assert_eq!(shown.fleet().hosts[&name].memory_bytes, 2);
    }

    #[tokio::test]
    async fn a_new_engine_with_the_same_clock_is_not_taken_for_the_old_one() {
        let (planner, name) = (Planner::default(), HostName("h".to_owned()));
        planner.own().await.upsert_host(name.clone(), host(1));
        assert!(planner.read().await.is_some());
        planner.forget().await;
        assert!(planner.read().await.is_none(), "nobody has read the fleet");
        planner.own().await.upsert_host(name.clone(), host(2));
        let shown = planner.read().await.expect("an engine");
        assert_eq!(shown.fleet().hosts[&name].memory_bytes, 2);
    }
}
