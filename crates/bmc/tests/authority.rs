//! The declared authority is what a controller's certificate is judged by, for readings and for commands.

mod controller;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use api::BmcProtocol;
use bmc::{BmcError, connect_switch};
use controller::{UUID, login, spec};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// An authority: the PEM of its certificate, and a server for 127.0.0.1 that it vouches for.
fn authority(name: &str) -> Result<(String, ServerConfig)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    let certificate = params.signed_by(&key, &issuer)?.der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok((pem, config))
}

/// A Redfish service over TLS, and how many requests arrived in it.
async fn serve(config: ServerConfig) -> Result<(String, Arc<AtomicUsize>)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("https://{}", listener.local_addr()?);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us goes away in the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 4096];
            let Ok(length @ 1..) = stream.read(&mut request).await else {
                continue;
            };
            counted.fetch_add(1, Ordering::SeqCst);
            let asked = String::from_utf8_lossy(&request[..length]).into_owned();
            let body = if asked.starts_with("GET /redfish/v1/Systems HTTP") {
                "{\"Members\":[{\"@odata.id\":\"/redfish/v1/Systems/1\"}]}".to_owned()
            } else {
                format!("{{\"UUID\":\"{UUID}\",\"PowerState\":\"On\"}}")
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            // The client may have had enough.
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    Ok((url, requests))
}

#[tokio::test]
async fn a_controller_that_the_declared_authority_does_not_vouch_for_is_told_no_login() -> Result<()>
{
    let ((own, config), (other, _)) = (authority("own")?, authority("other")?);
    let (url, requests) = serve(config).await?;
    let controller = |pem: Option<&String>| {
        let mut spec = spec(BmcProtocol::Redfish, url.clone());
        spec.certificate_authority = pem.cloned();
        connect_switch(&spec, login("secret"))
    };
    for result in [
        controller(Some(&other))?.force_off(UUID).await,
        controller(Some(&other))?.switch_on(UUID).await,
        controller(Some(&other))?.read(UUID).await.map(drop),
    ] {
        assert!(
            matches!(result, Err(BmcError::Unreachable { .. })),
            "{result:?}"
        );
    }
    assert_eq!(requests.load(Ordering::SeqCst), 0, "no request was sent");
    // Vouched for, and without a declared authority: most controllers sign for themselves.
    for pem in [Some(&own), None] {
        controller(pem)?.read(UUID).await?;
        controller(pem)?.force_off(UUID).await?;
    }
    Ok(())
}
