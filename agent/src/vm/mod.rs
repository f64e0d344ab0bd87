//! One VM on this host: what to do with it (`decide`, pure), how its domain looks (`spec`),
//! and doing it (`worker`).

pub mod decide;
pub mod spec;
pub mod worker;
