//! The program inside the lab's guests: takes its name, role and addresses from a NoCloud seed,
//! answers HTTP, and writes a stamped counter to its data disk so that lost or doubled writes show.
//!
//! It knows nothing of the platform that runs it and must not: it is the judged world, and shares no
//! code with the product. It uses std alone, so that it links statically and starts quickly under
//! software emulation.

pub mod configure;
pub mod http;
pub mod json;
pub mod power;
pub mod record;
pub mod seed;
pub mod server;
pub mod status;
pub mod writer;
pub mod yaml;
