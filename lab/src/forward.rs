//! The forwarder: lets the machine's own loopback reach one address of the control node. A
//! socket belongs to the namespace in which it was made, so it listens outside, then moves in.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;

use crate::process::join_namespace;

/// Connections carried at once; a person and a few tests need far fewer.
const CONNECTIONS_MAX: usize = 256;

/// Listens on `listen` here and carries each connection to `target` inside the namespace.
///
/// # Errors
/// The port is taken, or the namespace does not exist.
pub fn run(listen: SocketAddr, namespace: &str, target: SocketAddr) -> Result<()> {
    let listener =
        TcpListener::bind(listen).with_context(|| format!("{listen}: can not be listened on"))?;
    listener.set_nonblocking(true)?;
    // Before any other thread exists: the namespace is a thread's.
    join_namespace(namespace)?;
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
