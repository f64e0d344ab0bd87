//! The cases as data: the objects that stand, writes that must be refused (and by which
//! policy), writes that must pass, and manifests that must be refused with a sentence.

mod forbidden;
mod manifests;
mod permitted;
mod standing;

pub use forbidden::{Forbidden, RefusedBy, forbidden};
pub use manifests::{BadManifest, bad_edits, bad_manifests};
pub use permitted::permitted;
pub use standing::{STANDING, standing_statuses, standing_words};
