//! The one engine of `placement` that every loop reads. The VM loop makes it true once a turn and
//! leaves in it what it decided; whoever shows or plans anything else reads it as it was left. So what
//! is shown never differs from what is decided by the age of a cache.

use placement::Engine;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

/// The engine, once the VM loop has filled it.
#[derive(Default)]
pub struct Planner(Mutex<Option<Engine>>);

impl Planner {
    /// For the VM loop, which alone changes the fleet; empty before its first turn.
    pub async fn own(&self) -> MappedMutexGuard<'_, Engine> {
        MutexGuard::map(self.0.lock().await, |engine| {
            engine.get_or_insert_with(Engine::default)
        })
    }

    /// For everybody else, between two turns of the VM loop; none before the first.
    pub async fn read(&self) -> Option<MappedMutexGuard<'_, Engine>> {
        MutexGuard::try_map(self.0.lock().await, Option::as_mut).ok()
    }

    /// Somebody else decides now: what was known grows old.
    pub async fn forget(&self) {
        *self.0.lock().await = None;
    }
}
