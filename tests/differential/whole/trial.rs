//! What takes more than one client at a time, or a member that changes: told in words, which are the same on both sides.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use amphora_model::SessionPersistence;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    balanced::{Trial, request},
    client,
    generate::{Case, Visit, address},
    side::Side,
    wire::{Message, Wire},
};

/// How long nothing comes to a client who has to wait.
const QUIET: Duration = Duration::from_millis(300);

/// Whether it has come to what the trial is for, as told of HAProxy.
pub(super) fn shows(trial: Option<Trial>, told: &str) -> bool {
    match trial {
        Some(Trial::Limit) => told.contains("one more waits\nonce another has left: Some(200)"),
        Some(Trial::Fall) => told.contains("is down:\n200 of member 1"),
        Some(Trial::Shares(_)) | None => true,
    }
}

impl Side {
    /// Opens the doors by which the monitor of this case goes, one for each member.
    pub(super) async fn open_doors(&self, case: &Case) -> Vec<Option<TcpListener>> {
        let members = if case.trial == Some(Trial::Fall) { &case.lb.pools[0].members[..] } else { &[] };
        let places =
            members.iter().filter_map(|member| Some(SocketAddr::new(member.address, member.monitor_port?)));
        let places: Vec<_> = places.collect();
        let open = move || async move {
            places.into_iter().map(|place| Some(TcpListener::bind(place).unwrap())).collect()
        };
        self.within(open).await
    }

    /// What the trial of this case comes to.
    pub(super) async fn trial(&self, case: &Arc<Case>, doors: Vec<Option<TcpListener>>) -> String {
        match case.trial {
            Some(Trial::Limit) => {
                let case = Arc::clone(case);
                self.within(move || async move { beyond(&case).await }).await
            }
            Some(Trial::Fall) => self.fall(case, doors).await,
            Some(Trial::Shares(_)) | None => String::new(),
        }
    }

    async fn fall(&self, case: &Arc<Case>, mut doors: Vec<Option<TcpListener>>) -> String {
        let (client, first) = self.asks(Client::new(case), 3).await;
        let at = client.at.unwrap_or_default();
        let id = case.lb.pools[0].members[at].id.to_string();
        doors[at] = None;
        self.await_state(&id, true).await;
        let (client, second) = self.asks(client, 3).await;
        doors[at] = self.open_doors_of(case, at).await;
        self.await_state(&id, false).await;
        let (_, third) = self.asks(client, 3).await;
        format!("all are up:\n{first}one is down:\n{second}it is up again:\n{third}")
    }

    async fn open_doors_of(&self, case: &Case, at: usize) -> Option<TcpListener> {
        let member = &case.lb.pools[0].members[at];
        let place = SocketAddr::new(member.address, member.monitor_port.unwrap_or_default());
        self.within(move || async move { Some(TcpListener::bind(place).unwrap()) }).await
    }

    /// The client asks so often.
    async fn asks(&self, mut client: Client, times: usize) -> (Client, String) {
        let work = move || async move {
            let mut told = String::new();
            for _ in 0..times {
                told.push_str(&client.ask().await);
            }
            (client, told)
        };
        self.within(work).await
    }
}

/// One who keeps the cookies that are set.
struct Client {
    case: Arc<Case>,
    cookie: String,
    /// The member that has answered last, by index.
    at: Option<usize>,
    /// Those that have answered, in turn.
    known: Vec<usize>,
}

impl Client {
    fn new(case: &Arc<Case>) -> Self {
        Self { case: Arc::clone(case), cookie: String::new(), at: None, known: Vec::new() }
    }

    async fn ask(&mut self) -> String {
        let lb = &self.case.lb;
        let is_of_application =
            matches!(lb.pools[0].session_persistence, Some(SessionPersistence::AppCookie { .. }));
        let set = if is_of_application { "X-Set: JSESSIONID=s1; Path=/\r\n" } else { "" };
        let to = lb.vips[0].address;
        let from = address(to.is_ipv4(), 7, 1);
        let Ok(stream) = client::open(from, SocketAddr::new(to, lb.listeners[0].port)).await else {
            return "nobody listens\n".to_owned();
        };
        let mut wire = Wire::new(stream);
        let Some(response) = exchange(&mut wire, &request(&format!("{set}{}", self.cookie))).await else {
            return "no answer\n".to_owned();
        };
        let mut cookies = String::new();
        for (name, value) in response.sorted() {
            let value = value.split(';').next().unwrap_or_default();
            if name == "set-cookie" {
                cookies.push_str(value.split('=').next().unwrap_or_default());
                self.cookie = format!("Cookie: {value}\r\n");
            }
        }
        let named = response.field("x-member").unwrap_or_default();
        let members = &lb.pools[0].members;
        self.at = members.iter().position(|member| super::member::name(member.address) == named);
        let Some(at) = self.at else { return format!("{}\n", response.status()) };
        if !self.known.contains(&at) {
            self.known.push(at);
        }
        let number = self.known.iter().position(|known| *known == at).unwrap_or_default();
        format!("{} of member {number}, sets {cookies:?}\n", response.status())
    }
}

/// A request and its response, if one comes while it is waited for.
async fn exchange(wire: &mut Wire<TcpStream>, request: &[u8]) -> Option<Message> {
    wire.stream.write_all(request).await.ok()?;
    let response = tokio::time::timeout(client::PATIENCE, wire.response(false)).await;
    response.ok()?.ok()?
}

/// As many clients as there may be, and one more, who is served when another leaves.
async fn beyond(case: &Case) -> String {
    let listener = &case.lb.listeners[0];
    let limit = listener.connection_limit.unwrap_or_default();
    let Some(Visit { from, to, .. }) = case.visits.first() else { return String::new() };
    let to = SocketAddr::new(*to, listener.port);
    let mut told = String::new();
    let mut clients = Vec::new();
    // What was done before may still be on its way out.
    for number in 0..limit {
        let mut wire = Wire::new(client::open(*from, to).await.unwrap());
        let status = exchange(&mut wire, &request("")).await.map(|response| response.status());
        told.push_str(&format!("client {number}: {status:?}\n"));
        clients.push(wire);
    }
    let mut last = match client::open(*from, to).await {
        Ok(stream) => Wire::new(stream),
        Err(error) => return told + &format!("one more: {:?}\n", error.kind()),
    };
    let _ = last.stream.write_all(&request("")).await;
    match tokio::time::timeout(QUIET, last.response(false)).await {
        Err(_) => told.push_str("one more waits\n"),
        Ok(response) => told.push_str(&format!("one more: {response:?}\n")),
    }
    clients.pop();
    let response = tokio::time::timeout(client::PATIENCE, last.response(false)).await;
    let status = response.ok().and_then(Result::ok).flatten().map(|response| response.status());
    told + &format!("once another has left: {status:?}\n")
}
