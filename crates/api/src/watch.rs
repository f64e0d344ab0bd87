//! Watches: how soon one that hears nothing is noticed, how soon an interrupted one is tried again, and how all begin anew after etcd was restored.

use std::fmt::Debug;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use kube::runtime::watcher::{self, Event, ExponentialBackoff, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch::{Receiver, Sender};

/// First wait, before it is spread.
const FIRST: Duration = Duration::from_millis(250);
/// Longest wait, before it is spread.
const LONGEST: Duration = Duration::from_secs(1);

/// How long the API server lets a watch stand before it ends it and we go on from where it was, seconds. A connection
/// that vanished without a word is noticed 5 s later (by kube's watcher), not after the five minutes of its default: until then
/// nobody is told anything. Not shorter: each of the ten watches of each agent is asked for anew so often.
pub const WATCH_SECONDS: u32 = 60;

/// Waits that double from 250 ms to 1 s, each made longer at random by up to itself, so that the tries of a
/// fleet spread. An operator that does not watch sees no host die, and an agent that does not watch starts
/// nothing that it is given: neither waits longer than the two seconds after which a missed renewal shows.
#[must_use]
pub fn watch_backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST)
        .with_max_delay(LONGEST)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .into()
}

/// Tells watches to begin anew with a list. After etcd was restored a watch goes on from a version that the
/// API server has not reached yet: it is told nothing until then, and never what happened meanwhile.
#[derive(Clone, Debug)]
pub struct Anew(Sender<u64>);

impl Default for Anew {
    fn default() -> Self {
        Self(Sender::new(0))
    }
}

impl Anew {
    /// Lets every watch begin anew.
    pub fn begin(&self) {
        self.0.send_modify(|times| *times += 1);
    }

    /// How often they were told to.
    #[must_use]
    pub fn times(&self) -> u64 {
        *self.0.borrow()
    }
}

/// A watch that begins anew whenever it is told to, and is bounded by [`WATCH_SECONDS`] whatever `config` says. Its errors
/// are those of [`watcher`], and it never ends.
pub fn watch_anew<K>(
    api: Api<K>,
    config: watcher::Config,
    anew: &Anew,
) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = config.timeout(WATCH_SECONDS);
    let begin = move || watcher(api.clone(), config.clone());
    renewed(begin, anew.0.subscribe()).boxed()
}

/// The items of the stream that `begin` makes, and from each word on those of another one.
fn renewed<S>(
    begin: impl Fn() -> S + Send + 'static,
    told: Receiver<u64>,
) -> impl Stream<Item = S::Item> + Send + 'static
where
    S: Stream + Send + 'static,
    S::Item: Send,
{
    let state = (Box::pin(begin()), told, begin);
    stream::unfold(state, |(mut items, mut told, begin)| async move {
        loop {
            tokio::select! {
                biased;
                Ok(()) = told.changed() => items = Box::pin(begin()),
                item = items.next() => return item.map(|item| (item, (items, told, begin))),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicU64, Ordering};

    use kube::runtime::utils::Backoff;

    use super::*;

    #[test]
    fn waits_grow_to_two_seconds_are_spread_and_begin_anew_after_success() {
        let mut waits = watch_backoff();
        let mut seen = BTreeSet::new();
        for least in [250, 500].into_iter().chain([1_000; 60]) {
            let wait = waits.next().expect("never ends").as_millis();
            assert!((least..=2 * least).contains(&wait), "{wait} of {least}");
            seen.insert(wait);
        }
        assert!(seen.len() > 10, "spread: {seen:?}");
        waits.reset();
        assert!(waits.next().expect("never ends") <= FIRST * 2);
    }

    #[tokio::test]
    async fn a_stream_that_is_told_nothing_begins_anew_with_a_word() {
        let (anew, begun) = (Anew::default(), AtomicU64::new(0));
        // As a watch that goes on from a version which the API server has not reached: one item, then none.
        let begin = move || {
            let times = begun.fetch_add(1, Ordering::Relaxed);
            stream::once(async move { times }).chain(stream::pending())
        };
        let mut items = renewed(begin, anew.0.subscribe()).boxed();
        assert_eq!(items.next().await, Some(0));
        assert!(
            futures::poll!(items.next()).is_pending(),
            "nothing was said"
        );
        anew.begin();
        assert_eq!(items.next().await, Some(1));
        anew.begin();
        anew.begin();
        assert_eq!(items.next().await, Some(2), "two words at once are one");
        assert!(futures::poll!(items.next()).is_pending());
        assert_eq!(anew.times(), 3);
        drop(anew);
        assert!(
            futures::poll!(items.next()).is_pending(),
            "it outlives who could say so"
        );
    }
}
