//! What the guest knows about itself, shared between its threads, and how it tells it.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::json;
use crate::record::writer_text;
use crate::seed::Identity;

/// A data disk that has taken no write for this long makes the guest answer 503: a database that can
/// not write is down, however well its network answers. Far above any pause of a live migration.
pub const STALL: Duration = Duration::from_secs(10);

/// State of the disk log.
#[derive(Clone, Debug, Default)]
pub struct DiskState {
    /// Random number of this boot's writer.
    pub writer: [u8; 16],
    /// Boots on this disk.
    pub boot_count: u64,
    /// Last counter that the disk has acknowledged; 0: none yet.
    pub counter: u64,
    /// Foreign records met, ever.
    pub conflicts: u64,
    /// When the disk acknowledged it; at the beginning, when the writer began.
    pub acknowledged_at: Option<Instant>,
    /// Last error, empty after a good write.
    pub message: String,
}

/// Shared state of the guest.
pub struct Status {
    /// Who it is.
    pub identity: Identity,
    /// Boots of the system disk, from 1; 0 when the system disk can not tell.
    pub boot_count: u64,
    started: Instant,
    uptime_at_start: Duration,
    requests: AtomicU64,
    /// `None`: no data disk.
    disk: Mutex<Option<DiskState>>,
}

impl Status {
    /// State of a guest that has just started.
    pub fn new(identity: Identity, boot_count: u64) -> Self {
        Self {
            identity,
            boot_count,
            started: Instant::now(),
            uptime_at_start: kernel_uptime(),
            requests: AtomicU64::new(0),
            disk: Mutex::new(None),
        }
    }

    /// Time since the kernel booted.
    pub fn uptime(&self) -> Duration {
        self.uptime_at_start + self.started.elapsed()
    }

    /// Counts a request and returns its number.
    pub fn count_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Publishes what the disk writer knows.
    pub fn set_disk(&self, state: DiskState) {
        *self.lock() = Some(state);
    }

    /// A poisoned lock holds the last whole state: it is only ever replaced, never changed in place.
    fn lock(&self) -> MutexGuard<'_, Option<DiskState>> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the guest does its work, and its state as JSON.
    pub fn report(&self, site: Option<&str>, request: u64) -> (bool, String) {
        let disk = self.lock().clone();
        let (healthy, disk) = match &disk {
            None => (true, "null".to_owned()),
            Some(state) => disk_json(state),
        };
        let identity = &self.identity;
        let text = format!(
            "{{\"name\":{},\"tier\":{},\"role\":{},\"site\":{},\"boot_count\":{},\"uptime_seconds\":{:.3},\"requests\":{request},\"disk\":{disk}}}\n",
            json::string(&identity.name),
            json::string(&identity.tier),
            json::string(&identity.role),
            site.map_or("null".to_owned(), json::string),
            self.boot_count,
            self.uptime().as_secs_f64(),
        );
        (healthy, text)
    }
}

fn disk_json(state: &DiskState) -> (bool, String) {
    let age = state.acknowledged_at.map_or(STALL, |at| at.elapsed());
    let healthy = age < STALL && state.counter > 0;
    let text = format!(
        "{{\"healthy\":{healthy},\"counter\":{},\"writer\":\"{}\",\"boot_count\":{},\"conflicts\":{},\"age_milliseconds\":{},\"message\":{}}}",
        state.counter,
        writer_text(&state.writer),
        state.boot_count,
        state.conflicts,
        age.as_millis(),
        json::string(&state.message),
    );
    (healthy, text)
}

/// Uptime by the kernel; zero where it does not say (then uptime counts from the program's start).
fn kernel_uptime() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse::<f64>().ok());
    Duration::from_secs_f64(seconds.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn without_a_data_disk_the_guest_is_healthy() {
        let status = Status::new(
            Identity {
                name: "web-0".into(),
                ..Identity::default()
            },
            2,
        );
        let (healthy, text) = status.report(Some("a.example"), status.count_request());
        assert!(healthy);
        assert!(
            text.contains("\"name\":\"web-0\"") && text.contains("\"boot_count\":2"),
            "{text}"
        );
        assert!(
            text.contains("\"site\":\"a.example\"") && text.contains("\"requests\":1,"),
            "{text}"
        );
        assert!(text.contains("\"disk\":null"), "{text}");
    }

    #[test]
    fn a_disk_without_an_acknowledged_write_is_unhealthy() {
        let status = Status::new(Identity::default(), 1);
        status.set_disk(DiskState {
            acknowledged_at: Some(Instant::now()),
            ..DiskState::default()
        });
        assert!(!status.report(None, 1).0, "no write yet");
        status.set_disk(DiskState {
            counter: 5,
            acknowledged_at: Some(Instant::now()),
            ..DiskState::default()
        });
        assert!(status.report(None, 1).0);
        let long_ago = Instant::now().checked_sub(STALL).unwrap();
        status.set_disk(DiskState {
            counter: 5,
            acknowledged_at: Some(long_ago),
            ..DiskState::default()
        });
        assert!(!status.report(None, 1).0, "stalled");
    }
}
