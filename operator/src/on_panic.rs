//! What has to happen when a task beside the loops panics.

/// Held by a task; when it panics that is logged and `release` is run: a mark that says "under way" must not
/// outlive what is under way. A task that ends well does its own tidying.
pub struct OnPanic<F: FnMut()> {
    what: &'static str,
    name: String,
    release: F,
}

impl<F: FnMut()> OnPanic<F> {
    /// `what` is done on something of a `name`, for the log. `release` must not panic.
    pub fn new(what: &'static str, name: impl Into<String>, release: F) -> Self {
        Self {
            what,
            name: name.into(),
            release,
        }
    }
}

impl<F: FnMut()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (what, name) = (self.what, self.name.as_str());
            tracing::error!(
                what,
                name,
                "a task panicked; it is begun anew when it is due"
            );
            (self.release)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use super::*;

    type Marks = Arc<Mutex<BTreeSet<&'static str>>>;

    fn lock(marks: &Marks) -> MutexGuard<'_, BTreeSet<&'static str>> {
        marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[tokio::test]
    async fn a_panic_releases_the_mark_and_an_end_leaves_it_to_the_task() {
        let marks = Marks::default();
        for panics in [false, true] {
            lock(&marks).insert("h1");
            let of_task = marks.clone();
            let guard = OnPanic::new("power reading", "h1", move || {
                lock(&of_task).remove("h1");
            });
            let task = tokio::spawn(async move {
                let _guard = guard;
                tokio::task::yield_now().await;
                assert!(!panics, "a reader panics");
            });
            assert_eq!(task.await.is_err(), panics);
            assert_eq!(lock(&marks).is_empty(), panics);
        }
    }
}
