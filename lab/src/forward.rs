//! The forwarder: lets the machine's own loopback reach one address of the control node, or the
//! control node an address of the machine's network. A socket belongs to the namespace in which it
//! was made: it listens here or inside, and connects from the other side.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};
use tokio::io::copy_bidirectional;

use crate::process::join_namespace;

/// Connections carried at once; a person and a few tests need far fewer.
const CONNECTIONS_MAX: usize = 256;

/// Which end of a forwarder lies inside a namespace; the other lies here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Inside {
    /// It listens here and connects inside.
    Target,
    /// It listens inside and connects from here.
    Listener,
}

/// Listens on `listen` and carries each connection to `target`.
///
/// # Errors
/// The port is taken, or the namespace does not exist.
pub fn run(listen: SocketAddr, target: SocketAddr, namespace: &str, inside: Inside) -> Result<()> {
    let bind = move || {
        TcpListener::bind(listen).with_context(|| format!("{listen}: can not be listened on"))
    };
    let listener = match inside {
        Inside::Target => {
            let listener = bind()?;
            // Before any other thread exists: the namespace is a thread's.
            join_namespace(namespace)?;
            listener
        }
        Inside::Listener => std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                join_namespace(namespace)?;
                bind()
            });
            inside
                .join()
                .unwrap_or_else(|_| bail!("the listening thread panicked"))
        })?,
    };
    listener.set_nonblocking(true)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
            loop {
                let place = places.clone().acquire_owned().await?;
                let (mut outside, _) = listener.accept().await?;
                tokio::spawn(async move {
                    // Either end may vanish at any time: nothing to do about it but to close.
                    if let Ok(mut inside) = tokio::net::TcpStream::connect(target).await {
                        let _ = copy_bidirectional(&mut outside, &mut inside).await;
                    }
                    drop(place);
                });
            }
        })
}
