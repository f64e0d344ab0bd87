//! What was under way before domains were listed. libvirt takes the set of domains first and then looks at each, which may
//! take seconds: of what work did that ended meanwhile a list may show the state before.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::migration::{SOURCE, TARGET};

/// Keys of the work at one moment.
#[derive(Debug, Default)]
pub struct UnderWay(BTreeSet<String>);

impl UnderWay {
    /// What is under way now.
    pub fn now(busy: &Mutex<BTreeSet<String>>) -> Self {
        Self(busy.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whether work for this key was under way.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains(key)
    }

    /// Whether a VM was worked on, or was being sent: nothing is decided about it by a list of domains.
    pub fn has_vm(&self, uid: &str) -> bool {
        self.has(uid) || self.has_side(SOURCE, uid)
    }

    /// Whether a VM's arrival was worked on, which may take as long as its move: its copy may have come since, or have been
    /// closed, so none is closed by a list of domains.
    pub fn has_arrival(&self, uid: &str) -> bool {
        self.has_side(TARGET, uid)
    }

    fn has_side(&self, side: &str, uid: &str) -> bool {
        let begins = crate::migration::key(side, uid, "");
        self.0.iter().any(|key| key.starts_with(&begins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::in_task;
    use crate::migration::key;
    use hypervisor::Hypervisor as _;
    use hypervisor::memory::MemoryFabric;
    use std::sync::Arc;
    use uuid::Uuid;

    /// The guest is started while the list is on its way, as libvirt may answer.
    #[tokio::test]
    async fn a_start_that_ends_while_domains_are_listed_is_still_known() {
        let busy = Arc::default();
        let host = MemoryFabric::default().host("h1");
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (done, ended) = tokio::sync::oneshot::channel::<()>();
        let starting = host.clone();
        in_task(&busy, "u1".to_owned(), async move {
            gone.await.expect("told");
            starting.add_stray(Uuid::from_u128(1), "v");
            drop(done);
        });
        let under_way = UnderWay::now(&busy);
        let domains = host.list().await.expect("a list");
        go.send(()).expect("it waits");
        ended.await.expect_err("only dropped");
        while UnderWay::now(&busy).has("u1") {
            tokio::task::yield_now().await;
        }
        assert!(domains.is_empty(), "the list is older than the start's end");
        assert!(under_way.has_vm("u1"), "so nothing is decided by it");
        assert!(!UnderWay::now(&busy).has_vm("u1"), "the next list");
    }

    #[test]
    fn work_on_a_side_of_a_move_is_that_of_its_vm_alone() {
        let all = |keys: &[String]| UnderWay(keys.iter().cloned().collect());
        let sent = all(&[key(SOURCE, "u1", "m")]);
        assert!(sent.has(&key(SOURCE, "u1", "m")) && !sent.has(&key(SOURCE, "u1", "n")));
        assert!(sent.has_vm("u1") && !sent.has_vm("u2") && !sent.has_vm("u"));
        assert!(!sent.has_arrival("u1"));
        let arrives = all(&[key(TARGET, "u1", "m")]);
        assert!(arrives.has_arrival("u1") && !arrives.has_arrival("u2"));
        assert!(!arrives.has_vm("u1"), "a halt of it is obeyed");
        let other = all(&["image/u1/p".to_owned(), "u2".to_owned()]);
        assert!(!other.has_vm("u1") && !other.has_arrival("u1") && other.has_vm("u2"));
    }
}
