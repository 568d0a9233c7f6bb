//! HAProxy as the judge: what it does with the same members.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{Client, eventually, free_port, loopback};

/// A running HAProxy with one frontend and one backend, configured as Octavia does.
#[derive(Debug)]
pub struct HaProxy {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    directory: TempDir,
}

/// What a configuration of [`HaProxy`] may differ in.
#[derive(Clone, Debug)]
pub struct HaProxyConfig {
    /// `http` or `tcp`.
    pub mode: &'static str,
    /// Behind the address of `bind`, such as `ssl crt FILE`.
    pub bind: String,
    /// `balance`.
    pub balance: &'static str,
    /// More lines of the backend.
    pub backend: String,
    /// Each server, by the name that its statistics have, with options behind its address.
    pub servers: Vec<(String, SocketAddr, String)>,
    /// `timeout connect`, ms.
    pub connect_timeout: u32,
    /// `timeout client`, ms.
    pub client_timeout: u32,
}

impl HaProxyConfig {
    /// Round robin over HTTP members, named by their number.
    pub fn http(members: impl IntoIterator<Item = SocketAddr>) -> Self {
        let servers = members.into_iter().enumerate();
        Self {
            mode: "http",
            bind: String::new(),
            balance: "roundrobin",
            backend: String::new(),
            servers: servers.map(|(n, address)| (n.to_string(), address, String::new())).collect(),
            connect_timeout: 5000,
            client_timeout: 50_000,
        }
    }
}

impl HaProxy {
    /// Starts it; `None`, loudly, where there is none.
    pub async fn start(config: &HaProxyConfig) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let address = loopback();
        let address = SocketAddr::new(address, free_port(address));
        let HaProxyConfig { mode, bind, balance, backend, servers, connect_timeout, client_timeout } = config;
        let reuse = if *mode == "http" { "http-reuse safe" } else { "" };
        let mut text = format!(
            "global\n stats socket {}\n nbthread 1\ndefaults\n mode {mode}\n retries 3\n option redispatch\n \
             option http-keep-alive\n timeout client {client_timeout}\n timeout server 50s\n timeout connect {connect_timeout}\n\
             frontend f\n bind {address} {bind}\n default_backend b\nbackend b\n balance {balance}\n {reuse}\n {backend}\n \
             option allbackups\n fullconn 1000\n",
            directory.path().join("socket").display()
        );
        for (name, address, options) in servers {
            let _ = writeln!(text, " server {name} {address} weight 1 {options}");
        }
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let child =
            Command::new("haproxy").arg("-db").arg("-q").arg("-f").arg(file).stdin(Stdio::null()).spawn();
        let Ok(child) = child else {
            eprintln!("SKIPPED: there is no haproxy to compare with");
            return None;
        };
        let mut haproxy = Self { address, child, directory };
        eventually("HAProxy serves", async || {
            assert!(haproxy.child.try_wait().unwrap().is_none(), "HAProxy ended");
            haproxy.rows().await.filter(|rows| !rows.is_empty()).map(|_| ())
        })
        .await;
        Some(haproxy)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of it.
    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// A column of its statistics, by the name of a server, `FRONTEND` or `BACKEND`.
    pub async fn stat(&self, server: &str, column: &str) -> u64 {
        let rows = self.rows().await.expect("statistics");
        rows[server][column].parse().unwrap_or_default()
    }

    /// The same of one that is a text.
    pub async fn text(&self, server: &str, column: &str) -> String {
        let rows = self.rows().await.expect("statistics");
        rows[server][column].clone()
    }

    async fn rows(&self) -> Option<HashMap<String, HashMap<String, String>>> {
        let mut socket = UnixStream::connect(self.directory.path().join("socket")).await.ok()?;
        socket.write_all(b"show stat\n").await.ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await.ok()?;
        let mut lines = text.trim_start_matches("# ").lines();
        let columns: Vec<&str> = lines.next()?.split(',').collect();
        let row = |line: &str| {
            let row: HashMap<_, _> =
                columns.iter().zip(line.split(',')).map(|(c, v)| ((*c).to_owned(), v.to_owned())).collect();
            Some((row.get("svname")?.clone(), row))
        };
        Some(lines.filter_map(row).collect())
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
