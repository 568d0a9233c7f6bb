//! The proxies that are compared, each configured for the same work on one thread: two members taken in turn, two
//! policies on each request, `X-Forwarded-For`, statistics on, request logs off, and TCP relayed to one member.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;

use crate::{
    Result,
    document::{Document, Listener, Pool, two_policies},
    exchange::Exchange,
    load,
    process::Process,
};

/// A proxy under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    /// This project's.
    Amphora,
    /// What ratios refer to, configured as Octavia renders it.
    Haproxy,
    /// nginx with its stream module.
    Nginx,
    /// `benches/peers`: HTTP only, the crate relays no plain TCP.
    Pingora,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `amphora-proxy`.
    pub amphora: PathBuf,
    /// `haproxy`.
    pub haproxy: PathBuf,
    /// `nginx`.
    pub nginx: PathBuf,
    /// `amphora-bench-pingora`.
    pub pingora: PathBuf,
}

/// The members, the same for every peer.
#[derive(Clone, Debug)]
pub struct Members {
    /// Of the default pool.
    pub first: [SocketAddr; 2],
    /// Of the pool that a policy leads to.
    pub second: SocketAddr,
    /// Of the TCP pool.
    pub tcp: SocketAddr,
}

/// A peer that runs.
#[derive(Debug)]
pub struct Running {
    /// The process; dropping it stops it.
    pub process: Process,
    /// Its HTTP listener.
    pub http: SocketAddr,
    /// Its TCP listener, if it has one.
    pub tcp: Option<SocketAddr>,
}

impl Peer {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amphora => "amphora-proxy",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Pingora => "pingora-proxy",
        }
    }

    /// Its version, or why it cannot take part.
    pub fn version(self, programs: &Programs) -> Result<String> {
        let (program, argument) = match self {
            Self::Amphora => (&programs.amphora, "--version"),
            Self::Haproxy => (&programs.haproxy, "-v"),
            Self::Nginx => (&programs.nginx, "-v"),
            Self::Pingora => (&programs.pingora, "--version"),
        };
        let output = Command::new(program)
            .arg(argument)
            .output()
            .map_err(|e| format!("{} cannot be started: {e}", program.display()))?;
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
        // "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - ...", "nginx version: nginx/1.22.1", "amphora-proxy 0.1.0"
        let version = line
            .split([' ', '/'])
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .ok_or_else(|| format!("{} does not tell its version: {line}", program.display()))?;
        Ok(version.to_owned())
    }

    /// Starts it on `core` with its files in `dir` and its listeners on `port` and the port after it, and checks that
    /// it answers and that the policies work.
    pub fn start(
        self,
        programs: &Programs,
        members: &Members,
        dir: &Path,
        port: u16,
        core: usize,
    ) -> Result<Running> {
        fs::create_dir_all(dir)?;
        let http = SocketAddr::from(([127, 0, 0, 1], port));
        let tcp = SocketAddr::from(([127, 0, 0, 1], port + 1));
        let mut tcp = Some(tcp);
        let command = match self {
            Self::Amphora => amphora(programs, members, dir, port)?,
            Self::Haproxy => haproxy(programs, members, dir, port)?,
            Self::Nginx => {
                if nginx_stream_module().is_none() {
                    tcp = None;
                }
                nginx(programs, members, dir, port)?
            }
            Self::Pingora => {
                tcp = None;
                pingora(programs, members, http)
            }
        };
        let log = dir.join("output.log");
        let result = Process::start(command, core, &log).and_then(|mut process| {
            let answers = |address| load::once(address, &Exchange::http(1, false)).is_ok();
            let relays = |address| load::once(address, &Exchange::tcp(false)).is_ok();
            process.wait_ready(&log, || answers(http) && tcp.is_none_or(relays))?;
            process.runs_only_on(core)?;
            check_policies(http, members)?;
            Ok(process)
        });
        let process = result.map_err(|e| format!("{}: {e}", self.name()))?;
        Ok(Running { process, http, tcp })
    }
}

/// That each policy does its work, so that nothing is measured that does less than the others.
fn check_policies(http: SocketAddr, members: &Members) -> Result<()> {
    let port = |a: &SocketAddr| Some(a.port().to_string().into_bytes());
    load::once(http, &Exchange::get("/reject/this", "", 403, None))
        .map_err(|e| format!("the first policy: {e}"))?;
    load::once(http, &Exchange::get("/port", "X-Pool: second\r\n", 200, port(&members.second)))
        .map_err(|e| format!("the second policy: {e}"))?;
    for headers in ["", "X-Pool: first\r\n"] {
        let found = members.first.iter().any(|first| {
            let exchange = Exchange::get("/port", headers, 200, port(first));
            // Taken in turn: one of two tries meets it.
            (0..2).any(|_| load::once(http, &exchange).is_ok())
        });
        if !found {
            return Err("the default pool is not reached".into());
        }
    }
    Ok(())
}

fn amphora(programs: &Programs, members: &Members, dir: &Path, port: u16) -> Result<Command> {
    let file = dir.join("load-balancer.json");
    fs::write(&file, amphora_document(members, port).to_json())?;
    Ok(amphora_command(&programs.amphora, &file, &dir.join("control.sock"), 1))
}

fn amphora_document(members: &Members, port: u16) -> Document {
    let listeners = vec![
        Listener::new(1, "HTTP", port, 1).with_forwarded_for().with_l7policies(two_policies(2)),
        Listener::new(2, "TCP", port + 1, 3),
    ];
    let pools = vec![
        Pool::new(1, "HTTP", &members.first),
        Pool::new(2, "HTTP", &[members.second]),
        Pool::new(3, "TCP", &[members.tcp]),
    ];
    Document::new(listeners, pools)
}

/// The command line of this project's proxy.
pub fn amphora_command(program: &Path, document: &Path, control_socket: &Path, workers: usize) -> Command {
    let mut command = Command::new(program);
    command.arg("--load-balancer").arg(document).arg("--control-socket").arg(control_socket);
    command.arg("--workers").arg(workers.to_string());
    command
}

/// The text that Octavia 19 renders for such a load balancer with `connection_logging = False`, less `daemon` and
/// `user`, with a `maxconn` that the limit of open files allows, and with one thread.
fn haproxy(programs: &Programs, members: &Members, dir: &Path, port: u16) -> Result<Command> {
    let (_, open_files) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    // Two descriptors per session and, for splicing, a pipe for every fourth.
    let maxconn = (open_files.saturating_sub(100) * 2 / 5).min(50_000);
    let [first, other] = members.first;
    let (second, tcp_member) = (members.second, members.tcp);
    let (socket, tcp) = (dir.join("stats.sock"), port + 1);
    let text = format!(
        "global
    stats socket {} mode 0666 level user
    nbthread 1
    maxconn {maxconn}

defaults
    no log
    retries 3
    option redispatch
    option splice-request
    option splice-response
    option http-keep-alive

frontend http
    maxconn {maxconn}
    bind 127.0.0.1:{port}
    mode http
        acl rule1 path -m beg /reject
    http-request deny if rule1
        acl rule2 req.hdr(X-Pool) -m str second
    use_backend second:http if rule2
    default_backend first:http
    timeout client 50000

backend first:http
    mode http
    http-reuse safe
    balance roundrobin
    option forwardfor
    fullconn {maxconn}
    option allbackups
    timeout connect 5000
    timeout server 50000
    server member1 {first} weight 1
    server member2 {other} weight 1

backend second:http
    mode http
    http-reuse safe
    balance roundrobin
    option forwardfor
    fullconn {maxconn}
    option allbackups
    timeout connect 5000
    timeout server 50000
    server member3 {second} weight 1

frontend tcp
    maxconn {maxconn}
    bind 127.0.0.1:{tcp}
    mode tcp
    default_backend third:tcp
    timeout client 50000

backend third:tcp
    mode tcp
    balance roundrobin
    fullconn {maxconn}
    option allbackups
    timeout connect 5000
    timeout server 50000
    server member4 {tcp_member} weight 1
",
        socket.display()
    );
    let file = dir.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = Command::new(&programs.haproxy);
    command.args(["-db", "-f"]).arg(file);
    Ok(command)
}

/// nginx's stream module, where Debian's package libnginx-mod-stream has it; `None` when it is not installed.
fn nginx_stream_module() -> Option<&'static Path> {
    Some(Path::new("/usr/lib/nginx/modules/ngx_stream_module.so")).filter(|p| p.exists())
}

fn nginx(programs: &Programs, members: &Members, dir: &Path, port: u16) -> Result<Command> {
    let [first, other] = members.first;
    let (second, tcp_member) = (members.second, members.tcp);
    let (dir_text, tcp, status) = (dir.display(), port + 1, port + 2);
    let module = nginx_stream_module().map(|p| format!("load_module {};\n", p.display()));
    let stream = module.as_ref().map(|_| {
        format!(
            "stream {{
    server {{
        listen 127.0.0.1:{tcp} backlog=4096;
        proxy_connect_timeout 5s;
        proxy_timeout 50s;
        proxy_pass {tcp_member};
    }}
}}
"
        )
    });
    let user = if nix::unistd::Uid::effective().is_root() { "user root;\n" } else { "" };
    let text = format!(
        "{module}{user}daemon off;
worker_processes 1;
pid {dir_text}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {dir_text}/body;
    proxy_temp_path {dir_text}/proxy;
    fastcgi_temp_path {dir_text}/fastcgi;
    uwsgi_temp_path {dir_text}/uwsgi;
    scgi_temp_path {dir_text}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 50s;
    map $http_x_pool $pool {{ default first; second second; }}
    upstream first {{
        server {first};
        server {other};
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 50s;
    }}
    upstream second {{
        server {second};
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 50s;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /reject {{ return 403; }}
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_connect_timeout 5s;
            proxy_read_timeout 50s;
            proxy_pass http://$pool;
        }}
    }}
    server {{
        listen 127.0.0.1:{status};
        location / {{ stub_status; }}
    }}
}}
{stream}",
        module = module.as_deref().unwrap_or_default(),
        stream = stream.as_deref().unwrap_or_default(),
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new(&programs.nginx);
    command.arg("-c").arg(file);
    Ok(command)
}

fn pingora(programs: &Programs, members: &Members, http: SocketAddr) -> Command {
    let mut command = Command::new(&programs.pingora);
    command.arg("--listen").arg(http.to_string());
    for member in members.first {
        command.arg("--first").arg(member.to_string());
    }
    command.arg("--second").arg(members.second.to_string());
    command
}

#[cfg(test)]
mod tests {
    use amphora_model::LoadBalancer;

    use super::*;

    #[test]
    fn the_document_is_accepted() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let members = Members { first: [at(1), at(2)], second: at(3), tcp: at(4) };
        assert_eq!(LoadBalancer::from_json(&amphora_document(&members, 80).to_json()).map(drop), Ok(()));
    }
}
