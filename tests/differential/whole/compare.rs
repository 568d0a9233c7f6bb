//! What of two outcomes has to be the same.

use std::{collections::HashMap, net::IpAddr};

use amphora_model::{LbAlgorithm, Listener, LoadBalancer, Pool, SessionPersistence};

use super::{
    balanced::{is_by_client, leads_to},
    client::{End, Outcome},
    generate::{Visit, is_old, is_sick, reply_of, speaks_http},
    member,
    wire::Message,
};

/// Names of members that mean the same on both sides.
///
/// Which member begins is left to each: the names of a pool's are numbered as they come. Where that is not enough, since turns of
/// unequal weights and hashes are each one's own, they are numbered for each client, if clients stay with a member, and else all have one name.
pub(super) struct Names<'a> {
    lb: &'a LoadBalancer,
    given: HashMap<String, String>,
    counts: HashMap<String, usize>,
    /// Who has come, and to which listener.
    client: Option<(usize, IpAddr)>,
}

impl<'a> Names<'a> {
    pub(super) fn new(lb: &'a LoadBalancer) -> Self {
        Self { lb, given: HashMap::new(), counts: HashMap::new(), client: None }
    }

    /// The same text with members' names and ids in place of what they are to be called.
    fn rename(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (at, pool) in self.lb.pools.iter().enumerate() {
            for member in &pool.members {
                let (name, id) = (member::name(member.address), member.id.to_string());
                if !text.contains(&name) && !text.contains(&id) {
                    continue;
                }
                let (group, is_of_client) = match self.client {
                    _ if takes_turns(self.lb, pool) => (format!("pool {at}"), false),
                    Some((listener, client)) if is_by_client(pool) => {
                        (format!("pool {at} for {client} at {listener}"), true)
                    }
                    _ => (String::new(), false),
                };
                if is_of_client || group.is_empty() {
                    // Of whom a client's cookie speaks is as much chance as who it is given.
                    text = text.replace(&id, &format!("<pool {at}>"));
                }
                if group.is_empty() {
                    text = text.replace(&name, &format!("<pool {at}>"));
                }
                if group.is_empty() || (is_of_client && !text.contains(&name)) {
                    continue;
                }
                let counts = &mut self.counts;
                let new = self.given.entry(format!("{group} {name}")).or_insert_with(|| {
                    let count = counts.entry(group.clone()).or_default();
                    *count += 1;
                    format!("<{group} member {count}>")
                });
                text = text.replace(&name, new).replace(&id, new);
            }
        }
        text
    }

    fn message(&mut self, message: &Message, reply: &str, is_old: bool) -> String {
        // HAProxy hands the version of a member on (RFC 9112 section 2.3 has a proxy say its own), and what goes with it.
        let mut text = format!("{}\n", message.line.replacen("HTTP/1.0 ", "HTTP/1.1 ", 1));
        let is_of_member = message.field("x-member").is_some();
        if !is_of_member {
            text = format!("{}\n", message.status());
        }
        for (name, value) in message.sorted() {
            // The pages that each has for its own answers.
            let is_of_page =
                matches!(name.as_str(), "cache-control" | "content-type" | "content-length" | "allow");
            // HAProxy chunks what it sends to a client of HTTP/1.0, and says so, which that need not understand.
            let is_chunked = is_old && name == "transfer-encoding";
            // And keeps the connection behind them; without chunks its end is that of the body.
            let is_kept = (reply == "old" || (is_old && reply == "chunked")) && name == "connection";
            // RFC 9112 section 9.6 has `close` said, and section 9.3 `keep-alive` to HTTP/1.0; HAProxy leaves both out beside `upgrade`.
            let value = match value.strip_prefix("upgrade, ") {
                Some("close" | "keep-alive") if name == "connection" => "upgrade".to_owned(),
                _ => value,
            };
            if (is_of_member || !is_of_page) && !is_chunked && !is_kept && !is_of_connection(&name) {
                text.push_str(&format!("{name}: {value}\n"));
            }
        }
        if is_of_member {
            let body = super::generate::latin1(&message.body);
            let start: String = body.chars().take(100).collect();
            text.push_str(&format!("\n{start} ({} bytes)\n{}", body.len(), message.trailers));
            if !message.is_complete {
                text.push_str("(cut)\n");
            }
        }
        self.rename(&text)
    }

    /// Whether the pool of a member of this name has HAProxy look at cookies.
    fn looks_for_cookies(&self, member: &str) -> bool {
        self.lb.pools.iter().any(|pool| {
            pool.session_persistence == Some(SessionPersistence::HttpCookie)
                && pool.members.iter().any(|other| member::name(other.address) == member)
        })
    }

    /// An outcome, line by line.
    pub(super) fn outcome(&mut self, visit: &Visit, outcome: &Outcome) -> String {
        let mut text = String::new();
        self.client = Some((visit.listener, visit.from));
        let is_http = speaks_http(self.lb, &self.lb.listeners[visit.listener]);
        if let Some(tls) = &outcome.tls {
            text.push_str(&format!("shown {tls}\n"));
        }
        for (request, exchange) in visit.requests.iter().zip(&outcome.exchanges) {
            let (reply, is_old) = (reply_of(request), is_old(request));
            let reply = reply.as_str();
            let is_unheard = exchange.responses.is_empty() && exchange.asked.is_empty() && !visit.in_streams;
            if is_unheard && is_http && matches!(outcome.end, End::Closed | End::Reset) {
                // The connection was closed already, which not every response has told.
                text.push_str("Closed\n");
                return text;
            }
            if matches!(reply, "silent" | "garbage") && exchange.responses.iter().all(|r| r.status() == 502) {
                // HAProxy closes without a word when it is not the first request of the connection, and resets a stream of HTTP/2; here
                // another member is asked, if the request may be repeated.
                text.push_str("not answered\n");
                return text;
            }
            if reply == "until-close" {
                // Whether chunks or the end of the connection tell a client of HTTP/1.1 of the end is each one's own.
                let told: Vec<u16> = exchange.responses.iter().map(Message::status).collect();
                text.push_str(&format!("{told:?} until the end\n"));
                return text;
            }
            let has_host = super::generate::latin1(request).to_ascii_lowercase().contains("\r\nhost:");
            for seen in &exchange.asked {
                text.push_str(&format!(
                    "-> {} {:?} {:?}\n{}\n",
                    seen.member, seen.proxy, seen.tls, seen.line
                ));
                for (name, value) in &seen.fields {
                    // HTTP/2 names somebody always, here the member, and with HAProxy nobody.
                    if name == "host" && !has_host && seen.line.ends_with("HTTP/2") {
                        continue;
                    }
                    let value = match name.as_str() {
                        "connection" => value.replace("te, ", "").replace("te", ""),
                        // HAProxy names the host of an absolute target, whose case may be another.
                        "host" if seen.line.ends_with("HTTP/2") => value.to_ascii_lowercase(),
                        // Where it looks for its own cookie, HAProxy takes blanks around the `=` of all others away.
                        "cookie" if self.looks_for_cookies(&seen.member) => without_blanks(value),
                        _ => value.clone(),
                    };
                    // Of the cookies of a stream, empty ones are not joined with the rest; HAProxy leaves white space behind them.
                    let value = match name.as_str() {
                        "cookie" if visit.in_streams => without_empty(&value),
                        _ => value,
                    };
                    let is_left_out =
                        value.is_empty() && (name == "connection" || (name == "cookie" && visit.in_streams));
                    if is_of_connection(name) || is_left_out {
                        continue;
                    }
                    text.push_str(&format!("{name}: {value}\n"));
                }
                text.push_str(&format!("\n{}\n", super::generate::latin1(&seen.body)));
                text = self.rename(&text);
            }
            for response in &exchange.responses {
                // HAProxy passes them on to clients of HTTP/1.0, which RFC 9110 section 15.2 forbids.
                if is_old && response.status() < 200 {
                    continue;
                }
                text.push_str(&format!("<- {}", self.message(response, reply, is_old)));
            }
        }
        let is_unserved = !is_http && outcome.exchanges.iter().all(|exchange| exchange.responses.is_empty());
        let end = match outcome.end {
            // The kernel resets a connection that is closed at once when the first bytes are there already, which is chance.
            End::Reset if is_unserved => End::Closed,
            end => end,
        };
        text.push_str(&format!("{end:?}\n"));
        text
    }

    /// The lines of a log, sorted.
    pub(super) fn lines(&mut self, lines: &[String]) -> String {
        self.client = None;
        let mut lines: Vec<String> = lines.iter().map(|line| self.rename(&comparable(line))).collect();
        lines.sort();
        lines.join("\n")
    }
}

/// Fields that HAProxy passes on, and RFC 9110 section 7.6.1 has an intermediary leave out. (`Connection: te`, which goes with `TE`, HAProxy
/// leaves out, and section 10.1.4 wants.)
fn is_of_connection(name: &str) -> bool {
    matches!(name, "keep-alive" | "proxy-connection")
}

/// `Cookie` without blanks around any `=`.
fn without_blanks(cookies: &str) -> String {
    let parts: Vec<&str> = cookies.split('=').collect();
    let last = parts.len() - 1;
    let parts = parts.iter().enumerate().map(|(at, part)| {
        let part = if at == 0 { part } else { part.trim_start_matches([' ', '\t']) };
        if at == last { part } else { part.trim_end_matches([' ', '\t']) }
    });
    parts.collect::<Vec<_>>().join("=")
}

/// `Cookie` without pieces that have nothing in them.
fn without_empty(cookies: &str) -> String {
    let cookies = cookies.split(';').map(|piece| piece.trim_matches([' ', '\t']));
    cookies.filter(|cookie| !cookie.is_empty()).collect::<Vec<_>>().join("; ")
}

/// What a line has to say in any case.
fn comparable(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    if line.contains("] ") && words.get(1).is_some_and(|word| word.starts_with('[')) {
        // A handshake: the client's port, the time, and which of the listener's addresses it was.
        let address = words[0].rsplit_once(':').map_or(words[0], |(address, _)| address);
        let listener = words[2].split('/').next().unwrap_or_default();
        return format!("{address} {listener} {}", words[3..].join(" "));
    }
    // project, load balancer, listener, client, request, status, bytes to it and from it
    let is_served = !line.contains(" <NOSRV> ") && !line.ends_with(" SC--");
    if !is_served && (line.contains(" - - ") || line.contains(" HTTP/2.0\" ")) {
        // A connection or a stream that nobody serves: what of it has come before is chance.
        let mut words = words;
        let sent = if line.contains(" HTTP/2.0\" ") { 9 } else { 7 };
        if words.len() > sent {
            words[sent] = "N";
        }
        return words.join(" ");
    }
    line.to_owned()
}

/// Whether the members of a pool are asked in an order that is the same for all who begin with the same.
fn takes_turns(lb: &LoadBalancer, pool: &Pool) -> bool {
    // Here all listeners of a pool take turns together, in HAProxy each has its own.
    let users = |listener: &&Listener| listener.admin_state_up && leads_to(listener, pool);
    let users = lb.listeners.iter().filter(users).count();

    let weights: Vec<u16> = pool
        .members
        .iter()
        .filter(|member| member.admin_state_up && member.weight > 0 && !is_sick(pool, member))
        .map(|member| member.weight)
        .collect();
    pool.members.len() <= 1
        || weights.len() <= 1
        || (users == 1
            // Whom to ask when members are not trusted is each one's own as well.
            && pool.tls.as_ref().is_none_or(|tls| tls.authorities.is_none())
            // Of members without a session LEAST_CONNECTIONS does not look at weights.
            && (pool.lb_algorithm == LbAlgorithm::LeastConnections
                || weights.iter().all(|weight| *weight == weights[0]))
            && !matches!(pool.lb_algorithm, LbAlgorithm::SourceIp | LbAlgorithm::SourceIpPort))
}
