//! A server of the API on loopback, and clients of it.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::serve::api::server::Server;

/// Whatever is waited for has happened long before.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A server, and the database behind it.
pub(super) struct Served {
    pub(super) address: std::net::SocketAddr,
    pub(super) db: Db,
    pub(super) stop: watch::Sender<bool>,
    pub(super) running: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Served {
    pub(super) async fn new(settings: &str) -> Self {
        let Stage { api, dir, .. } = Stage::new(settings);
        let db = api.db.clone();
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), Arc::new(api)).await.unwrap();
        let address = server.address().unwrap();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(server.run(stopped, Duration::from_secs(5)));
        Self { address, db, stop, running, _dir: dir }
    }

    pub(super) async fn write(&self, text: &str) {
        let text = text.to_owned();
        self.db.write::<_, db::Error, _>(move |t| Ok(t.execute_batch(&text)?)).await.unwrap();
    }

    /// A load balancer of a project, which is ACTIVE at once.
    pub(super) async fn balancer(&self, id: &str, project: &str) {
        self.write(&format!(
            "INSERT INTO load_balancer (id, project_id, provisioning_status, topology, compute_driver, provider, vip_address,
                vip_port_id, vip_subnet_id, vip_network_id, created_at)
                VALUES ('{id}', '{project}', 'ACTIVE', 'SINGLE', 'namespaces', 'amphora', '192.0.2.1', '', '', '', 0)"
        ))
        .await;
    }

    pub(super) async fn set(&self, id: &str, status: &str) {
        self.write(&format!("UPDATE load_balancer SET operating_status = '{status}' WHERE id = '{id}'"))
            .await;
    }

    pub(super) async fn open(&self, path: &str, headers: &str) -> Client {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: serve\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Client::new(stream)
    }
}

pub(super) struct Client {
    stream: TcpStream,
    text: String,
}

impl Client {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, text: String::new() }
    }

    /// Reads until a text is there, and takes what stands before its end.
    pub(super) async fn until(&mut self, wanted: &str) -> String {
        loop {
            if let Some(at) = self.text.find(wanted) {
                let rest = self.text.split_off(at + wanted.len());
                return std::mem::replace(&mut self.text, rest);
            }
            assert!(self.more().await > 0, "{wanted:?} is not in {:?}", self.text);
        }
    }

    async fn more(&mut self) -> usize {
        let mut bytes = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut bytes)).await.expect("something").unwrap_or(0);
        self.text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        read
    }

    pub(super) async fn rest(mut self) -> String {
        while self.more().await > 0 {}
        self.text
    }
}
