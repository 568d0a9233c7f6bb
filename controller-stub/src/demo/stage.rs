//! Everything that runs during the demo, set up in order and torn down in reverse.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use amphora_agent::heartbeat;
use serde_json::Value;
use tokio::{net::UdpSocket, task::JoinHandle};
use uuid::Uuid;

use super::{
    Options,
    amphora::{Amphora, Controller, Site},
    board::Board,
    document::{Demo, VAULT, processes},
    member::MemberOptions,
    pair::Pair,
    process::{Process, leashed},
    secure::Secrets,
    serve::Served,
    topology::Topology,
    traffic::{Counts, Traffic},
};
use crate::{
    certs,
    client::Client,
    error::{Error, Result},
};

/// How often the amphora is asked for its members' status.
const LOOK: Duration = Duration::from_millis(250);

/// How many lines of a log are shown when something went wrong: the last ones, and the last that warn.
const LOG_TAIL: usize = 20;

/// The running demo. Fields are dropped from top to bottom: clients before amphorae, amphorae before members, all
/// before the ground that they stand on.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) options: Options,
    pub(super) board: Board,
    pub(super) counts: Counts,
    pub(super) traffic: Option<Traffic>,
    watchers: Vec<JoinHandle<()>>,
    pub(super) served: Option<Served>,
    pub(super) pair: Option<Pair>,
    pub(super) amphora: Option<Amphora>,
    members: Vec<(&'static str, Process)>,
    topology: Option<Topology>,
    secrets: Option<Secrets>,
    /// Where the heartbeats of all amphorae go.
    controller: Option<Controller>,
}

impl Stage {
    /// Nothing runs yet.
    pub(super) fn new(options: Options, board: Board, counts: Counts) -> Self {
        Self {
            options,
            board,
            counts,
            traffic: None,
            watchers: Vec::new(),
            served: None,
            pair: None,
            amphora: None,
            members: Vec::new(),
            topology: None,
            secrets: None,
            controller: None,
        }
    }

    /// Starts members and amphora, and returns the load balancer that fits the ground.
    ///
    /// # Errors
    /// [`Error::Local`] or [`Error::Unreachable`]: it cannot be started.
    pub(super) async fn set_up(&mut self) -> Result<Demo> {
        let (topology, obstacle) = Topology::create(processes().len(), self.options.loopback)?;
        let place = match &obstacle {
            None => format!("VIP {} in network namespaces", topology.vip),
            Some(_) => format!("VIP {} on loopback", topology.vip),
        };
        self.board.note(&place);
        match obstacle {
            Some(reason) => {
                self.board.note(format!("no network namespaces: {reason}"));
                self.board.note("no pair: it takes root and network namespaces");
                self.board.note("no serve: it takes root and network namespaces");
            }
            // Better told now than after all that comes before the pair.
            None => self.options.programs.check_vrrp()?,
        }
        self.board.read().place = place;
        let topology = self.topology.insert(topology);
        let demo = Demo::new(topology.vip, topology.second_port, topology.members.clone())
            .secure(topology.secure_port);
        let secrets = self.secrets.insert(Secrets::new()?);
        secrets.member()?.write(&topology.member_certificate())?;
        for (name, _) in processes() {
            self.start_member(&demo, name)?;
        }
        self.start_amphora(&demo).await?;
        Ok(demo)
    }

    async fn start_amphora(&mut self, demo: &Demo) -> Result<()> {
        let topology = self.topology.as_ref().expect("set_up made it");
        let begin = Instant::now();
        let key = Uuid::new_v4().simple().to_string();
        let heartbeats = UdpSocket::bind("127.0.0.1:0").await.map_err(|e| Error::local("UDP", e))?;
        let address = heartbeats.local_addr().map_err(|e| Error::local("UDP", e))?;
        let controller = self.controller.insert(Controller { address, key: key.clone() });
        let id = Uuid::new_v4();
        let certs = topology.dir.join("certs");
        let request = certs::Request { amphorae: vec![id], hosts: Vec::new(), days: 1, force: false };
        certs::init(&certs, &request)?;
        let site = Site {
            agent: topology.agent,
            id,
            netns: topology.amphora_netns().map(str::to_owned),
            dir: topology.dir.clone(),
            certs,
            log: topology.dir.join("log/amphora.log"),
            paired: false,
        };
        let amphora = self.amphora.insert(Amphora::start(&site, &self.options.programs, controller)?);
        self.watchers.push(tokio::spawn(count_heartbeats(heartbeats, key, self.board.clone())));
        let info = amphora.ready().await?;
        self.board.check(true, format!("agent and proxy run after {:.2} s", begin.elapsed().as_secs_f64()));
        if let Some(version) = info.get("agent_version").and_then(Value::as_str) {
            self.board.note(format!("amphora-agent {version} at {}", amphora.client.endpoint()));
        }
        let watcher = watch_members(amphora.client.clone(), demo.clone(), self.board.clone());
        self.watchers.push(tokio::spawn(watcher));
        Ok(())
    }

    /// Starts the clients.
    pub(super) fn start_traffic(&mut self) -> Result<()> {
        let topology = self.topology.as_ref().expect("set_up made it");
        let Options { clients, rate, .. } = self.options;
        let routes = self.secrets().routes(topology.vip, topology.secure())?;
        let traffic = Traffic::start(routes, topology.client_netns(), clients, rate, self.counts.clone())?;
        self.traffic = Some(traffic);
        Ok(())
    }

    /// Starts the process of a member.
    pub(super) fn start_member(&mut self, demo: &Demo, name: &'static str) -> Result<()> {
        let topology = self.topology.as_ref().expect("set_up made it");
        let pool = processes().into_iter().find(|(n, _)| *n == name).map_or("", |(_, pool)| pool);
        let address = demo.address(name).ok_or_else(|| Error::Local(format!("no member {name}")))?;
        let program = env::current_exe().map_err(|e| Error::local("this program", e))?;
        let mut command = leashed(&program)?;
        let certificate = (pool == VAULT.0).then(|| topology.member_certificate());
        let netns = topology.member_netns();
        command.args(MemberOptions::to_args(name, pool, address, netns, certificate.as_deref()));
        let process = Process::start(command, &topology.dir.join(format!("log/{name}.log")))?;
        self.members.retain(|(n, _)| *n != name);
        self.members.push((name, process));
        Ok(())
    }

    /// Kills the process of a member: SIGKILL.
    pub(super) async fn kill_member(&mut self, name: &str) {
        if let Some((_, process)) = self.members.iter_mut().find(|(n, _)| *n == name) {
            process.kill().await;
        }
    }

    /// Where everything is.
    pub(super) fn topology(&self) -> &Topology {
        self.topology.as_ref().expect("set_up made it")
    }

    /// The certificates of the HTTPS listener.
    pub(super) fn secrets(&self) -> &Secrets {
        self.secrets.as_ref().expect("set_up made them")
    }

    /// See [`secrets`](Self::secrets).
    pub(super) fn secrets_mut(&mut self) -> &mut Secrets {
        self.secrets.as_mut().expect("set_up made them")
    }

    /// Where the heartbeats go.
    pub(super) fn controller(&self) -> &Controller {
        self.controller.as_ref().expect("set_up made it")
    }

    /// The way to the agent.
    pub(super) fn client(&self) -> &Client {
        &self.amphora.as_ref().expect("set_up started it").client
    }

    /// Waits until `condition` is true, for `limit` at most, and says how long it took.
    ///
    /// # Errors
    /// [`Error::Local`] when the agent or the clients ended meanwhile: then nothing that comes would mean anything.
    /// [`Error::OutputClosed`] when nobody reads what is shown.
    pub(super) async fn until(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<Option<Duration>> {
        let begin = Instant::now();
        loop {
            if self.board.read().unread {
                return Err(Error::OutputClosed);
            }
            if condition(self) {
                return Ok(Some(begin.elapsed()));
            }
            if begin.elapsed() > limit {
                return Ok(None);
            }
            if self.amphora.as_mut().is_some_and(Amphora::ended) {
                return Err(Error::Local("amphora-agent ended".to_owned()));
            }
            if self.traffic.as_ref().is_some_and(Traffic::ended) {
                return Err(Error::Local("the clients ended".to_owned()));
            }
            if let Some(error) = self.pair.as_mut().and_then(Pair::trouble) {
                return Err(error);
            }
            if let Some(error) = self.served.as_mut().and_then(Served::trouble) {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// True when the amphora says so of the member.
    pub(super) fn has_status(&self, member: &str, status: &str) -> bool {
        self.board.read().members.get(member).is_some_and(|s| s == status)
    }

    /// Ends everything, with `last_words` also the last requests in order so that the totals are whole.
    pub(super) async fn tear_down(&mut self, last_words: bool) {
        if last_words && let Some(mut traffic) = self.traffic.take() {
            if let Err(error) = traffic.finish().await {
                self.board.check(false, error.to_string());
            }
            self.tell_losses();
        }
        self.traffic = None;
        if let Some(mut served) = self.served.take() {
            served.stop().await;
        }
        if let Some(mut pair) = self.pair.take() {
            pair.stop().await;
        }
        self.watchers.drain(..).for_each(|task| task.abort());
        if let Some(mut amphora) = self.amphora.take() {
            amphora.stop().await;
        }
        for (_, mut process) in self.members.drain(..) {
            process.kill().await;
        }
    }

    /// What was lost, as a check.
    pub(super) fn tell_losses(&self) {
        let (total, troubles) = {
            let tally = self.counts.tally();
            (tally.total(), tally.troubles.clone())
        };
        self.board.check(
            total.is_clean() && total.requests() > 0,
            format!(
                "of {} requests: {} lost, {} answered wrongly, {} connections closed under a client",
                total.requests(),
                total.lost,
                total.wrong,
                total.closed
            ),
        );
        troubles.iter().for_each(|trouble| self.board.note(trouble));
    }

    /// The ends of the logs on standard error.
    pub(super) fn show_logs(&self) {
        let Some(topology) = &self.topology else { return };
        for entry in fs::read_dir(topology.dir.join("log")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            if !text.is_empty() {
                eprintln!("-- {}", entry.file_name().to_string_lossy());
                worth_showing(&text).iter().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// The last lines of a log, and of those before them the last ones of level WARN and above.
fn worth_showing(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(LOG_TAIL));
    // The level follows the time, or stands first.
    let warns = |line: &&str| line.split_whitespace().take(2).any(|word| matches!(word, "WARN" | "ERROR"));
    let mut shown: Vec<&str> = before.iter().copied().filter(warns).collect();
    shown.drain(..shown.len().saturating_sub(LOG_TAIL));
    shown.extend(last);
    shown
}

/// Keeps the board's statuses as the amphora's.
async fn watch_members(client: Client, demo: Demo, board: Board) {
    let names: Vec<(String, &str)> =
        processes().into_iter().map(|(name, _)| (demo.member(name).to_string(), name)).collect();
    loop {
        // Before the first document there is no status; a failure shows as statuses that do not change.
        if let Ok(status) = client.status(demo.id()).await {
            let mut members = std::collections::BTreeMap::new();
            collect(&status, &mut |id, status| {
                if let Some((_, name)) = names.iter().find(|(i, _)| i == id) {
                    members.insert((*name).to_owned(), status.to_owned());
                }
            });
            board.read().members = members;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Every object with an id and an operating status.
pub(super) fn collect(value: &Value, tell: &mut dyn FnMut(&str, &str)) {
    if let (Some(id), Some(status)) = (value["id"].as_str(), value["operating_status"].as_str()) {
        tell(id, status);
    }
    match value {
        Value::Array(list) => list.iter().for_each(|v| collect(v, tell)),
        Value::Object(fields) => fields.values().for_each(|v| collect(v, tell)),
        _ => {}
    }
}

/// The controller's end of the heartbeats.
async fn count_heartbeats(socket: UdpSocket, key: String, board: Board) {
    let mut packet = vec![0; 65_536];
    while let Ok((length, _)) = socket.recv_from(&mut packet).await {
        let genuine = heartbeat::open(&packet[..length], &key).is_ok();
        let mut board = board.read();
        if genuine { board.heartbeats += 1 } else { board.forged += 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_end_is_shown_and_what_warns() {
        let mut log = String::from("2026-01-01T00:00:00Z  WARN early\n");
        (0..100).for_each(|n| log.push_str(&format!("2026-01-01T00:00:00Z  INFO {n}\n")));
        let shown = worth_showing(&log);
        assert_eq!(shown.len(), LOG_TAIL + 1);
        assert!(shown[0].ends_with("WARN early") && shown[1].ends_with("INFO 80"), "{shown:?}");
        assert_eq!(worth_showing("one\n"), ["one"]);
    }
}
