//! The pair: two whole amphorae on one switch, put through what takes one of them away, and what a client of the VIP
//! notices of it.
//!
//! ```text
//! clients 192.0.2.2 ----+       +---- 192.0.2.11 amphora-1
//!                       +-switch+                            192.0.2.10 VIP
//! members 192.0.2.3 ----+       +---- 192.0.2.12 amphora-2
//! ```
//!
//! Clients and members are those of the single amphora, with one more leg each. The members keep their addresses, to
//! which 192.0.2.3 is the way.
//!
//! * `ground`: the network
//! * `steady`: the client
//! * `steps`: the scenario

mod ground;
mod steady;
mod steps;

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use amphora_agent::vrrp::Role;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use self::{
    ground::{Ground, OWN, VIP},
    steady::Window,
};
pub(super) use self::{
    steady::{Ledger, RATE, Steady},
    steps::{Hopes, SOME},
};
use super::{
    Programs,
    amphora::{Amphora, Controller, Site},
    board::{Board, Peer},
    document::{API, Demo, WEB},
    stage::collect,
    topology::Topology,
};
use crate::{
    certs,
    client::Client,
    error::{Error, Result},
};

/// What the amphorae are called.
const NAMES: [&str; 2] = ["amphora-1", "amphora-2"];

/// Milliseconds between advertisements.
const INTERVAL_MS: u32 = 100;

/// How often each amphora is asked how it is.
const LOOK: Duration = Duration::from_millis(200);

/// The running pair. Fields are dropped from top to bottom: the client first, the ground last.
#[derive(Debug)]
pub(super) struct Pair {
    steady: Option<Steady>,
    watchers: Vec<JoinHandle<()>>,
    amphorae: [Amphora; 2],
    /// The one whose host is gone.
    gone: Option<usize>,
    /// What the client noticed of each thing that happened.
    seen: Vec<(&'static str, Window)>,
    ground: Ground,
    dir: PathBuf,
    board: Board,
}

impl Pair {
    /// Starts two amphorae, each in a namespace of its own on a new switch, where `topology` has namespaces.
    ///
    /// # Errors
    /// [`Error::Local`]: this host does not permit it, or a program is not there.
    pub(super) fn start(
        topology: &Topology,
        programs: &Programs,
        controller: &Controller,
        board: &Board,
    ) -> Result<Self> {
        let (Some(clients), Some(members)) = (topology.client_netns(), topology.member_netns()) else {
            return Err(Error::Local("a pair takes network namespaces".to_owned()));
        };
        let ground = Ground::create(clients, members)?;
        let dir = topology.dir.join("pair");
        let ids = [Uuid::new_v4(), Uuid::new_v4()];
        let certs = dir.join("certs");
        let request = certs::Request { amphorae: ids.to_vec(), hosts: Vec::new(), days: 1, force: true };
        // Not by `init`, whose directories nobody else may enter: the programs run as another user.
        fs::create_dir_all(&dir).map_err(|e| Error::local(dir.display(), e))?;
        certs::init(&certs, &request)?;
        let launch = |n: usize| {
            let site = Site {
                agent: topology.pair_agents[n],
                id: ids[n],
                netns: ground.amphora(n).map(str::to_owned),
                dir: dir.join((n + 1).to_string()),
                certs: certs.clone(),
                log: topology.dir.join(format!("log/{}.log", NAMES[n])),
                paired: true,
            };
            fs::create_dir_all(&site.dir).map_err(|e| Error::local(site.dir.display(), e))?;
            Amphora::start(&site, programs, controller)
        };
        let amphorae = [launch(0)?, launch(1)?];
        Ok(Self {
            steady: None,
            watchers: Vec::new(),
            amphorae,
            gone: None,
            seen: Vec::new(),
            ground,
            dir,
            board: board.clone(),
        })
    }

    /// Where clients go.
    fn vip() -> SocketAddr {
        SocketAddr::new(VIP.into(), 80)
    }

    /// The ways to both agents.
    fn clients(&self) -> [Client; 2] {
        self.amphorae.each_ref().map(|amphora| amphora.client.clone())
    }

    /// Keeps the board as the amphorae are.
    fn watch(&mut self, demo: &Demo) {
        for (name, client) in NAMES.into_iter().zip(self.clients()) {
            self.watchers.push(tokio::spawn(watch(name, client, demo.clone(), self.board.clone())));
        }
    }

    /// Why going on is pointless, if it is.
    pub(super) fn trouble(&mut self) -> Option<Error> {
        let gone = self.gone;
        let ended = |(n, amphora): (usize, &mut Amphora)| (gone != Some(n) && amphora.ended()).then_some(n);
        if let Some(n) = self.amphorae.iter_mut().enumerate().find_map(ended) {
            return Some(Error::Local(format!("the agent of {} ended", NAMES[n])));
        }
        let steady = self.steady.as_ref().is_some_and(Steady::ended);
        steady.then(|| Error::Local("the pair's client ended".to_owned()))
    }

    /// The host of the amphora dies: SIGKILL for its agent and for `daemons`.
    ///
    /// The link goes first. The kernel of a host that dies says nothing any more; here it lives, and would close the
    /// connections of a proxy that was killed, and a daemon that was not killed yet would say that it leaves.
    async fn kill_host(&mut self, n: usize, daemons: &[u32]) -> Result<()> {
        self.gone = Some(n);
        let detached = self.ground.detach(n);
        // From the first signal to the last nothing is waited for, so that Ctrl-C cannot come between.
        self.amphorae[n].strike(daemons);
        self.amphorae[n].reap().await;
        detached
    }

    /// Starts host and agent again. What the kernel had is lost, what was on the disk is there.
    fn bring_back(&mut self, n: usize) -> Result<()> {
        self.ground.attach(n)?;
        self.amphorae[n].restart()?;
        self.gone = None;
        Ok(())
    }

    /// Ends client and amphorae, in this order. What is left goes with the value.
    pub(super) async fn stop(&mut self) {
        self.steady = None;
        self.watchers.drain(..).for_each(|task| task.abort());
        let [first, second] = &mut self.amphorae;
        tokio::join!(first.stop(), second.stop());
        self.board.read().pair.clear();
        // The next pair begins with nothing.
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            self.board.note(format!("{}: {error}", self.dir.display()));
        }
    }
}

/// The VRRP document of the pair, as an operator would give it to `vrrp pair`.
fn vrrp_document() -> Value {
    json!({"instances": [{
        "name": "pair",
        "interface": "eth1",
        "vrid": 1,
        "interval_ms": INTERVAL_MS,
        "preempt": false,
        "unicast": {"peers": OWN, "check_source": true},
        "addresses": [{"address": format!("{VIP}/32")}],
        "track": {"fall": 2, "rise": 2},
    }]})
}

/// Keeps the board as this amphora is, and tells when it changes its role.
async fn watch(name: &'static str, client: Client, demo: Demo, board: Board) {
    loop {
        let peer = look(&client, &demo).await;
        let new = peer.role_name();
        let old = board.read().pair.insert(name, peer).map(|peer| peer.role_name());
        if let Some(old) = old.filter(|old| *old != new) {
            board.note(format!("{name}: {old} -> {new}"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(client: &Client, demo: &Demo) -> Peer {
    let Ok(Some(status)) = client.vrrp_status().await else { return Peer::default() };
    let healthy = client.health().await.is_ok() && all_online(client, demo).await;
    Peer { role: Role::of(&status), vrrp: Some(status.pid), healthy }
}

async fn all_online(client: &Client, demo: &Demo) -> bool {
    let Ok(status) = client.status(demo.id()).await else { return false };
    let mut online = Vec::new();
    collect(&status, &mut |id, status| {
        if status == "ONLINE" {
            online.push(id.to_owned());
        }
    });
    WEB.1.iter().chain(&API.1).all(|name| online.contains(&demo.member(name).to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::vrrp_document::VrrpDocument;

    #[test]
    fn the_document_is_one_for_a_pair() {
        let pair = VrrpDocument::Native(vrrp_document()).pair().unwrap();
        for document in pair {
            let VrrpDocument::Native(document) = document else { panic!("{document:?}") };
            amphora_vrrp::config::parse(&document.to_string()).unwrap();
        }
    }
}
