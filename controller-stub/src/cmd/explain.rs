//! `explain`: what a request would meet.

use std::{fmt::Write as _, io::Write, net::IpAddr, path::Path};

use amphora_ipc::{
    proxy::{Explanation, LimitCount, MemberVerdict, NotFollowed, PoolNotFollowed, PoolVerdict, Question},
    vrrp::Status as VrrpStatus,
};
use amphora_model::{ListenerId, LoadBalancerId, MemberId};
use serde_json::Value;

use super::{Outcome, certificate::bounded, member::Named, resolve};
use crate::{
    client::Client,
    error::{Error, Result},
    style::{Colour, Style},
    tree,
};

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The listener.
    pub(crate) listener: Named<ListenerId>,
    /// `GET /path`.
    pub(crate) request: Option<String>,
    /// `Host`.
    pub(crate) host: Option<String>,
    /// `Name: value`.
    pub(crate) headers: Vec<String>,
    /// `name=value`.
    pub(crate) cookies: Vec<String>,
    /// Whose request it is.
    pub(crate) client: Option<IpAddr>,
    /// What the client shows, in PEM.
    pub(crate) certificate: Option<String>,
}

/// The most bytes that certificates take.
const MOST_CERTIFICATES: u64 = 256 * 1024;

/// The certificates of a file in PEM, or of standard input (`-`), in their order; nothing else that is in it.
///
/// # Errors
/// When it cannot be read, or there is none in it.
pub(crate) fn certificates(path: &Path) -> Result<String> {
    let bytes = bounded(path, MOST_CERTIFICATES)?;
    let text = String::from_utf8_lossy(&bytes);
    certificates_in(&text).ok_or_else(|| Error::file(path, "has no certificate in PEM"))
}

fn certificates_in(text: &str) -> Option<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = String::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once(BEGIN) {
        let (content, behind) = begun.split_once(END)?;
        for piece in [BEGIN, content, END, "\n"] {
            found.push_str(piece);
        }
        rest = behind;
    }
    (!found.is_empty()).then_some(found)
}

impl Asked {
    fn question(&self, listener: ListenerId) -> Result<Question> {
        let usage = |reason: &str| Error::Usage(reason.to_owned());
        let (method, target) = match self.request.as_deref().map(|request| request.trim().split_once(' ')) {
            None => (None, None),
            Some(Some((method, target))) => (Some(method.to_owned()), Some(target.trim().to_owned())),
            Some(None) => return Err(usage("--request is a method and a target: \"GET /path\"")),
        };
        let mut headers = Vec::new();
        headers.extend(self.host.as_ref().map(|host| ("Host".to_owned(), host.clone())));
        for header in &self.headers {
            let (name, value) = header.split_once(':').ok_or_else(|| usage("--header is \"Name: value\""))?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        if !self.cookies.is_empty() {
            headers.push(("Cookie".to_owned(), self.cookies.join("; ")));
        }
        let (client, certificate) = (self.client, self.certificate.clone());
        Ok(Question { listener, method, target, headers, client, certificate })
    }
}

/// Tells of every amphora what the request would meet there.
///
/// # Errors
/// The first one, after the others were asked.
pub(crate) async fn explain(
    out: &mut impl Write,
    style: Style,
    clients: &[Client],
    id: Option<LoadBalancerId>,
    asked: &Asked,
    json: bool,
) -> Result<()> {
    let mut outcome = Outcome::default();
    for client in clients {
        let result = async {
            let id = resolve(client, id).await?;
            let question = asked.question(find(client, id, &asked.listener).await?)?;
            let question = serde_json::to_value(&question).map_err(|e| Error::local("explain", e))?;
            let told = client.explain(id, &question).await?;
            if json {
                return Ok(writeln!(out, "{told:#}")?);
            }
            let told: Explanation = serde_json::from_value(told).map_err(|e| Error::local("explain", e))?;
            if clients.len() > 1 {
                writeln!(out, "{}", style.paint(Colour::Dim, client.endpoint()))?;
            }
            let mut text = String::new();
            if let Some(state) = client.vrrp_status().await.ok().flatten().as_ref().and_then(not_master) {
                writeln!(
                    text,
                    "{} this amphora is {state} in VRRP: clients are served by the other, which has counted them",
                    style.paint(Colour::Yellow, "note")
                )
                .map_err(|e| Error::local("explain", e))?;
            }
            draw(&mut text, &told, style).map_err(|e| Error::local("explain", e))?;
            Ok(out.write_all(text.as_bytes())?)
        };
        outcome.note(result.await);
    }
    outcome.result()
}

/// The listener's id; with an id alone the amphora is not asked.
async fn find(client: &Client, id: LoadBalancerId, listener: &Named<ListenerId>) -> Result<ListenerId> {
    match listener {
        Named::Id(listener) => Ok(*listener),
        Named::Name(name) => {
            let status = client.status(id).await?;
            let listeners = status["statuses"]["loadbalancer"]["listeners"].as_array();
            let listeners = listeners.map_or(&[][..], Vec::as_slice);
            super::member::the_one(client.endpoint(), "listener", name, listeners)
        }
    }
}

/// What it is in VRRP, when it is master of nothing: its peer has the traffic then, and what is counted of clients.
fn not_master(vrrp: &VrrpStatus) -> Option<&str> {
    let states = || vrrp.instances.iter().map(|instance| instance.state.as_str());
    if states().any(|state| state == "MASTER") { None } else { states().next() }
}

fn draw(out: &mut String, told: &Explanation, style: Style) -> std::fmt::Result {
    writeln!(out, "{}", style.paint(Colour::Bold, &told.outcome))?;
    for limit in &told.rate_limits {
        let rules = limit.rules.join(" and ");
        write!(out, "rate limit {}: {} beyond {rules}", named(&limit.name, &limit.id), limit.action)?;
        match &limit.verdict {
            Some(verdict) => writeln!(out, ": {}", style.paint(Colour::Yellow, verdict))?,
            None => out.push('\n'),
        }
        limit.counts.iter().try_for_each(|count| draw_count(out, count))?;
    }
    for policy in &told.policies {
        let (colour, word) =
            if policy.matches { (Colour::Green, "matches") } else { (Colour::Dim, "does not match") };
        let name = named(&policy.name, &policy.id);
        writeln!(out, "policy {name} {}: {}", policy.action, style.paint(colour, word))?;
        policy.why_not.iter().try_for_each(|why| writeln!(out, "  {why}"))?;
    }
    if let Some(PoolNotFollowed { by, pool, name, why }) = &told.pool_not_followed {
        match pool {
            Some(pool) => writeln!(out, "{by} names pool {}, which is not used: {why}", named(name, pool))?,
            None => writeln!(out, "{by} names no pool: {why}")?,
        }
    }
    for pool in &told.pools {
        write!(out, "pool {} {}", named(&pool.name, &pool.id), pool.algorithm)?;
        if let Some(weight) = pool.weight {
            write!(out, ", share {weight}")?;
        }
        match pool.persistent {
            Some(member) => {
                writeln!(out, ", session persistence names member {}", member_named(pool, member))?
            }
            None => out.push('\n'),
        }
        if let Some(told) = &pool.not_followed {
            draw_not_followed(out, pool, told)?;
        }
        pool.members.iter().try_for_each(|member| draw_member(out, member, style))?;
    }
    Ok(())
}

/// What session persistence says, and where the request goes instead.
fn draw_not_followed(out: &mut String, pool: &PoolVerdict, told: &NotFollowed) -> std::fmt::Result {
    write!(out, "  session persistence: {} names ", told.by)?;
    match told.member {
        Some(member) => {
            write!(out, "member {}, which is not used: {}", member_named(pool, member), told.why)?
        }
        None => write!(out, "nobody: {}", told.why)?,
    }
    let others: Vec<_> = pool.members.iter().filter(|member| member.may_get_it).collect();
    match &*others {
        [] => writeln!(out, "; nor may another be"),
        [one] => writeln!(out, "; it goes to member {}", named(&one.name, &one.id)),
        _ => writeln!(out, "; it is balanced among {} members", others.len()),
    }
}

fn member_named(pool: &PoolVerdict, id: MemberId) -> String {
    let member = pool.members.iter().find(|member| member.id == id);
    member.map_or_else(|| id.to_string(), |member| named(&member.name, &id))
}

fn draw_count(out: &mut String, count: &LimitCount) -> std::fmt::Result {
    let LimitCount { metric, client, threshold, interval_s, .. } = count;
    match count.count {
        Some(counted) => writeln!(out, "  {client}: {metric} {counted} of {threshold} in {interval_s} s"),
        None => writeln!(out, "  {client}: {metric} does not count this one"),
    }
}

fn draw_member(out: &mut String, member: &MemberVerdict, style: Style) -> std::fmt::Result {
    let (colour, word) = match &member.why_not {
        None => (Colour::Green, "may get it"),
        Some(why) => (Colour::Yellow, why.as_str()),
    };
    let name = named(&member.name, &member.id);
    write!(out, "  member {name} {} weight {}", member.address, member.weight)?;
    writeln!(out, ", {} connections: {}", member.connections, style.paint(colour, word))?;
    let special = serde_json::to_value(&member.amphora).unwrap_or(Value::Null);
    tree::told(out, "    ", &special, style)
}

/// The name, if there is one.
fn named(name: &str, id: &impl std::fmt::Display) -> String {
    if name.is_empty() { id.to_string() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn asked() -> Asked {
        Asked {
            listener: Named::Name("web".into()),
            request: None,
            host: None,
            headers: Vec::new(),
            cookies: Vec::new(),
            client: None,
            certificate: None,
        }
    }

    #[test]
    fn a_question_is_what_was_said() {
        let id: ListenerId = "10000000-0000-4000-8000-000000000001".parse().unwrap();
        let full = Asked {
            request: Some("POST /a?b=c".into()),
            host: Some("www.example.org".into()),
            headers: vec!["X-Canary: yes".into()],
            cookies: vec!["a=1".into(), "b=2".into()],
            client: "192.0.2.9".parse().ok(),
            certificate: Some("PEM".into()),
            ..asked()
        };
        assert_eq!(
            serde_json::to_value(full.question(id).unwrap()).unwrap(),
            json!({ "listener": id, "method": "POST", "target": "/a?b=c", "client": "192.0.2.9", "certificate": "PEM", "headers": [
                ["Host", "www.example.org"], ["X-Canary", "yes"], ["Cookie", "a=1; b=2"],
            ] })
        );
        assert_eq!(serde_json::to_value(asked().question(id).unwrap()).unwrap(), json!({ "listener": id }));
        for odd in [
            Asked { request: Some("/path".into()), ..asked() },
            Asked { headers: vec!["X-Canary".into()], ..asked() },
        ] {
            assert!(matches!(odd.question(id), Err(Error::Usage(_))));
        }
    }

    #[test]
    fn of_a_file_the_certificates_are_sent_and_nothing_else() {
        let one = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n";
        let text = format!("subject=CN = a\n{key}{one}Bag Attributes\n{one}");
        assert_eq!(certificates_in(&text), Some(format!("{one}{one}")));
        for none in [key, "", "-----BEGIN CERTIFICATE-----\nMIIB"] {
            assert_eq!(certificates_in(none), None);
        }
    }

    #[test]
    fn an_amphora_that_is_master_of_nothing_says_so() {
        let with = |states: &[&str]| -> VrrpStatus {
            let instances: Vec<_> = states
                .iter()
                .map(|state| {
                    json!({"name": "lb", "state": state, "since_ms": 1, "reason": "", "interface": "eth1", "vrid": 1, "version": 3,
                    "priority": 100, "interval_ms": 1000, "master_interval_ms": 1000, "fit": true, "handed_over": false,
                    "addresses": [], "peer": null, "error": null, "counters": {"sent": 0, "received": 0, "priority_zero_sent": 0,
                    "priority_zero_received": 0, "became_master": 0, "released_master": 0, "refused": {}}})
                })
                .collect();
            serde_json::from_value(
                json!({"version": "0", "pid": 1, "uptime_ms": 1, "started": true, "data_plane": null,
                "instances": instances}),
            )
            .unwrap()
        };
        assert_eq!(not_master(&with(&["BACKUP", "INIT"])), Some("BACKUP"));
        assert_eq!(not_master(&with(&["INIT"])), Some("INIT"));
        assert_eq!(not_master(&with(&["BACKUP", "MASTER"])), None);
        assert_eq!(not_master(&with(&[])), None);
    }

    #[test]
    fn what_is_told_is_drawn() {
        let id = |n: u32| format!("10000000-0000-4000-8000-{n:012}");
        let told = json!({
            "listener": id(1), "outcome": "goes to a member",
            "rate_limits": [{ "id": id(2), "name": "slow", "action": "DENY", "rules": ["REQUESTS 5 in 30 s"],
                "verdict": "answered with 429: one more would pass after 12.0 s", "counts": [
                    { "metric": "REQUESTS", "client": "192.0.2.1", "count": 5, "threshold": 5, "interval_s": 30, "broken": true },
                ] },
                { "id": id(8), "name": "", "action": "QUEUE", "rules": ["REQUESTS_PER_URL 1 to /a in 1 s"], "counts": [
                    { "metric": "REQUESTS_PER_URL", "client": "2001:db8::/64", "threshold": 1, "interval_s": 1, "broken": false },
                ] }],
            "policies": [{ "id": id(3), "name": "", "position": 1, "action": "REJECT", "matches": false,
                "why_not": ["rule R does not hold"] }],
            "pool_not_followed": { "by": "cookie v", "pool": id(7), "name": "canary", "why": "it is disabled" },
            "pools": [{ "id": id(4), "name": "web", "algorithm": "ROUND_ROBIN", "weight": 3,
                "not_followed": { "by": "cookie SRV", "member": id(6), "why": "its health checks say DOWN" }, "members": [
                { "id": id(5), "name": "a", "address": "10.0.0.1:80", "weight": 1, "connections": 2, "may_get_it": true },
                { "id": id(6), "name": "b", "address": "10.0.0.2:80", "weight": 1, "connections": 0, "may_get_it": false,
                  "why_not": "its health checks say DOWN", "amphora": { "check": "L4CON in 0 ms" } },
            ] }],
        });
        let mut text = String::new();
        draw(&mut text, &serde_json::from_value(told).unwrap(), Style::PLAIN).unwrap();
        assert_eq!(
            text,
            format!(
                "goes to a member\n\
                 rate limit slow: DENY beyond REQUESTS 5 in 30 s: answered with 429: one more would pass after 12.0 s\n  \
                   192.0.2.1: REQUESTS 5 of 5 in 30 s\n\
                 rate limit {}: QUEUE beyond REQUESTS_PER_URL 1 to /a in 1 s\n  \
                   2001:db8::/64: REQUESTS_PER_URL does not count this one\n\
                 policy {} REJECT: does not match\n  \
                   rule R does not hold\n\
                 cookie v names pool canary, which is not used: it is disabled\n\
                 pool web ROUND_ROBIN, share 3\n  \
                   session persistence: cookie SRV names member b, which is not used: its health checks say DOWN; it goes to member a\n  \
                   member a 10.0.0.1:80 weight 1, 2 connections: may get it\n  \
                   member b 10.0.0.2:80 weight 1, 0 connections: its health checks say DOWN\n    \
                     last check: L4CON in 0 ms\n",
                id(8),
                id(3)
            )
        );
    }
}
