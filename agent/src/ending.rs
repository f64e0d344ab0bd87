//! How a program of ours ends: in time, whatever its threads wait for.

use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;

/// How long the threads of a program that ends may take. Nothing that matters is left to them: what was begun is in the
/// ledger, and is finished or closed by the program that is started next.
const THREADS_END_WITHIN: Duration = Duration::from_secs(1);

/// Runs a program to its end on a runtime. One that is merely dropped waits without end for threads that hang on a pool:
/// after a firing of the guard, or the panic of a task, the host would have no agent for as long as its storage is away.
///
/// # Errors
/// No runtime could be made.
pub fn run<T>(runtime: io::Result<Runtime>, program: impl Future<Output = T>) -> io::Result<T> {
    let runtime = runtime?;
    let ended = runtime.block_on(program);
    runtime.shutdown_timeout(THREADS_END_WITHIN);
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::runtime::Builder;

    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_thread_that_hangs_keeps_no_program_from_ending() {
        let (never, hangs) = mpsc::channel::<()>();
        let (says, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let program = async move {
                let (begins, begun) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    let _ = begins.send(());
                    let _ = hangs.recv();
                });
                begun.await.expect("it hangs");
                7
            };
            let _ = says.send(run(Builder::new_multi_thread().build(), program));
        });
        let ended = ended.recv_timeout(LONG).expect("it ends");
        assert_eq!(ended.expect("a runtime"), 7);
        drop(never);
    }
}
