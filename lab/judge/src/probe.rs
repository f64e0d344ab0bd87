//! Probes targets and writes down what happened. Judges nothing, retries nothing: each probe is one
//! request on a new connection, so that a lost SYN shows.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::http;
use crate::results::{Config, ConfigError, HoldEvent, Line, Sample, Target};

/// A held connection that says nothing for this long counts as broken: its guest is gone without
/// a farewell, and TCP alone would wait for ever.
const HOLD_SILENCE: Duration = Duration::from_secs(60);
/// Wait before a held connection is tried again.
const HOLD_RETRY: Duration = Duration::from_secs(1);
/// Lines in memory before the file must have taken some.
const LINES_WAITING_MAXIMUM: usize = 100_000;

/// Why a run ended early.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The configuration is wrong.
    #[error("the configuration is wrong")]
    Config(#[from] ConfigError),
    /// The results can not be written.
    #[error("results can not be written")]
    Write(#[source] io::Error),
    /// A task of ours failed.
    #[error("a probe task failed")]
    Task(#[from] tokio::task::JoinError),
}

/// Turns a monotonic clock into nanoseconds since 1970 by one reading of the wall clock.
#[derive(Clone, Copy)]
struct Clock {
    started: Instant,
    started_at: u64,
}

impl Clock {
    fn start() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            started: Instant::now(),
            started_at: since.as_nanos() as u64,
        }
    }

    fn at(&self, instant: Instant) -> u64 {
        self.started_at + instant.duration_since(self.started).as_nanos() as u64
    }
}

/// What every task needs.
struct Shared {
    clock: Clock,
    timeout: Duration,
    out: blocking::SyncSender<Line>,
}

impl Shared {
    /// Hands a line to the file's thread. It is bounded: when the file takes nothing any more, the
    /// run fails at its end rather than filling memory or losing results unseen.
    fn write(&self, line: Line) {
        if self.out.try_send(line).is_err() {
            // The writer has ended or is hopelessly behind; both show when it is joined.
            eprintln!("zy-prober: a result could not be written");
        }
    }
}

/// Probes until `stop` becomes true (or its sender is gone), then waits for probes under way. Runs
/// on the caller's runtime and network namespace; results go to `out`, each flushed within 0.2 s.
pub async fn run(
    config: &Config,
    out: impl Write + Send + 'static,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ProbeError> {
    config.check()?;
    let clock = Clock::start();
    let (sender, receiver) = blocking::sync_channel(LINES_WAITING_MAXIMUM);
    let writer = thread::spawn(move || write_lines(&receiver, out));
    let shared = Arc::new(Shared {
        clock,
        timeout: Duration::from_millis(config.timeout_milliseconds),
        out: sender,
    });
    shared.write(Line::Run {
        at: clock.started_at,
        config: config.clone(),
    });
    let mut tasks = JoinSet::new();
    let count = config.targets.len() as u32;
    for (index, target) in config.targets.iter().enumerate() {
        let every = Duration::from_millis(target.interval(config));
        // Spread over the interval: a burst of all targets at once would measure itself.
        let first = clock.started + every * index as u32 / count;
        let (target, shared) = (Arc::new(target.clone()), Arc::clone(&shared));
        if target.hold_path.is_some() {
            tasks.spawn(hold(Arc::clone(&target), Arc::clone(&shared), stop.clone()));
        }
        tasks.spawn(probe_regularly(target, shared, first, every, stop.clone()));
    }
    drop(shared);
    // An error means that whoever could stop us is gone.
    let _ = stop.wait_for(|stop| *stop).await;
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    match writer.join() {
        Ok(written) => written.map_err(ProbeError::Write),
        Err(_) => Err(ProbeError::Write(io::Error::other(
            "the writing thread panicked",
        ))),
    }
}

/// Writes lines until every sender is gone; what has been written is in the file 0.2 s later.
fn write_lines(lines: &blocking::Receiver<Line>, out: impl Write) -> io::Result<()> {
    const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let mut flushed = Instant::now();
    loop {
        match lines.recv_timeout(FLUSH_INTERVAL) {
            Ok(line) => {
                serde_json::to_writer(&mut out, &line)?;
                out.write_all(b"\n")?;
            }
            Err(blocking::RecvTimeoutError::Timeout) => {}
            Err(blocking::RecvTimeoutError::Disconnected) => return out.flush(),
        }
        if flushed.elapsed() >= FLUSH_INTERVAL {
            out.flush()?;
            flushed = Instant::now();
        }
    }
}

async fn probe_regularly(
    target: Arc<Target>,
    shared: Arc<Shared>,
    first: Instant,
    every: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = interval_at(first, every);
    // A late prober skips: catching up would send a burst, and the gap must show as unobserved.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {
                under_way.spawn(probe_once(Arc::clone(&target), Arc::clone(&shared)));
            }
            // At most time-out / interval are under way, as each ends with its time-out.
            Some(_) = under_way.join_next() => {}
        }
    }
    while under_way.join_next().await.is_some() {}
}

async fn probe_once(target: Arc<Target>, shared: Arc<Shared>) {
    let began = Instant::now();
    let answer = timeout(shared.timeout, http::get(&target)).await;
    let took = began.elapsed();
    let (ok, error, guest) = match answer {
        Err(_) => (
            false,
            Some(format!(
                "no answer within {} ms",
                shared.timeout.as_millis()
            )),
            None,
        ),
        Ok(Err(error)) => (false, Some(error), None),
        Ok(Ok(answer)) if (200..400).contains(&answer.status) => (true, None, answer.guest()),
        Ok(Ok(answer)) => (
            false,
            Some(format!("status {}", answer.status)),
            answer.guest(),
        ),
    };
    shared.write(Line::Probe(Sample {
        at: shared.clock.at(began),
        target: target.id.clone(),
        ok,
        took: took.as_nanos() as u64,
        error,
        guest,
    }));
}

/// Holds one connection after another, until told to stop.
async fn hold(target: Arc<Target>, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    for connection in 1.. {
        let mut lines = 0;
        let broken = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            broken = hold_once(&target, &shared, connection, &mut lines) => broken,
        };
        let at = shared.clock.at(Instant::now());
        shared.write(Line::Hold(HoldEvent {
            at,
            target: target.id.clone(),
            connection,
            lines,
            broken: Some(broken),
        }));
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(HOLD_RETRY) => {}
        }
    }
}

/// Holds one connection until it breaks; returns why.
async fn hold_once(target: &Target, shared: &Shared, connection: u64, lines: &mut u64) -> String {
    let path = target.hold_path.as_deref().unwrap_or("/");
    let mut stream = match timeout(shared.timeout, http::send(target, path, true)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return error,
        Err(_) => return format!("not connected within {} ms", shared.timeout.as_millis()),
    };
    let mut bytes = Vec::new();
    let mut body = false;
    loop {
        match timeout(HOLD_SILENCE, stream.read_buf(&mut bytes)).await {
            Err(_) => return format!("silent for {} s", HOLD_SILENCE.as_secs()),
            Ok(Ok(0)) => return "closed by the guest".to_owned(),
            Ok(Err(error)) => return format!("reading failed: {error}"),
            Ok(Ok(_)) => {}
        }
        if !body {
            match http::head(&bytes) {
                Err(error) => return error,
                Ok(None) => continue,
                Ok(Some((200, _, at))) => {
                    bytes.drain(..at);
                    body = true;
                }
                Ok(Some((status, _, _))) => return format!("status {status}"),
            }
        }
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            bytes.drain(..=end);
            *lines += 1;
            let at = shared.clock.at(Instant::now());
            let target = target.id.clone();
            shared.write(Line::Hold(HoldEvent {
                at,
                target,
                connection,
                lines: *lines,
                broken: None,
            }));
        }
    }
}
