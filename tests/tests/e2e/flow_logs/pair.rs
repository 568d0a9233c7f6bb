//! The proxy and HAProxy in front of the same members, each with a log of its own; what of their lines is compared.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use amphora_tests::{
    Certificates, Document, L7Policy, Listener, Member, Pool, Proxy, eventually, free_port, in_time, loopback,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixDatagram, UnixStream},
};

/// A syslog.
pub(super) struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Syslog {
    pub(super) fn bind(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        Self { socket: UnixDatagram::bind(&path).unwrap(), path }
    }

    /// The next line, with what must differ left out.
    pub(super) async fn line(&self, of: &str) -> String {
        let mut line = [0; 4096];
        let n = in_time(&format!("a line of {of}"), self.socket.recv(&mut line)).await.unwrap();
        String::from_utf8_lossy(&line[..n]).into_owned()
    }

    pub(super) async fn lines(&self, of: &str, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(self.line(of).await);
        }
        lines
    }

    pub(super) fn nothing_more(&self) -> Option<String> {
        let mut line = [0; 4096];
        let n = self.socket.try_recv(&mut line).ok()?;
        Some(String::from_utf8_lossy(&line[..n]).into_owned())
    }
}

/// Both, with the same listener in front of the same members.
pub(super) struct Pair {
    _proxy: Proxy,
    pub(super) ours: Syslog,
    haproxy: Child,
    pub(super) haproxys: Syslog,
    pub(super) address: SocketAddr,
    pub(super) haproxys_address: SocketAddr,
    pub(super) differences: Vec<String>,
    pub(super) lines: usize,
    _directory: TempDir,
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
    }
}

/// A pool, and where its members are.
pub(super) struct Backing {
    pub(super) pool: Pool,
    pub(super) addresses: Vec<SocketAddr>,
    cookie: bool,
    /// Behind each of HAProxy's servers.
    options: String,
}

impl Backing {
    pub(super) fn new(protocol: &str, addresses: &[SocketAddr]) -> Self {
        let pool =
            addresses.iter().fold(Pool::new(protocol), |pool, address| pool.member(Member::at(*address)));
        Self { pool, addresses: addresses.to_vec(), cookie: false, options: String::new() }
    }

    /// Members that are spoken to over TLS, and must be the authority's and not in the list `revoked`.
    pub(super) fn verified_by(mut self, certificates: &Certificates) -> Self {
        let pool = self.pool.with("tls_enabled", true).with("ca_tls_container_ref", "ca");
        self.pool = pool.with("crl_container_ref", "revoked");
        let (ca, list) = (certificates.file("ca"), certificates.file("revoked"));
        let (ca, list) = (ca.display(), list.display());
        self.options = format!("ssl verify required ca-file {ca} crl-file {list} sni ssl_fc_sni");
        self
    }

    pub(super) fn with_cookie(mut self) -> Self {
        self.pool = self.pool.with("session_persistence", json!({"type": "HTTP_COOKIE"}));
        self.cookie = true;
        self
    }
}

/// What both listen as.
#[derive(Clone, Copy)]
pub(super) enum Front<'a> {
    Http,
    Tcp,
    /// With the certificate `server` of these.
    Https(&'a Certificates),
}

/// Timeouts, ms.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) client: u32,
    pub(super) connect: u32,
    pub(super) server: u32,
}

pub(super) const PATIENT: Timeouts = Timeouts { client: 30_000, connect: 200, server: 30_000 };

impl Pair {
    /// `None`, loudly, without HAProxy.
    pub(super) async fn start(
        tcp: bool,
        format: &str,
        timeouts: Timeouts,
        pools: &[Backing],
        policies: Vec<(L7Policy, String)>,
    ) -> Option<Self> {
        let escaped = format.replace('\\', "\\\\").replace('"', "\\\"");
        Self::start_with(tcp, format, &format!("log-format \"{escaped}\""), timeouts, pools, policies).await
    }

    /// The same with HAProxy's own word for the format.
    pub(super) async fn start_with(
        tcp: bool,
        format: &str,
        directive: &str,
        timeouts: Timeouts,
        pools: &[Backing],
        policies: Vec<(L7Policy, String)>,
    ) -> Option<Self> {
        let front = if tcp { Front::Tcp } else { Front::Http };
        Self::start_on(front, format, directive, timeouts, pools, policies).await
    }

    /// The same with any listener.
    pub(super) async fn start_on(
        front: Front<'_>,
        format: &str,
        directive: &str,
        timeouts: Timeouts,
        pools: &[Backing],
        policies: Vec<(L7Policy, String)>,
    ) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (ours, haproxys) =
            (Syslog::bind(directory.path(), "ours"), Syslog::bind(directory.path(), "haproxy"));
        let tcp = matches!(front, Front::Tcp);
        let (listener, certificates) = match front {
            Front::Http => (Listener::http(), None),
            Front::Tcp => (Listener::tcp(), None),
            Front::Https(certificates) => (Listener::https("server"), Some(certificates.option())),
        };
        let mut listener = listener
            .with("timeout_client_data", timeouts.client)
            .with("timeout_member_connect", timeouts.connect)
            .with("timeout_member_data", timeouts.server)
            .with("insert_headers", json!({}));
        if let Some(backing) = pools.first() {
            listener = listener.to(&backing.pool);
        }
        let mut rules = String::new();
        for (policy, rule) in policies {
            listener = listener.policy(policy);
            rules += &rule;
        }
        let id = listener.id;
        let rules = rules.replace("LISTENER", &id.to_string());
        let mut document = Document::new()
            .with("amphora", json!({"user_log_format": format, "user_log_facility": 2}))
            .listener(listener);
        for backing in pools {
            document = document.pool(&backing.pool);
        }
        let log = ours.path.display().to_string();
        let mut options = vec!["--log-socket", &log, "--workers", "1"];
        if let Some(certificates) = &certificates {
            options.extend(["--certificates", certificates]);
        }
        let proxy = Proxy::start_with(document, &options).await;

        let haproxys_address = loopback();
        let haproxys_address = SocketAddr::new(haproxys_address, free_port(haproxys_address));
        let mode = if tcp { "tcp" } else { "http" };
        let bind = certificates.map_or(String::new(), |directory| format!(" ssl crt {directory}/server.pem"));
        let socket = directory.path().join("stats");
        let mut text = format!(
            "global\n log {} local2\n stats socket {}\n nbthread 1\ndefaults\n log global\n mode {mode}\n retries 3\n \
             option redispatch\n timeout client {}\n timeout server {}\n timeout connect {}\nfrontend {id}\n bind \
             {haproxys_address}{bind}\n {directive}\n{rules}",
            haproxys.path.display(),
            socket.display(),
            timeouts.client,
            timeouts.server,
            timeouts.connect,
        );
        if let Some(backing) = pools.first() {
            let _ = writeln!(text, " default_backend {}:{id}", backing.pool.id);
        }
        for Backing { pool, addresses, cookie, options } in pools {
            let _ = write!(
                text,
                "backend {}:{id}\n balance roundrobin\n option allbackups\n fullconn 1000\n",
                pool.id
            );
            if !tcp {
                text += " http-reuse safe\n";
            }
            if *cookie {
                text += " cookie SRV insert indirect nocache\n";
            }
            for (member, address) in pool.members.iter().zip(addresses) {
                let cookie = if *cookie { format!(" cookie {}", member.id) } else { String::new() };
                let _ = writeln!(text, " server {} {address} weight 1{cookie} {options}", member.id);
            }
        }
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let haproxy =
            Command::new("haproxy").args(["-db", "-q", "-f"]).arg(&file).stdin(Stdio::null()).spawn();
        let Ok(haproxy) = haproxy else {
            eprintln!("SKIPPED: there is no haproxy to compare with");
            return None;
        };
        eventually("HAProxy serves", async || {
            let mut stats = UnixStream::connect(&socket).await.ok()?;
            stats.write_all(b"show info\n").await.ok()?;
            let mut text = String::new();
            stats.read_to_string(&mut text).await.ok()?;
            (!text.is_empty()).then_some(())
        })
        .await;
        let address = proxy.address();
        let (differences, lines) = (Vec::new(), 0);
        Some(Self {
            _proxy: proxy,
            ours,
            haproxy,
            haproxys,
            address,
            haproxys_address,
            differences,
            lines,
            _directory: directory,
        })
    }

    /// The same traffic through both, one after the other; each leaves so many lines. What a client sends and its end may be
    /// seen at once or one by one, in HAProxy as here, and a line tells which: a difference is one that stays.
    pub(super) async fn compare(&mut self, what: &str, lines: usize, traffic: impl AsyncFn(SocketAddr)) {
        let mut differences = Vec::new();
        for _ in 0..5 {
            differences = self.once(what, lines, &traffic).await;
            if differences.is_empty() {
                break;
            }
        }
        self.lines += lines;
        self.differences.append(&mut differences);
    }

    /// The same for clients with whom there is no session: of these lines all but the client's port and the time.
    pub(super) async fn compare_unborn(&mut self, what: &str, traffic: impl AsyncFn(SocketAddr)) {
        let unborn = |line: &str| {
            let (head, text) = line.split_once("]: ").unwrap_or(("", line));
            let (client, rest) = text.split_once(" [").unwrap_or((text, ""));
            let (date, rest) = rest.split_once("] ").unwrap_or(("", rest));
            let host = client.rsplit_once(':').map_or(client, |(host, _)| host);
            let priority = head.split_once('>').map_or(head, |(priority, _)| priority);
            format!("{priority}> {host} {} {rest}", date.len())
        };
        traffic(self.address).await;
        let ours = unborn(&self.ours.line(&format!("{what}, ours")).await);
        traffic(self.haproxys_address).await;
        let haproxys = unborn(&self.haproxys.line(&format!("{what}, HAProxy's")).await);
        if ours != haproxys {
            self.differences.push(format!("{what}: {ours}, HAProxy's {haproxys}"));
        }
        self.lines += 1;
    }

    /// How the lines differ.
    pub(super) async fn once(
        &mut self,
        what: &str,
        lines: usize,
        traffic: &impl AsyncFn(SocketAddr),
    ) -> Vec<String> {
        traffic(self.address).await;
        let ours = self.ours.lines(&format!("{what}, ours"), lines).await;
        traffic(self.haproxys_address).await;
        let haproxys = self.haproxys.lines(&format!("{what}, HAProxy's"), lines).await;
        let mut differences = Vec::new();
        for (ours, haproxys) in ours.iter().zip(&haproxys) {
            let (ours, haproxys) = (masked(ours, self.address), masked(haproxys, self.haproxys_address));
            let fields = ours.split('|').zip(haproxys.split('|')).filter(|(ours, haproxys)| ours != haproxys);
            let fields: Vec<_> =
                fields.map(|(ours, haproxys)| format!("{ours}, HAProxy's {haproxys}")).collect();
            if ours != haproxys {
                differences.push(format!("{what}: {}\n", fields.join("; ")));
            }
        }
        for (whose, more) in [("ours", self.ours.nothing_more()), ("haproxy's", self.haproxys.nothing_more())]
        {
            if let Some(more) = more {
                differences.push(format!("{what}\n  one more of {whose}: {more}"));
            }
        }
        differences
    }

    pub(super) fn end(self) {
        assert!(self.differences.is_empty(), "{}", self.differences.concat());
        println!("{} lines are HAProxy's", self.lines);
    }
}

/// A line without what must differ: the date and the process of its head, ports, and how long something took.
pub(super) fn masked(line: &str, address: SocketAddr) -> String {
    let (head, text) = line.split_once("]: ").unwrap_or(("", line));
    let priority = head.split_once('>').map_or(head, |(priority, _)| priority);
    let program = head.rsplit(' ').next().unwrap_or_default().split('[').next().unwrap_or_default();
    assert!(text.ends_with('\n'), "{line}");
    if !text.contains('|') {
        return format!("{priority}> {program}: {}", masked_tokens(text.trim_end()));
    }
    let fields = text.trim_end().split('|').map(|field| {
        let times = |times: &str| {
            let sign = |time: &str| if time == "-1" { "-1" } else { "n" };
            times.split('/').map(sign).collect::<Vec<_>>().join("/")
        };
        match field.split_once('=') {
            Some(("T", value)) => format!("T={}", times(value)),
            Some((name @ "B", _)) if text.contains("GET /endless") => format!("{name}="),
            _ => field.replace(&format!("fp={}", address.port()), "fp=port"),
        }
    });
    format!("{priority}> {program}: {}", fields.collect::<Vec<_>>().join("|"))
}

/// The same of a format without names: dates, the client's port, and times, which are the first numbers with slashes between
/// them, or stand by themselves in front of the last letters.
pub(super) fn masked_tokens(text: &str) -> String {
    let mut tokens: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let last = tokens.len() - 2;
    let mut times = true;
    if tokens[1] == "-" && tokens[2] == "-" {
        // The common log format: port and milliseconds, and five times, stand by their distance from the end.
        let end = tokens.len();
        for at in (end - 20..end - 18).chain(end - 15..end - 10) {
            let sign = if tokens[at] == "-1" { "-1" } else { "n" };
            tokens[at] = sign.into();
        }
        tokens[3] = "date".into();
        return tokens.join(" ");
    }
    for at in 0..tokens.len() {
        let token = &tokens[at];
        let numbers = token.split('/').filter_map(|number| number.parse::<i64>().ok()).collect::<Vec<_>>();
        if token.len() >= 24 && token.trim_start_matches('[').as_bytes()[2] == b'/' {
            tokens[at] = "date".into();
        } else if token.starts_with("127.") {
            tokens[at] = token.split(':').next().unwrap_or_default().to_owned();
            if numbers.is_empty() && tokens[at + 1].parse::<u16>().is_ok() {
                tokens[at + 1] = "port".into();
            }
        } else if times && numbers.len() >= 3 {
            times = false;
            tokens[at] = numbers.iter().map(|ms| if *ms < 0 { "-1/" } else { "n/" }).collect();
        } else if times && at == last && numbers.len() == 1 {
            tokens[at] = "n".into();
        }
    }
    tokens.join(" ")
}
