//! One VM on this host: what to do with it (`decide`, pure), how its domain looks (`spec`),
//! and doing it (`worker`, with `starting`, `resuming`, `closing`, `departed` and `reporting`).

pub mod closing;
pub mod decide;
pub mod departed;
pub mod reporting;
pub mod resuming;
pub mod spec;
pub mod starting;
pub mod worker;
