//! What the operator and the agents have in common when they ask devices that nobody of ours made:
//! management controllers, storage arrays.
//!
//! May not live here: decisions, what the answers mean, the API.

#![forbid(unsafe_code)]

pub mod tls;
