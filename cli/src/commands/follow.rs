//! Following something to its end, by watching the API.

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Watches one object and calls `judge` on each of its states until that returns a value.
///
/// # Errors
/// The object's deletion, or the watch's end.
pub async fn until<K, T>(
    api: Api<K>,
    name: &str,
    mut judge: impl FnMut(&K) -> Option<T>,
) -> Result<T>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).default_backoff().boxed();
    while let Some(event) = events
        .try_next()
        .await
        .with_context(|| format!("{name}: the watch failed"))?
    {
        match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                if let Some(value) = judge(&object) {
                    return Ok(value);
                }
            }
            watcher::Event::Delete(_) => bail!("{name} was deleted meanwhile"),
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
    }
    bail!("{name}: the API server ended the watch")
}
