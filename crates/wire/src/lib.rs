//! What the operator and the agents have in common on the wire: the client of the API server and its bounds, TLS
//! towards devices that nobody of ours made (management controllers, storage arrays), how much of their answers is
//! read, and when certificates expire.
//!
//! May not live here: decisions, what the answers mean, the kinds of the API.

#![forbid(unsafe_code)]

pub mod body;
pub mod certificate;
pub mod client;
pub mod tls;
