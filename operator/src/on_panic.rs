//! What has to happen when a task beside the loops panics.

use tokio::task::JoinHandle;

/// Runs work in a task of its own. When it panics that is logged and `release` is run: a mark that says
/// "under way" must not outlive what is under way. Work that ends well does its own tidying. `what` is done
/// on something of a `name`, for the log; `release` must not panic.
pub fn in_task(
    what: &'static str,
    name: impl Into<String>,
    release: impl FnMut() + Send + 'static,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let guard = OnPanic {
        what,
        name: name.into(),
        release,
    };
    tokio::spawn(async move {
        let _guard = guard;
        work.await;
    })
}

/// Held by the task.
struct OnPanic<F: FnMut()> {
    what: &'static str,
    name: String,
    release: F,
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
            let release = move || {
                lock(&of_task).remove("h1");
            };
            let task = in_task("power reading", "h1", release, async move {
                tokio::task::yield_now().await;
                assert!(!panics, "a reader panics");
            });
            assert_eq!(task.await.is_err(), panics);
            assert_eq!(lock(&marks).is_empty(), panics);
        }
    }
}
