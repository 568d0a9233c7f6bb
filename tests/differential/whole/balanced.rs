//! Load balancers of one pool, of which more is compared than visits tell: shares of turns, cookies of the application, connections beyond
//! the limit, members that fall and come back.

use std::time::Duration;

use amphora_model::{
    HealthCheck, L7Action, LbAlgorithm, Listener, ListenerProtocol, LoadBalancer, Pool, PoolProtocol,
    SessionPersistence,
    arbitrary::{Generator, Shape},
};

use super::{
    client::Outcome,
    generate::{Case, Manner, Visit, address, ground},
    member,
};

/// Seeds from here on are of these.
pub(super) const FIRST: u64 = 1 << 40;
/// The first of the ports where members are asked whether they are well.
const DOORS: u16 = 10_020;

/// What is done besides visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// Visits are so many whole cycles of turns.
    Shares(usize),
    /// More clients come than the listener may have.
    Limit,
    /// The member of a client falls, and comes back.
    Fall,
}

impl Case {
    /// One of these.
    pub(super) fn balanced(seed: u64) -> Self {
        let mut g = Generator::new(seed);
        let mut lb = plain(&mut g);
        let (kind, is_http) = (seed % 4, lb.listeners[0].protocol.is_http());
        let pool = &mut lb.pools[0];
        pool.lb_algorithm = g.pick(&[LbAlgorithm::RoundRobin, LbAlgorithm::LeastConnections]);
        let to = g.pick(&lb.vips).address;
        let visit = |number: usize, requests| Visit {
            listener: 0,
            from: address(to.is_ipv4(), 7, 1 + number % 4),
            to,
            tls: None,
            in_streams: false,
            requests,
            manner: Manner::InTurn,
        };
        let mut visits: Vec<Visit> = (0..4).map(|number| visit(number, vec![request("")])).collect();
        let trial = match kind {
            0 => {
                pool.lb_algorithm = LbAlgorithm::RoundRobin;
                let weights = [1, 1, 2, 3, 5];
                pool.members.iter_mut().for_each(|member| member.weight = g.pick(&weights));
                let (cycle, cycles) = (cycle(pool), g.within(1..=2));
                visits = (0..cycle * cycles).map(|number| visit(number, vec![request("")])).collect();
                Some(Trial::Shares(cycles))
            }
            1 => {
                pool.session_persistence = Some(if is_http && !g.one_in(4) {
                    SessionPersistence::AppCookie { cookie_name: "Sid".to_owned() }
                } else {
                    SessionPersistence::SourceIp
                });
                let one = |g: &mut Generator| request(&cookies(g));
                visits = (0..g.within(12..=20))
                    .map(|_| visit(g.within(0..=3), (0..g.within(1..=3)).map(|_| one(&mut g)).collect()))
                    .collect();
                None
            }
            2 => {
                lb.listeners[0].connection_limit = Some(g.within(1..=3) as u32);
                Some(Trial::Limit)
            }
            _ => {
                let all = [
                    SessionPersistence::SourceIp,
                    SessionPersistence::AppCookie { cookie_name: "JSESSIONID".to_owned() },
                    SessionPersistence::HttpCookie,
                ];
                pool.session_persistence = Some(if is_http { g.pick(&all) } else { all[0].clone() });
                visits.clear();
                Some(Trial::Fall)
            }
        };
        if trial != Some(Trial::Fall) {
            lb.pools[0].health_monitor = None;
        }
        Self { seed, lb, is_logged: false, is_pair: g.one_in(4), visits, trial }
    }
}

/// A listener with a pool of members that are all alike, and have a monitor that goes by their doors.
fn plain(g: &mut Generator) -> LoadBalancer {
    let shape = Shape { listeners: 1..=1, pools: 1..=1, members: 2..=4, policies: 0..=0, ..Shape::default() };
    let mut lb = loop {
        let lb = g.load_balancer(&shape);
        let is_served =
            |listener: &Listener| matches!(listener.protocol, ListenerProtocol::Http | ListenerProtocol::Tcp);
        if is_served(&lb.listeners[0]) && lb.pools[0].health_monitor.is_some() {
            break lb;
        }
    };
    ground(g, &mut lb);
    let (listener, pool) = (&mut lb.listeners[0], &mut lb.pools[0]);
    listener.admin_state_up = true;
    listener.default_pool = Some(pool.id);
    listener.connection_limit = None;
    pool.admin_state_up = true;
    (pool.tls, pool.session_persistence) = (None, None);
    pool.protocol = match listener.protocol {
        ListenerProtocol::Http => PoolProtocol::Http,
        _ => PoolProtocol::Tcp,
    };
    for (number, member) in pool.members.iter_mut().enumerate() {
        (member.admin_state_up, member.backup, member.weight) = (true, false, 1);
        member.monitor_port = Some(DOORS + number as u16);
    }
    let monitor = pool.health_monitor.as_mut();
    monitor.into_iter().for_each(|monitor| {
        monitor.admin_state_up = true;
        monitor.check = HealthCheck::Tcp;
        (monitor.delay, monitor.timeout) = (Duration::from_secs(1), Duration::from_secs(1));
        (monitor.max_retries, monitor.max_retries_down) = (1, 1);
    });
    lb
}

/// How many turns there are until all begins anew.
fn cycle(pool: &Pool) -> usize {
    let gcd = |a: usize, b: usize| {
        let (mut a, mut b) = (a, b);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let weights = || pool.members.iter().map(|member| usize::from(member.weight));
    weights().sum::<usize>() / weights().fold(0, gcd)
}

/// What each member has been given, unless it is its share, rounded.
pub(super) fn shares(case: &Case, outcomes: &[Outcome], cycles: usize) -> String {
    let pool = &case.lb.pools[0];
    let all: usize = pool.members.iter().map(|member| usize::from(member.weight)).sum();
    let asked: Vec<&str> = outcomes
        .iter()
        .flat_map(|outcome| outcome.exchanges.iter().flat_map(|exchange| &exchange.asked))
        .map(|seen| seen.member.as_str())
        .collect();
    let told = pool.members.iter().map(|member| {
        let name = member::name(member.address);
        let share = usize::from(member.weight) * cycle(pool) * cycles / all;
        let has = asked.iter().filter(|asked| **asked == name).count();
        match has.abs_diff(share) {
            0 | 1 => format!("{name}: its share\n"),
            _ => format!("{name}: {has} instead of {share} of {}\n", asked.len()),
        }
    });
    told.collect()
}

/// Whether a pool's clients stay with one member each, whoever that is.
pub(super) fn is_by_client(pool: &Pool) -> bool {
    let by_table = pool.session_persistence == Some(SessionPersistence::SourceIp);
    let by_hash = pool.session_persistence.is_none() && pool.lb_algorithm == LbAlgorithm::SourceIp;
    // Whom to ask when members are not trusted is each one's own.
    (by_table || by_hash) && pool.tls.as_ref().is_none_or(|tls| tls.authorities.is_none())
}

/// Whether a policy of the listener leads there.
pub(super) fn leads_to(listener: &Listener, pool: &Pool) -> bool {
    let is_for = |action: &L7Action| matches!(action, L7Action::RedirectToPool(id) if *id == pool.id);
    listener.default_pool == Some(pool.id) || listener.l7policies.iter().any(|policy| is_for(&policy.action))
}

/// A request with these fields.
pub(super) fn request(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nX-Reply: length\r\nHost: www.example.com\r\n{fields}\r\n").into_bytes()
}

/// What a client has of cookies, and what the member sets.
fn cookies(g: &mut Generator) -> String {
    let long = "0123456789".repeat(7);
    let values = ["v1", "v2", "v3", "\"v1\"", "", "v1 v2", "v1,v2", "V1", &long[..64], &long, &long[..63]];
    let (value, other) = (g.pick(&values), g.pick(&values));
    let set = match g.within(0..=11) {
        0..=2 => format!("X-Set: Sid={value}; Path=/; HttpOnly\r\n"),
        3 => format!("X-Set: Sid={value}\r\n"),
        4 => format!("X-Set: other={value}; Path=/\r\n"),
        5 => format!("X-Set: sid={value}\r\n"),
        6 => format!("X-Set: Sid={value}\r\nX-Set: Sid={other}; Path=/\r\n"),
        7 => format!("X-Set: a=b; Sid={value}\r\n"),
        8 => format!("X-Set: Sid={value};Max-Age=0\r\n"),
        _ => String::new(),
    };
    let (value, other) = (g.pick(&values), g.pick(&values));
    let has = match g.within(0..=13) {
        0..=4 => format!("Cookie: Sid={value}\r\n"),
        5 => format!("Cookie: a=b; Sid={value}; c=d\r\n"),
        6 => format!("Cookie: Sid={value}; Sid={other}\r\n"),
        7 => format!("Cookie: Sid={value}\r\nCookie: Sid={other}\r\n"),
        8 => format!("Cookie: sid={value}\r\n"),
        9 => format!("Cookie: Sid ={value};\r\n"),
        10 => format!("Cookie: a;Sid={value}\r\n"),
        11 => format!("Cookie: Sidx={value}; xSid={other}\r\n"),
        _ => String::new(),
    };
    set + &has
}
