//! The program of a demo member: an HTTP server that says who it is, and echoes what it was asked.

use std::{
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{HEADER_MEMBER, HEADER_POOL, HEADER_TLS, HEALTH_PATH, netns::Namespace};
use crate::{
    error::{Error, Result},
    runtime::runtime,
};

/// The longest request body that is echoed, in bytes.
const MAX_BODY: usize = 1 << 20;

/// What a member is told.
#[derive(Args, Clone, Debug)]
pub struct MemberOptions {
    /// Who it is
    #[arg(long)]
    name: String,
    /// Whose it is
    #[arg(long)]
    pool: String,
    /// Where it serves
    #[arg(long)]
    bind: SocketAddr,
    /// Network namespace
    #[arg(long)]
    netns: Option<String>,
    /// Key and certificate, PEM: it speaks TLS
    #[arg(long)]
    tls: Option<PathBuf>,
}

impl MemberOptions {
    /// The command line that a new process is given.
    pub(super) fn to_args(
        name: &str,
        pool: &str,
        bind: SocketAddr,
        netns: Option<&str>,
        tls: Option<&Path>,
    ) -> Vec<String> {
        let mut args = vec![
            "demo-member".to_owned(),
            format!("--name={name}"),
            format!("--pool={pool}"),
            format!("--bind={bind}"),
        ];
        args.extend(netns.map(|ns| format!("--netns={ns}")));
        args.extend(tls.map(|file| format!("--tls={}", file.display())));
        args
    }
}

/// Serves until it is killed.
///
/// # Errors
/// [`Error::Local`] when the address cannot be bound, or the certificate cannot be used.
pub fn run_member(options: &MemberOptions) -> Result<()> {
    if let Some(name) = &options.netns {
        Namespace::enter(name)?;
    }
    let tls = options.tls.as_deref().map(acceptor).transpose()?;
    runtime()?.block_on(async {
        let listener = TcpListener::bind(options.bind)
            .await
            .map_err(|e| Error::local(format!("TCP {}", options.bind), e))?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(accept(stream, tls.clone(), options.clone()));
                }
                // Out of descriptors, or the client is gone already: the next one may do better.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
}

/// TLS with the key and certificate of this file.
fn acceptor(file: &Path) -> Result<TlsAcceptor> {
    let failed = |e: &dyn std::fmt::Display| Error::local(file.display(), e);
    let pem = fs::read(file).map_err(|e| failed(&e))?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| failed(&e))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| failed(&e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| failed(&e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(stream: TcpStream, tls: Option<TlsAcceptor>, who: MemberOptions) {
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = tls else { return serve(stream, &who, None).await };
    // Whoever does not speak TLS gets no answer.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let session = stream.get_ref().1;
    let version = session.protocol_version().and_then(|v| v.as_str()).unwrap_or("TLS");
    let seen = format!("{version} {}", session.server_name().unwrap_or("-"));
    serve(stream, &who, Some(&seen)).await;
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, who: &MemberOptions, tls: Option<&str>) {
    let service = service_fn(|request| answer(who, tls, request));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    who: &MemberOptions,
    tls: Option<&str>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut said = BytesMut::new();
    if head.uri.path() == HEALTH_PATH {
        said.extend_from_slice(b"well\n");
    } else {
        said.extend_from_slice(
            line(&who.name, &who.pool, head.method.as_str(), &head.uri.to_string()).as_bytes(),
        );
    }
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        let mut refused = Response::new(Full::default());
        *refused.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return Ok(refused);
    };
    said.extend_from_slice(&body.to_bytes());
    let mut response = Response::builder().header(HEADER_MEMBER, &who.name).header(HEADER_POOL, &who.pool);
    if let Some(tls) = tls {
        response = response.header(HEADER_TLS, tls);
    }
    let response = response.body(Full::new(said.freeze())).unwrap_or_default();
    Ok(response)
}

/// The first line of every answer; what follows is the request's body.
pub(super) fn line(name: &str, pool: &str, method: &str, target: &str) -> String {
    format!("{name} of {pool} heard {method} {target}\n")
}
