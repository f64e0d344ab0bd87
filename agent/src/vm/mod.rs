//! One VM on this host: what to do with it (`decide`, pure), how its domain looks (`spec`),
//! and doing it (`worker`, with `preparing`, `gathering`, `claiming`, `starting`, `resuming`, `closing`, `departed`,
//! `forgotten`, `last_words` and `reporting`);
//! beside it, how fast its guest writes to its memory (`dirty_rate`).

pub mod claiming;
pub mod closing;
pub mod decide;
pub mod departed;
pub mod dirty_rate;
mod forgotten;
pub mod gathering;
pub mod last_words;
pub mod preparing;
pub mod reporting;
pub mod resuming;
pub mod spec;
pub mod starting;
pub mod worker;
