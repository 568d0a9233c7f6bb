//! The program of a demo member: an HTTP server that says who it is, and echoes what it was asked.

use std::{convert::Infallible, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::{HEADER_MEMBER, HEADER_POOL, HEALTH_PATH, netns::Namespace};
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
}

impl MemberOptions {
    /// The command line that a new process is given.
    pub(super) fn to_args(name: &str, pool: &str, bind: SocketAddr, netns: Option<&str>) -> Vec<String> {
        let mut args = vec![
            "demo-member".to_owned(),
            format!("--name={name}"),
            format!("--pool={pool}"),
            format!("--bind={bind}"),
        ];
        args.extend(netns.map(|ns| format!("--netns={ns}")));
        args
    }
}

/// Serves until it is killed.
///
/// # Errors
/// [`Error::Local`] when the address cannot be bound.
pub fn run_member(options: &MemberOptions) -> Result<()> {
    if let Some(name) = &options.netns {
        Namespace::enter(name)?;
    }
    runtime()?.block_on(async {
        let listener = TcpListener::bind(options.bind)
            .await
            .map_err(|e| Error::local(format!("TCP {}", options.bind), e))?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(serve(stream, options.clone()));
                }
                // Out of descriptors, or the client is gone already: the next one may do better.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
}

async fn serve(stream: TcpStream, who: MemberOptions) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(&who, request));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    who: &MemberOptions,
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
    let response = Response::builder()
        .header(HEADER_MEMBER, &who.name)
        .header(HEADER_POOL, &who.pool)
        .body(Full::new(said.freeze()))
        .unwrap_or_default();
    Ok(response)
}

/// The first line of every answer; what follows is the request's body.
pub(super) fn line(name: &str, pool: &str, method: &str, target: &str) -> String {
    format!("{name} of {pool} heard {method} {target}\n")
}
