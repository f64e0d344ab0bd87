//! A few names that many VMs have in common.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A set of names that is shared by all who have the same: a fleet has ten thousand VMs and a dozen such
/// sets. Changing one leaves the others as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Names(Arc<BTreeSet<String>>);

impl Deref for Names {
    type Target = BTreeSet<String>;

    fn deref(&self) -> &BTreeSet<String> {
        &self.0
    }
}

impl DerefMut for Names {
    fn deref_mut(&mut self) -> &mut BTreeSet<String> {
        Arc::make_mut(&mut self.0)
    }
}

impl From<BTreeSet<String>> for Names {
    fn from(names: BTreeSet<String>) -> Self {
        Self(Arc::new(names))
    }
}

impl FromIterator<String> for Names {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        Self(Arc::new(names.into_iter().collect()))
    }
}
