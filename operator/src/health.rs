//! `/healthz`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus::{Encoder, TextEncoder};

/// Serves until the process ends.
///
/// # Errors
/// The port is taken.
pub async fn serve(address: SocketAddr, ready: Arc<AtomicBool>) -> Result<()> {
    let readyz = move || {
        let ready = ready.load(Ordering::Acquire);
        async move {
            if ready {
                (StatusCode::OK, "ok")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "caches are not filled yet")
            }
        }
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route(
            "/metrics",
            get(|| async {
                let mut bytes = Vec::new();
                match TextEncoder::new().encode(&prometheus::gather(), &mut bytes) {
                    Ok(()) => (StatusCode::OK, String::from_utf8_lossy(&bytes).into_owned()),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                }
            }),
        );
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("--metrics-address {address}"))?;
    axum::serve(listener, router)
        .await
        .context("the health server ended")
}
