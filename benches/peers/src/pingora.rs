//! A load balancer on the pingora-proxy crate, with what the other peers of the comparison do: two members taken in
//! turn, two policies on each request (403 for paths under `/reject`, a second pool for `X-Pool: second`),
//! `X-Forwarded-For`, counters by class of response, one thread.

use std::{
    net::SocketAddr,
    sync::LazyLock,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use clap::Parser;
use pingora_core::{
    Error, ErrorType, Result,
    server::{Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// The version of the crate that is compared, of the lock file that this program is built from.
static VERSION: LazyLock<&'static str> = LazyLock::new(|| {
    let package =
        include_str!("../Cargo.lock").split("[[package]]").find(|p| p.contains("name = \"pingora-proxy\""));
    package.and_then(|p| p.split("version = \"").nth(1)?.split('"').next()).unwrap_or("unknown")
});

#[derive(Parser)]
#[command(version = *VERSION)]
struct Args {
    /// Where clients connect.
    #[arg(long)]
    listen: SocketAddr,
    /// A member of the default pool; may be repeated.
    #[arg(long, required = true)]
    first: Vec<SocketAddr>,
    /// A member of the second pool; may be repeated.
    #[arg(long, required = true)]
    second: Vec<SocketAddr>,
}

struct Pool {
    members: Vec<SocketAddr>,
    next: AtomicUsize,
}

impl Pool {
    fn new(members: Vec<SocketAddr>) -> Self {
        Self { members, next: AtomicUsize::new(0) }
    }

    fn pick(&self) -> SocketAddr {
        self.members[self.next.fetch_add(1, Relaxed) % self.members.len()]
    }
}

#[derive(Default)]
struct Statistics {
    requests: AtomicU64,
    responses: [AtomicU64; 6],
    bytes: AtomicU64,
}

struct LoadBalancer {
    first: Pool,
    second: Pool,
    statistics: Statistics,
}

#[async_trait]
impl ProxyHttp for LoadBalancer {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
        self.statistics.requests.fetch_add(1, Relaxed);
        if session.req_header().uri.path().starts_with("/reject") {
            session.respond_error(403).await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let second = session.req_header().headers.get("x-pool").is_some_and(|v| v == "second");
        let pool = if second { &self.second } else { &self.first };
        let mut peer = HttpPeer::new(pool.pick(), false, String::new());
        peer.options.connection_timeout = Some(Duration::from_secs(5));
        peer.options.read_timeout = Some(Duration::from_secs(50));
        peer.options.write_timeout = Some(Duration::from_secs(50));
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        let client = session
            .client_addr()
            .and_then(|a| a.as_inet())
            .ok_or_else(|| Error::explain(ErrorType::InternalError, "a client without an address"))?;
        request.append_header("X-Forwarded-For", client.ip().to_string())?;
        Ok(())
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, _: &mut ()) {
        let class = session.response_written().map_or(0, |r| r.status.as_u16() as usize / 100);
        self.statistics.responses[class.min(5)].fetch_add(1, Relaxed);
        self.statistics.bytes.fetch_add(session.body_bytes_sent() as u64, Relaxed);
    }
}

fn main() {
    let args = Args::parse();
    let conf = ServerConf {
        threads: 1,
        // A runtime of one thread is cheaper without it.
        work_stealing: false,
        upstream_keepalive_pool_size: 1024,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = LoadBalancer {
        first: Pool::new(args.first),
        second: Pool::new(args.second),
        statistics: Statistics::default(),
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(&args.listen.to_string());
    server.add_service(service);
    server.run_forever();
}
