//! The scenario of the pair, step by step. Each step takes the address from the master, or the master from the pair, while
//! a client asks, and says what the client noticed.

use std::time::{Duration, Instant};

use amphora_agent::{vrrp::Role, vrrp_client::VrrpAction};
use serde_json::Value;

use super::{
    INTERVAL_MS, NAMES, Pair,
    ground::{OWN, VIP},
    steady::{Ledger, RATE, Steady, Window},
    vrrp_document,
};
use crate::{
    client::Client,
    cmd,
    demo::{
        amphora::kill,
        board::Inner,
        document::{Demo, Variant},
        stage::Stage,
        steps::{LIMIT, told},
    },
    document::Document,
    error::{Error, Result},
    style::Style,
    vrrp_document::VrrpDocument,
};

/// How long the address may be without a server when the master's proxy was killed. It is told and not checked: a host
/// with other things to do may take longer.
const TARGET: Duration = Duration::from_millis(50);

/// Answers that the client gets before something happens, and after it.
pub(in crate::demo) const SOME: u64 = RATE as u64 / 2;

/// What the client must not notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) enum Hopes {
    /// No request is lost.
    NothingLost,
    /// That it is served in the end, and nothing else.
    None,
}

impl Stage {
    /// Shows a pair, where there are namespaces for it.
    ///
    /// # Errors
    /// What made going on pointless.
    pub(in crate::demo) async fn show_pair(&mut self) -> Result<()> {
        if self.topology().client_netns().is_none() {
            // It was said when that came to light.
            return Ok(());
        }
        self.board.step("start a pair: two amphorae, each with agent, proxy and VRRP daemon, on one switch");
        let demo = Demo::new(Pair::vip(), 8080, self.topology().members.clone());
        self.start_pair(&demo).await?;
        let master = self.configure_pair(&demo).await?;
        self.start_client().await?;
        let master = self.hand_over(master).await?;
        let master = self.kill_proxy(master).await?;
        let master = self.kill_vrrp(master).await?;
        let dead = master;
        let master = self.kill_host(master).await?;
        self.bring_back(dead, master).await?;
        self.recall();
        self.linger().await?;
        if let Some(pair) = &mut self.pair {
            pair.stop().await;
        }
        self.pair = None;
        Ok(())
    }

    async fn start_pair(&mut self, demo: &Demo) -> Result<()> {
        let begin = Instant::now();
        let pair = Pair::start(self.topology(), &self.options.programs, self.controller(), &self.board)?;
        let pair = self.pair.insert(pair);
        for amphora in &mut pair.amphorae {
            amphora.ready().await?;
        }
        pair.watch(demo);
        self.board.check(
            true,
            format!("two agents, proxies and VRRP daemons run after {:.2} s", begin.elapsed().as_secs_f64()),
        );
        self.board.note(format!("VIP {VIP}; {} has {}, {} has {}", NAMES[0], OWN[0], NAMES[1], OWN[1]));
        Ok(())
    }

    /// Brings both what they are to do; which one is master.
    async fn configure_pair(&mut self, demo: &Demo) -> Result<usize> {
        self.board.step("apply a load balancer and a VRRP document to both");
        let clients = self.pair().clients();
        let document = Document { id: demo.id(), body: demo.document(Variant::default()) };
        let mut said = Vec::new();
        cmd::lb::apply(&mut said, Style::PLAIN, &clients, &document, None).await?;
        // What changed in detail is a line each, and the whole document.
        self.tell_said("apply", &said, |line| line.ends_with(" changed"));
        let documents = VrrpDocument::Native(vrrp_document()).pair().map_err(Error::Local)?;
        let mut said = Vec::new();
        let peers = cmd::peers::Plan::Alike(OWN.map(Into::into), cmd::peers::PORT);
        cmd::vrrp::pair(&mut said, &clients, &documents, peers).await?;
        self.tell_said("vrrp pair", &said, |_| true);
        self.board.note(format!(
            "VRRP version 3, unicast, without preemption: an advertisement each {INTERVAL_MS} ms; the proxy is asked \
             each 100 ms whether it is fit, fall 2, rise 2"
        ));
        let settled = self.until(LIMIT, |s| settled(&s.board.read()).is_some()).await?;
        let master = settled_or_not_true(&self.board.read())?;
        let text = format!("{} is MASTER, {} is BACKUP, both are healthy", NAMES[master], NAMES[1 - master]);
        told(&self.board, settled, &text);
        self.board.note("every change of a role is told below as it is seen, five times a second");
        Ok(master)
    }

    async fn start_client(&mut self) -> Result<()> {
        self.board.step(&format!("a client asks the VIP {RATE} times a second, on a connection each"));
        let topology = self.topology();
        let netns = topology.client_netns().unwrap_or_default();
        let steady = Steady::start(Pair::vip(), netns, self.board.read().pair_client.clone())?;
        self.pair_mut().steady = Some(steady);
        self.board.note("outage: the longest time without a right answer; lost: a request that got none");
        self.more(SOME).await?;
        self.ledger().next();
        self.noticed(Hopes::NothingLost, "nothing happens").await
    }

    async fn hand_over(&mut self, master: usize) -> Result<usize> {
        self.begin("a planned hand-over: vrrp failover, and vrrp resume").await?;
        let clients = self.pair().clients();
        let mut said = Vec::new();
        match cmd::vrrp::failover(&mut said, &clients, LIMIT).await {
            Ok(()) => {}
            Err(error @ Error::NotDone(_)) => self.board.check(false, error.to_string()),
            Err(error) => return Err(error),
        }
        self.tell_said("vrrp failover", &said, |_| true);
        let heir = 1 - master;
        self.taken_over(heir).await?;
        clients[master].act(VrrpAction::Resume).await?;
        self.healed(heir, Hopes::NothingLost, "planned hand-over").await
    }

    async fn kill_proxy(&mut self, master: usize) -> Result<usize> {
        self.begin(&format!("kill the proxy of {} (SIGKILL)", NAMES[master])).await?;
        kill(proxy_of(&self.pair().clients()[master]).await?);
        let heir = 1 - master;
        self.taken_over(heir).await?;
        let met = if self.ledger().now().outage < TARGET { "met" } else { "missed here" };
        self.board.note(format!("the target, an outage below {} ms, is {met}", TARGET.as_millis()));
        self.healed(heir, Hopes::None, "proxy killed").await
    }

    /// The address stays in the kernel when the daemon is killed. Whether the peer takes over depends on whether the new
    /// daemon is there before three advertisements are missing.
    async fn kill_vrrp(&mut self, master: usize) -> Result<usize> {
        self.begin(&format!("kill the VRRP daemon of {} (SIGKILL): its agent starts another", NAMES[master]))
            .await?;
        let old = self.board.read().pair.get(NAMES[master]).and_then(|peer| peer.vrrp);
        let old =
            old.ok_or_else(|| Error::NotTrue(format!("{} does not say its VRRP daemon", NAMES[master])))?;
        kill(old);
        let another = self
            .until(LIMIT, |s| {
                let pid = s.board.read().pair.get(NAMES[master]).and_then(|peer| peer.vrrp);
                pid.is_some_and(|pid| pid != old)
            })
            .await?;
        self.held(another, "another VRRP daemon runs");
        self.until(LIMIT, |s| settled(&s.board.read()).is_some()).await?;
        let now = settled_or_not_true(&self.board.read())?;
        let what = if now == master { "stays MASTER" } else { "is MASTER" };
        self.board.check(true, format!("{} {what}", NAMES[now]));
        self.healed(now, Hopes::None, "VRRP daemon killed").await
    }

    async fn kill_host(&mut self, master: usize) -> Result<usize> {
        let name = NAMES[master];
        self.begin(&format!(
            "{name} dies with its host: link and namespace gone, all its programs killed (SIGKILL)"
        ))
        .await?;
        let client = self.pair().clients()[master].clone();
        let proxy = proxy_of(&client).await?;
        let vrrp = client.vrrp_status().await?.map(|status| status.pid);
        let daemons: Vec<u32> = vrrp.into_iter().chain([proxy]).collect();
        self.pair_mut().kill_host(master, &daemons).await?;
        let heir = 1 - master;
        self.taken_over(heir).await?;
        let gone =
            self.until(LIMIT, |s| s.board.read().pair.get(name).is_some_and(|p| p.vrrp.is_none())).await?;
        self.held(gone, &format!("{name} answers no more"));
        self.noticed(Hopes::None, "host killed").await?;
        self.linger().await?;
        Ok(heir)
    }

    async fn bring_back(&mut self, dead: usize, master: usize) -> Result<()> {
        self.begin(&format!("{} comes back: host and agent are started, its disk is as it was", NAMES[dead]))
            .await?;
        self.pair_mut().bring_back(dead)?;
        let back = self.until(LIMIT, |s| settled(&s.board.read()) == Some(master)).await?;
        let text = format!("{} is BACKUP by itself and healthy, {} stays MASTER", NAMES[dead], NAMES[master]);
        told(&self.board, back, &text);
        self.noticed(Hopes::NothingLost, "host back").await
    }

    /// The outages once more, in one place.
    fn recall(&self) {
        self.board.step("what the client of the pair noticed");
        self.pair()
            .seen
            .iter()
            .for_each(|(what, seen)| self.board.note(format!("{what:20} {}", seen.told())));
    }

    /// A new step. The client has had some answers in its present window when this returns.
    async fn begin(&mut self, text: &str) -> Result<()> {
        self.board.step(text);
        self.more(SOME).await
    }

    /// Checks that the amphora becomes master and that the client is served.
    async fn taken_over(&mut self, heir: usize) -> Result<()> {
        let taken = self.until(LIMIT, |s| is_master(&s.board.read(), heir)).await?;
        self.held(taken, &format!("{} is MASTER", NAMES[heir]));
        self.more(SOME).await
    }

    /// Checks that the other one is healthy again and backup, and tells what the client noticed meanwhile. Returns the
    /// master.
    async fn healed(&mut self, master: usize, hopes: Hopes, what: &'static str) -> Result<usize> {
        let healed = self.until(LIMIT, |s| settled(&s.board.read()) == Some(master)).await?;
        self.held(healed, &format!("{} is BACKUP, both are healthy", NAMES[1 - master]));
        self.noticed(hopes, what).await?;
        self.linger().await?;
        Ok(master)
    }

    /// A check that something was seen in time. How long it took is the client's to say: roles are looked at too seldom.
    fn held(&self, seen: Option<Duration>, what: &str) {
        match seen {
            Some(_) => self.board.check(true, what),
            None => told(&self.board, None, what),
        }
    }

    /// Waits for so many more right answers.
    ///
    /// # Errors
    /// [`Error::NotTrue`]: they do not come, and what follows would mean nothing.
    async fn more(&mut self, answers: u64) -> Result<()> {
        let ledger = self.ledger().clone();
        self.more_of(&ledger, answers).await
    }

    /// The same, of any client.
    ///
    /// # Errors
    /// As [`more`](Self::more).
    pub(in crate::demo) async fn more_of(&mut self, ledger: &Ledger, answers: u64) -> Result<()> {
        let goal = ledger.now().answered + answers;
        if self.until(LIMIT, |_| ledger.now().answered >= goal).await?.is_none() {
            self.board.check(false, format!("the VIP is served: not within {} s", LIMIT.as_secs()));
            return Err(Error::NotTrue("the VIP is not served".to_owned()));
        }
        Ok(())
    }

    /// Checks that the client is served, closes its window, and tells what it noticed. What comes now is in the next
    /// window.
    async fn noticed(&mut self, hopes: Hopes, what: &'static str) -> Result<()> {
        let ledger = self.ledger().clone();
        let seen = self.close_window(&ledger).await?;
        self.judge(hopes, what, &seen);
        self.pair_mut().seen.push((what, seen));
        Ok(())
    }

    /// Checks that a client is served, and closes its window.
    ///
    /// # Errors
    /// It is not, or its requests come to no end.
    pub(in crate::demo) async fn close_window(&mut self, ledger: &Ledger) -> Result<Window> {
        self.more_of(ledger, SOME).await?;
        ledger.next();
        self.until(LIMIT, |_| ledger.closed().is_some()).await?;
        ledger.closed().ok_or_else(|| Error::Local("the client's requests come to no end".to_owned()))
    }

    /// Tells what a client noticed.
    pub(in crate::demo) fn judge(&self, hopes: Hopes, what: &str, seen: &Window) {
        let text = format!("{what}: {}", seen.told());
        match hopes {
            Hopes::NothingLost => self.board.check(seen.lost == 0, text),
            Hopes::None => self.board.check(true, text),
        }
        for (reason, count) in &seen.reasons {
            self.board.note(format!("{count} x {reason}"));
        }
    }

    /// Notes what a command said, with the amphorae by their names.
    fn tell_said(&self, command: &str, said: &[u8], wanted: fn(&str) -> bool) {
        let mut text = String::from_utf8_lossy(said).into_owned();
        for (client, name) in self.pair().clients().iter().zip(NAMES) {
            text = text.replace(&client.endpoint().to_string(), name);
        }
        text.lines()
            .filter(|line| wanted(line))
            .for_each(|line| self.board.note(format!("{command}: {line}")));
    }

    fn pair(&self) -> &Pair {
        self.pair.as_ref().expect("show_pair started it")
    }

    fn pair_mut(&mut self) -> &mut Pair {
        self.pair.as_mut().expect("show_pair started it")
    }

    fn ledger(&self) -> &Ledger {
        self.pair().steady.as_ref().expect("show_pair started it").ledger()
    }
}

/// The master, when the other one is backup and both are healthy.
fn settled(board: &Inner) -> Option<usize> {
    let role = |n: usize| board.pair.get(NAMES[n]).filter(|peer| peer.healthy).and_then(|peer| peer.role);
    (0..NAMES.len()).find(|n| role(*n) == Some(Role::Master) && role(1 - n) == Some(Role::Backup))
}

/// As [`settled`].
///
/// # Errors
/// [`Error::NotTrue`] when it is not so: then there is nobody to whom anything could happen.
fn settled_or_not_true(board: &Inner) -> Result<usize> {
    settled(board).ok_or_else(|| {
        let each: Vec<String> = board
            .pair
            .iter()
            .map(|(name, peer)| {
                format!(
                    "{name} {}, {}",
                    peer.role_name(),
                    if peer.healthy { "healthy" } else { "not healthy" }
                )
            })
            .collect();
        Error::NotTrue(format!("no healthy master with a healthy backup: {}", each.join("; ")))
    })
}

fn is_master(board: &Inner, n: usize) -> bool {
    board.pair.get(NAMES[n]).is_some_and(|peer| peer.role == Some(Role::Master))
}

/// The process of an amphora's proxy.
async fn proxy_of(client: &Client) -> Result<u32> {
    let pid = client.info().await?.pointer("/proxy/pid").and_then(Value::as_u64);
    pid.and_then(|pid| u32::try_from(pid).ok())
        .ok_or_else(|| Error::NotTrue(format!("{} does not say its proxy's process", client.endpoint())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::demo::board::{Board, Peer};

    #[test]
    fn a_pair_is_settled_with_one_healthy_master_and_one_healthy_backup() {
        let board = Board::new(false, Style::PLAIN);
        let peer = |role, healthy| Peer { role: Some(role), vrrp: Some(1), healthy };
        let with = |first: Peer, second: Peer| {
            let mut inner = board.read();
            inner.pair = [(NAMES[0], first), (NAMES[1], second)].into();
            settled(&inner)
        };
        let (master, backup) = (peer(Role::Master, true), peer(Role::Backup, true));
        assert_eq!(with(master.clone(), backup.clone()), Some(0));
        assert_eq!(with(backup.clone(), master.clone()), Some(1));
        assert_eq!(with(master.clone(), master.clone()), None);
        assert_eq!(with(master.clone(), peer(Role::Backup, false)), None);
        assert_eq!(with(master, Peer::default()), None);
        let told = settled_or_not_true(&board.read()).unwrap_err().to_string();
        assert!(told.contains("amphora-1 MASTER, healthy; amphora-2 no answer, not healthy"), "{told}");
        assert_eq!(with(backup.clone(), backup), None);
    }
}
