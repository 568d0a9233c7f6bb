//! The VIP's network: a switch, two amphorae, members, and a host with many clients.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use amphora_tests::{Backend, Client, Message, Namespace, Step};
use tokio::{sync::oneshot, task::JoinSet};

use crate::Got;

/// The address that moves.
pub(crate) const VIP: &str = "10.88.0.100";

/// The amphorae's own.
pub(crate) const AMPHORAE: [&str; 2] = ["10.88.0.1", "10.88.0.2"];

/// The network. It goes with the value.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) amphorae: [Namespace; 2],
    clients: Namespace,
    _members: Namespace,
    _switch: Namespace,
    _serving: oneshot::Sender<()>,
}

/// Where the members are.
pub(crate) fn members() -> impl Iterator<Item = SocketAddr> {
    (11..15).map(|host| SocketAddr::from(([10, 88, 0, host], 80)))
}

impl Network {
    /// `None`, and a line that says so, without root.
    pub(crate) async fn create() -> Option<Self> {
        let (switch, clients, members) = (Namespace::create()?, Namespace::create()?, Namespace::create()?);
        let amphorae = [Namespace::create()?, Namespace::create()?];
        switch.ip(&["link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"]);
        switch.ip(&["link", "set", "br0", "up"]);
        let hosts: [(&Namespace, Vec<String>); 4] = [
            (&amphorae[0], vec![AMPHORAE[0].to_owned()]),
            (&amphorae[1], vec![AMPHORAE[1].to_owned()]),
            (&members, self::members().map(|member| member.ip().to_string()).collect()),
            (&clients, (1..50).map(|client| client_address(client).ip().to_string()).collect()),
        ];
        for (n, (namespace, addresses)) in hosts.into_iter().enumerate() {
            let port = format!("port{n}");
            switch.link(&port, namespace, "eth1");
            switch.ip(&["link", "set", &port, "master", "br0"]);
            for address in addresses {
                namespace.ip(&["address", "add", &format!("{address}/24"), "dev", "eth1"]);
            }
        }
        let serving = serve(&members).await;
        Some(Self { amphorae, clients, _members: members, _switch: switch, _serving: serving })
    }

    /// Takes an amphora's own address from it, as before its port is plugged.
    pub(crate) fn take_address_of(&self, amphora: usize) {
        self.amphorae[amphora].ip(&[
            "address",
            "delete",
            &format!("{}/24", AMPHORAE[amphora]),
            "dev",
            "eth1",
        ]);
    }

    /// Gives it back.
    pub(crate) fn give_address_of(&self, amphora: usize) {
        self.amphorae[amphora].ip(&["address", "add", &format!("{}/24", AMPHORAE[amphora]), "dev", "eth1"]);
    }

    /// So many clients ask all the time, on connections that they keep for as long as nothing tells them of the end, until the sender is dropped.
    pub(crate) fn keep_asking(&self, clients: u8) -> (oneshot::Sender<()>, Arc<Asked>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let asked = Arc::new(Asked::default());
        let ours = Arc::clone(&asked);
        drop(self.clients.spawn(move || async move {
            let mut all: JoinSet<_> = (1..=clients).map(|number| ask_on(number, Arc::clone(&ours))).collect();
            let _ = stopped.await;
            all.shutdown().await;
        }));
        (stop, asked)
    }

    /// Clients ask in this order, by their address and with their cookie, the latter for `target`; who answered each.
    pub(crate) async fn ask(&self, clients: Vec<u8>, target: impl Fn(u8) -> String + Send + 'static) -> Got {
        let ask = move || async move {
            let mut got = Got::new();
            for client in clients {
                let by_address = at(client, 80).await.get("/").await;
                let lines = match target(client) {
                    target if target == "/" => format!("Cookie: SID=client-{client}\r\n"),
                    _ => String::new(),
                };
                let by_cookie = at(client, 81).await.get_with(&target(client), &lines).await;
                let answers = [by_address, by_cookie].map(|answer| answer.text());
                assert!(answers.iter().all(|name| name.starts_with("10.88.0.")), "{answers:?}");
                got.insert(client, answers);
            }
            got
        };
        self.clients.run(ask).await
    }
}

/// What became of requests on connections that were kept.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) answered: AtomicU64,
    /// Answers that were said to be the last of their connection.
    pub(crate) last: AtomicU64,
    /// Requests without an answer.
    pub(crate) lost: AtomicU64,
}

/// Asks on connections that are kept until a response says that it is the last.
async fn ask_on(number: u8, asked: Arc<Asked>) {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    loop {
        let mut client = at(number, 80).await;
        loop {
            let Ok(answer) = client.try_get("/", "").await else {
                count(&asked.lost);
                break;
            };
            count(&asked.answered);
            if answer.field("connection").is_some() {
                count(&asked.last);
                break;
            }
        }
    }
}

/// A connection of a client to the VIP.
async fn at(client: u8, port: u16) -> Client {
    Client::connect_from(client_address(client).ip(), SocketAddr::new(VIP.parse().unwrap(), port)).await
}

fn client_address(client: u8) -> SocketAddr {
    SocketAddr::from(([10, 88, 0, 200 + client], 0))
}

/// Members that say who they are, and set the application's cookie at `/login/VALUE`, until the sender is dropped.
async fn serve(namespace: &Namespace) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, is_ready) = oneshot::channel();
    namespace.spawn(move || async move {
        let mut backends = Vec::new();
        for address in members() {
            let name = address.ip().to_string();
            let script = {
                let name = name.clone();
                move |request: &Message| {
                    let lines = match request.target().strip_prefix("/login/") {
                        Some(value) => format!("Set-Cookie: SID={value}; Path=/\r\n"),
                        None => String::new(),
                    };
                    vec![Step::ReadBody, Step::response("200 OK", &lines, &name)]
                }
            };
            backends.push(Backend::http_at(address, &name, script).await);
        }
        let _ = ready.send(());
        let _ = stopped.await;
    });
    is_ready.await.unwrap();
    stop
}
