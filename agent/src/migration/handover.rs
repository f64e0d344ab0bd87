//! The hand-over between agents, by mutual TLS: the target asks the source whether an epoch was
//! handed over. The same port serves metrics and health.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Move;
use crate::agent::Context;
use crate::ledger::EpochState;
use crate::metrics;

/// An answer must come within.
const ANSWER: Duration = Duration::from_millis(500);
/// The longest that an answer is held back for something new to tell.
const HELD_MAX: Duration = Duration::from_millis(300);
/// A handshake must be done within.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections at once.
const CONNECTIONS_MAX: usize = 128;

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    uid: String,
    epoch: i64,
    /// The asker knows already that the switch-over is near.
    #[serde(default)]
    near: bool,
    /// For how long the answer may be held back until there is something new.
    #[serde(default)]
    wait_milliseconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    /// The epoch was handed over.
    pub handed_over: bool,
    /// The switch-over is near: frames should reach both copies from now on.
    #[serde(default)]
    pub near: bool,
}

fn certificates(
    context: &Context,
) -> Result<(
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
    rustls::RootCertStore,
)> {
    let tls = &context.options.tls;
    let chain = CertificateDer::pem_file_iter(&tls.tls_cert)
        .and_then(Iterator::collect)
        .with_context(|| format!("--tls-cert {}", tls.tls_cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.tls_key)
        .with_context(|| format!("--tls-key {}", tls.tls_key.display()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&tls.tls_ca)
        .with_context(|| format!("--tls-ca {}", tls.tls_ca.display()))?
    {
        roots.add(certificate?)?;
    }
    Ok((chain, key, roots))
}

/// Serves until the process ends; only bearers of a certificate of our authority are answered.
///
/// # Errors
/// The port is taken or a certificate can not be read.
pub async fn serve(context: &Arc<Context>, tasks: &mut JoinSet<&'static str>) -> Result<()> {
    let (chain, key, roots) = certificates(context)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(context.options.listen)
        .await
        .with_context(|| format!("--listen {}", context.options.listen))?;
    let router = Router::new()
        .route("/v1/handover", get(answer))
        .route(
            "/metrics",
            get(|State(context): State<Arc<Context>>| async move { metrics::text(&context).await }),
        )
        .route("/healthz", get(|| async { "ok" }))
        .with_state(context.clone());
    tasks.spawn(async move {
        let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return "agent's port";
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    continue;
                }
            };
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let _place = place;
                let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await
                else {
                    return;
                };
                let service = hyper_util::service::TowerToHyperService::new(router);
                // A peer that breaks off is its own affair.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(())
}

/// Answers at once when there is something new to tell, else at the end of the asker's patience:
/// the moment of the hand-over is learned without a stream of questions, whose cost would slow it.
async fn answer(
    State(context): State<Arc<Context>>,
    Query(question): Query<Question>,
) -> Result<Json<Answer>, StatusCode> {
    let wait = Duration::from_millis(question.wait_milliseconds).min(HELD_MAX);
    let deadline = tokio::time::Instant::now() + wait;
    let mut changes = context.moves.changes();
    loop {
        let answer = answer_now(&context, &question)?;
        let new = answer.handed_over || (answer.near && !question.near);
        if new
            || tokio::time::timeout_at(deadline, changes.changed())
                .await
                .is_err()
        {
            return Ok(Json(answer));
        }
    }
}

fn answer_now(context: &Context, question: &Question) -> Result<Answer, StatusCode> {
    let entry = context
        .ledger
        .entry(&question.uid)
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let handed_over = entry.state(question.epoch) == Some(EpochState::HandedOver);
    Ok(Answer {
        handed_over,
        near: handed_over || context.moves.is_near(&question.uid),
    })
}

/// Asks the source, which answers when there is more to tell than `near`, or after `wait`. No
/// answer is no hand-over, and frames had better reach this copy too.
pub(super) async fn ask(context: &Context, moving: &Move, near: bool, wait: Duration) -> Answer {
    match try_ask(context, moving, near, wait).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(
                error = format!("{error:#}"),
                "the source did not answer; the API will tell"
            );
            Answer {
                handed_over: false,
                near: true,
            }
        }
    }
}

async fn try_ask(context: &Context, moving: &Move, near: bool, wait: Duration) -> Result<Answer> {
    let client = context
        .moves_client
        .get_or_try_init(|| async { client(context) })
        .await?;
    let port = context.options.listen.port();
    let url = format!("https://{}:{port}/v1/handover", moving.source.host);
    let question = Question {
        uid: moving.vm.uid.clone(),
        epoch: moving.source.epoch.0,
        near,
        wait_milliseconds: u64::try_from(wait.as_millis())?,
    };
    Ok(client
        .get(url)
        .query(&question)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?)
}

fn client(context: &Context) -> Result<reqwest::Client> {
    let (chain, key, roots) = certificates(context)?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_client_auth_cert(chain, key)?;
    Ok(reqwest::Client::builder()
        .use_preconfigured_tls(config)
        .timeout(ANSWER)
        .build()?)
}
