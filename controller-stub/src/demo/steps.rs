//! The scenario, step by step. Each step does something to the amphora under traffic, and checks what it promises.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{
    board::Board,
    document::{API, Demo, VAULT, Variant, WEB},
    exchange::Kind,
    stage::{Stage, collect},
    tally::Phase,
};
use crate::error::{Error, Result};

/// What health checks, applied configuration and traffic have to show within.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// The member that is killed.
const VICTIM: &str = WEB.1[1];

impl Stage {
    /// The whole scenario, one amphora, then the pair, then `serve`; without `--once` again and again, from the policies on.
    ///
    /// # Errors
    /// What made going on pointless. A check that does not hold is not an error: it is on the board.
    pub(super) async fn run(&mut self) -> Result<()> {
        self.board.step("start an amphora and seven members");
        let demo = self.set_up().await?;
        self.configure(&demo).await?;
        loop {
            self.start_traffic()?;
            self.policies().await?;
            self.terminate().await?;
            self.replace_certificate().await?;
            self.refuse(&demo).await?;
            self.kill(&demo).await?;
            self.drain(&demo).await?;
            self.steer(&demo).await?;
            self.change(&demo).await?;
            self.conclude().await?;
            self.linger().await?;
            self.show_pair().await?;
            self.show_serve().await?;
            if self.options.once {
                return Ok(());
            }
        }
    }

    async fn configure(&mut self, demo: &Demo) -> Result<()> {
        self.board.step(
            "apply a load balancer: HTTP and HTTPS, three pools, a policy of each action, monitors, cookie persistence",
        );
        self.bring_certificates(demo).await?;
        let document = demo.document(Variant::default());
        let begin = Instant::now();
        self.client().put(demo.id(), &document).await?;
        self.board.note(format!("live after {:.0} ms", begin.elapsed().as_secs_f64() * 1e3));
        let again = self.client().put(demo.id(), &document).await?;
        self.board.check(
            again["changed"] == Value::Bool(false),
            "applying the same document again changes nothing",
        );
        let up = self.until(LIMIT, |s| base().all(|m| s.has_status(m, "ONLINE"))).await?;
        told(&self.board, up, "health checks found six of six members ONLINE");
        if up.is_none() {
            // Traffic to members that are not up would only drown the reason in lost requests.
            return Err(Error::NotTrue("members did not come up".to_owned()));
        }
        Ok(())
    }

    async fn policies(&mut self) -> Result<()> {
        self.board.step("who answers what");
        let phase = self.next_phase();
        let balanced = |p: &Phase| WEB.1.iter().map(|m| share(p, m).balanced).sum::<u64>();
        let enough = |p: &Phase| {
            balanced(p) >= 600 && Kind::ALL.iter().all(|k| p.kinds.get(k).is_some_and(|n| *n >= 20))
        };
        self.until(LIMIT, |s| enough(&s.counts.tally().phase(phase))).await?;
        let seen = self.counts.tally().phase(phase);
        for (kind, policy) in [
            (Kind::Api, "REDIRECT_TO_POOL: /api/ is answered by pool api"),
            (Kind::Vault, "REDIRECT_TO_POOL: /vault/ is answered by pool vault, whose member speaks TLS"),
            (Kind::Rejected, "REJECT: /admin gets 403"),
            (Kind::Moved, "REDIRECT_TO_URL: /old gets 301 and the URL"),
            (Kind::Docs, "REDIRECT_PREFIX: /docs gets 302 and its own path behind the prefix"),
            (Kind::Upload, "no policy: uploads come back from pool web, byte for byte"),
        ] {
            let count = seen.kinds.get(&kind).copied().unwrap_or(0);
            self.board.check(
                count >= 20 && seen.wrong == 0,
                format!("{policy} ({count} times, {} wrong)", seen.wrong),
            );
        }
        let shares: Vec<u64> = WEB.1.iter().map(|m| share(&seen, m).balanced).collect();
        let fair = balanced(&seen) as f64 / 3.0;
        self.board.check(
            fair > 0.0 && shares.iter().all(|n| (*n as f64 / fair - 1.0).abs() < 0.15),
            format!("ROUND_ROBIN: equal shares without a cookie: {shares:?}"),
        );
        self.board.check(
            API.1.iter().all(|m| share(&seen, m).total() > 0),
            "LEAST_CONNECTIONS: both of pool api answer",
        );
        let kept: u64 = WEB.1.iter().map(|m| share(&seen, m).persistent).sum();
        self.board.check(
            kept > 0 && seen.moved == 0,
            format!(
                "HTTP_COOKIE: {kept} requests with a cookie, {} by another member than the cookie's",
                seen.moved
            ),
        );
        self.unharmed(phase, "meanwhile");
        self.linger().await
    }

    async fn refuse(&mut self, demo: &Demo) -> Result<()> {
        self.board.step("apply a document with two faults");
        let before = self.client().get(demo.id()).await?;
        match self.client().put(demo.id(), &demo.bad_document()).await {
            Err(Error::Refused { status, faults, .. }) => {
                self.board.check(faults.len() == 2, format!("refused with {status}, both faults told:"));
                faults.iter().for_each(|fault| self.board.note(format!("{}: {}", fault.path, fault.reason)));
            }
            Err(other) => return Err(other),
            Ok(_) => self.board.check(false, "it was not refused"),
        }
        let same = before == self.client().get(demo.id()).await?;
        self.board.check(same, "what ran before runs on");
        Ok(())
    }

    async fn kill(&mut self, demo: &Demo) -> Result<()> {
        self.board.step(&format!("kill {VICTIM} (SIGKILL), then bring it back"));
        // A POST must not be repeated behind the client's back: one that is under way while its member dies is an
        // error by right, so none is sent. Everything else has to survive.
        self.traffic().set_uploads(false);
        let phase = self.next_phase();
        self.until(LIMIT, |s| share(&s.counts.tally().phase(phase), VICTIM).total() >= 10).await?;
        self.kill_member(VICTIM).await;
        let out = self.until(LIMIT, |s| s.has_status(VICTIM, "ERROR")).await?;
        told(&self.board, out, &format!("the health monitor takes {VICTIM} out"));
        let out_phase = self.next_phase();
        self.until(LIMIT, |s| s.counts.tally().phase(out_phase).requests() >= 1000).await?;
        let dying = self.counts.tally().phase(phase);
        let dead = self.counts.tally().phase(out_phase);
        self.board.check(
            dying.is_clean(),
            format!("no client noticed: {} requests while it died, {}", dying.requests(), dying.harm()),
        );
        self.board.check(
            share(&dead, VICTIM).total() == 0 && dead.is_clean(),
            format!("the others carry on without it: {} requests, {}", dead.requests(), dead.harm()),
        );
        self.linger().await?;

        self.start_member(demo, VICTIM)?;
        let back = self.until(LIMIT, |s| s.has_status(VICTIM, "ONLINE")).await?;
        told(&self.board, back, &format!("the health monitor takes {VICTIM} in again"));
        let back_phase = self.next_phase();
        let works =
            self.until(LIMIT, |s| share(&s.counts.tally().phase(back_phase), VICTIM).balanced >= 20).await?;
        told(&self.board, works, &format!("{VICTIM} answers again"));
        self.unharmed(back_phase, "meanwhile");
        self.traffic().set_uploads(true);
        self.linger().await
    }

    async fn drain(&mut self, demo: &Demo) -> Result<()> {
        // The member with most sessions shows best that they are kept.
        let total = self.counts.tally().phase(self.traffic().phase());
        let target = WEB.1.into_iter().max_by_key(|m| share(&total, m).persistent).unwrap_or(WEB.1[0]);
        self.board.step(&format!("drain {target}: weight 0"));
        self.client().set_member(demo.id(), demo.pool(WEB.0), demo.member(target), Some(0), None).await?;
        let phase = self.next_phase();
        let drains = self.until(LIMIT, |s| s.has_status(target, "DRAINING")).await?;
        told(&self.board, drains, &format!("{target} is DRAINING"));
        self.until(LIMIT, |s| s.counts.tally().phase(phase).requests() >= 1500).await?;
        let seen = self.counts.tally().phase(phase);
        let own = share(&seen, target);
        self.board.check(
            own.balanced == 0,
            format!("no new client is sent to it: {} of {}", own.balanced, seen.requests()),
        );
        self.board.check(
            own.persistent > 0 && seen.moved == 0,
            format!("clients with a session stay: {} answers, {} moved", own.persistent, seen.moved),
        );
        self.unharmed(phase, "while it drained");
        self.linger().await?;
        self.client().set_member(demo.id(), demo.pool(WEB.0), demo.member(target), Some(1), None).await?;
        let back_phase = self.next_phase();
        let back =
            self.until(LIMIT, |s| share(&s.counts.tally().phase(back_phase), target).balanced >= 20).await?;
        told(&self.board, back, &format!("with weight 1 {target} gets its share again"));
        self.linger().await
    }

    async fn change(&mut self, demo: &Demo) -> Result<()> {
        let count = self.options.changes;
        self.board.step(&format!("change the configuration {count} times under load"));
        self.board.note(
            "members, weights, policies, algorithm come and go, and a second listener; one listener stays",
        );
        let before = self.client().stats(demo.id()).await?;
        let phase = self.next_phase();
        let mut times = Vec::new();
        let mut unsteady = Vec::new();
        for n in 1..=count {
            let document = demo.document(Variant::nth(n));
            let begin = Instant::now();
            self.client().put(demo.id(), &document).await?;
            times.push(begin.elapsed());
            self.board.read().doing = format!("change the configuration: {n} of {count}");
            if n % 10 == 0 {
                let status = self.client().status(demo.id()).await?;
                collect(&status, &mut |id, status| {
                    unsteady.extend(
                        base()
                            .filter(|m| demo.member(m).to_string() == id && status != "ONLINE")
                            .map(|m| format!("{m} {status}")),
                    );
                });
            }
            // Some traffic sees each of them.
            let so_far = self.counts.tally().phase(phase).requests();
            self.until(LIMIT, |s| s.counts.tally().phase(phase).requests() >= so_far + 10).await?;
        }
        self.client().put(demo.id(), &demo.document(Variant::default())).await?;
        let seen = self.counts.tally().phase(phase);
        let after = self.client().stats(demo.id()).await?;
        times.sort_unstable();
        let quantile = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
        self.board.note(format!(
            "{count} changes; live after {:.1} ms at the median, {:.1} ms at p99",
            quantile(0.5),
            quantile(0.99)
        ));
        self.board.check(seen.is_clean(), format!("{} requests meanwhile: {}", seen.requests(), seen.harm()));
        self.board.check(seen.moved == 0, format!("sessions were kept: {} moved", seen.moved));
        self.board.check(unsteady.is_empty(), health_kept(&unsteady));
        self.board.check(
            counters_kept(&before, &after),
            "counters were kept, and it is still the same proxy process",
        );
        Ok(())
    }

    async fn conclude(&mut self) -> Result<()> {
        self.board.step(if self.options.once { "what was lost" } else { "what was lost so far" });
        if let Some(traffic) = &mut self.traffic {
            traffic.finish().await?;
        }
        self.traffic = None;
        self.tell_losses();
        self.until(LIMIT, |s| s.board.read().heartbeats >= 3).await?;
        let (good, bad) = {
            let board = self.board.read();
            (board.heartbeats, board.forged)
        };
        self.board
            .check(good >= 3 && bad == 0, format!("{good} heartbeats arrived, {bad} that did not verify"));
        Ok(())
    }

    /// Gives an onlooker time to see what the step did; a single pass is for machines and goes on.
    pub(super) async fn linger(&mut self) -> Result<()> {
        if !self.options.once {
            self.until(Duration::from_secs(2), |_| false).await?;
        }
        Ok(())
    }

    fn traffic(&self) -> &super::traffic::Traffic {
        self.traffic.as_ref().expect("run started it")
    }

    pub(super) fn next_phase(&self) -> u32 {
        self.traffic().next_phase()
    }

    /// Checks that a phase lost nothing.
    pub(super) fn unharmed(&self, phase: u32, when: &str) {
        let seen = self.counts.tally().phase(phase);
        self.board.check(seen.is_clean(), format!("{} requests {when}: {}", seen.requests(), seen.harm()));
    }
}

/// The members that every document has.
fn base() -> impl Iterator<Item = &'static str> {
    WEB.1.into_iter().chain(API.1).chain(VAULT.1)
}

fn share(phase: &Phase, member: &str) -> super::tally::Share {
    phase.members.get(member).copied().unwrap_or_default()
}

/// A check that something happened in time, and when.
pub(super) fn told(board: &Board, took: Option<Duration>, what: &str) {
    match took {
        Some(took) => board.check(true, format!("{what} (after {:.1} s)", took.as_secs_f64())),
        None => board.check(false, format!("{what}: not within {} s", LIMIT.as_secs())),
    }
}

/// That every member stayed ONLINE, and what was seen that says otherwise.
fn health_kept(unsteady: &[String]) -> String {
    let seen = if unsteady.is_empty() { String::new() } else { format!("; seen: {}", unsteady.join(", ")) };
    format!("health was kept: every member stayed ONLINE{seen}")
}

/// What statistics have besides counters: what is so at present, and what is said of the last sessions.
const NO_COUNTERS: [&str; 5] = ["idle", "weight", "times", "unchanged_ms", "last_session_s"];

/// No counter of an object that both have went back, and the process is the same.
fn counters_kept(before: &Value, after: &Value) -> bool {
    fn grown(before: &Value, after: &Value) -> bool {
        match (before, after) {
            (Value::Object(a), Value::Object(b)) => a.iter().all(|(key, old)| {
                let momentary = key.starts_with("active") || NO_COUNTERS.contains(&key.as_str());
                momentary || b.get(key).is_none_or(|new| grown(old, new))
            }),
            (Value::Number(a), Value::Number(b)) => a.as_u64() <= b.as_u64(),
            _ => true,
        }
    }
    before["instance"] == after["instance"] && grown(before, after)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_not_online_is_named_and_nothing_is_not() {
        assert_eq!(health_kept(&[]), "health was kept: every member stayed ONLINE");
        let unsteady = ["web-1 ERROR".to_owned(), "api-2 ERROR".to_owned()];
        assert!(health_kept(&unsteady).ends_with("ONLINE; seen: web-1 ERROR, api-2 ERROR"));
    }

    #[test]
    fn counters_that_went_back_are_noticed() {
        let stats = |instance: &str, requests: u64, idle: u64| json!({"instance": instance, "pools": {"p": {"members": {"m": {"requests": requests, "idle": idle}}}}});
        assert!(counters_kept(&stats("a", 5, 3), &stats("a", 6, 0)));
        assert!(!counters_kept(&stats("a", 5, 3), &stats("a", 4, 3)));
        assert!(!counters_kept(&stats("a", 5, 3), &stats("b", 6, 3)));
        assert!(counters_kept(
            &json!({"instance": 1, "listeners": {"x": {"requests": 1}}}),
            &json!({"instance": 1, "listeners": {}})
        ));
    }
}
