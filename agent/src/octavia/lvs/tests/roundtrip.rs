//! Load balancers to texts by the real Octavia, and back.

use std::time::Duration;

use amphora_model::{
    HealthCheck, HealthMonitor, HealthMonitorId, HttpCheck, HttpMethod, HttpVersion, Listener, ListenerId,
    LoadBalancer, MemberId, Pool, PoolId, PoolProtocol,
    arbitrary::{Generator, Shape},
};
use serde::Deserialize;
use serde_json::Value;

use super::super::{Translated, translate};
use crate::{
    octavia::path::sent,
    testing::{hostile, octavia},
};

const SCRIPT: &str = include_str!("../../../../../tests/octavia/render_lvs.py");

#[derive(Deserialize)]
struct Rendered {
    id: ListenerId,
    text: String,
}

/// What is left of a listener when it has been rendered.
fn expected(lb: &LoadBalancer, listener: &Listener) -> Translated {
    let enabled = listener.admin_state_up;
    let pool = lb.pools.iter().find(|pool| Some(pool.id) == listener.default_pool);
    let mut text = Translated {
        load_balancer: lb.id,
        listener: listener.id,
        enabled,
        served: None,
        disabled: Vec::new(),
    };
    let Some(pool) = pool.filter(|_| lb.admin_state_up && enabled) else { return text };
    let families = |v4: bool| lb.vips.iter().any(|vip| vip.address.is_ipv4() == v4);
    let mut members: Vec<_> =
        pool.members.iter().filter(|member| families(member.address.is_ipv4())).collect();
    members.sort_by_key(|member| member.address.is_ipv6());
    if pool.admin_state_up {
        let disabled = members.iter().filter(|member| !member.admin_state_up);
        text.disabled = disabled.map(|member| (pool.id, member.id)).collect::<Vec<(PoolId, MemberId)>>();
    }
    let mut new = Listener {
        name: String::new(),
        connection_limit: None,
        allowed_cidrs: Vec::new(),
        timeouts: amphora_model::ListenerTimeouts::default(),
        default_pool: pool.admin_state_up.then_some(pool.id),
        ..listener.clone()
    };
    let members: Vec<_> = members.into_iter().filter(|member| member.admin_state_up).cloned().collect();
    if members.is_empty() || !pool.admin_state_up {
        new.member_connection_limit = None;
    }
    let mut vips = lb.vips.clone();
    vips.sort_by_key(|vip| vip.address.is_ipv6());
    let pool = Pool { name: String::new(), members, ..pool.clone() };
    text.served = Some(LoadBalancer {
        id: lb.id,
        name: String::new(),
        admin_state_up: true,
        vips,
        listeners: vec![new],
        pools: if pool.admin_state_up { vec![rendered(pool)] } else { vec![] },
    });
    text
}

fn rendered(mut pool: Pool) -> Pool {
    let checks = |check: &HealthCheck| match check {
        HealthCheck::Ping => false,
        HealthCheck::Http(http) => http.method == HttpMethod::Get,
        _ => true,
    };
    pool.health_monitor = pool
        .health_monitor
        .filter(|monitor| monitor.admin_state_up && checks(&monitor.check) && !pool.members.is_empty());
    if let Some(monitor) = &mut pool.health_monitor {
        (monitor.name, monitor.max_retries) = (String::new(), 1);
        if let HealthCheck::Http(http) = &mut monitor.check {
            (http.version, http.domain_name) = (HttpVersion::Http10, None);
            http.url_path = sent(&http.url_path).0;
            http.expected_codes.sort_unstable();
        }
    }
    for member in &mut pool.members {
        (member.name, member.backup) = (String::new(), false);
        if pool.health_monitor.is_none() {
            (member.monitor_address, member.monitor_port) = (None, None);
        }
        member.monitor_address = member.monitor_address.filter(|address| *address != member.address);
        member.monitor_port = member.monitor_port.filter(|port| *port != member.port);
    }
    pool
}

fn cases(count: usize) -> Vec<LoadBalancer> {
    let shape = Shape { listeners: 3..=6, pools: 3..=6, udp: true, policies: 0..=0, ..Shape::default() };
    let case = |seed| {
        let mut g = Generator::new(seed);
        let mut lb = g.load_balancer(&shape);
        lb.admin_state_up |= g.one_in(2);
        lb.pools.retain(|pool| pool.protocol.is_forwarded());
        lb.listeners.retain(|listener| listener.protocol.is_forwarded());
        // Few are given one by chance.
        for listener in &mut lb.listeners {
            let pools: Vec<_> =
                lb.pools.iter().filter(|pool| listener.protocol.carries(pool.protocol)).collect();
            if !pools.is_empty() && !g.one_in(8) {
                listener.default_pool = Some(g.pick(&pools).id);
            }
        }
        lb
    };
    (0..).map(case).filter(|lb| !lb.listeners.is_empty()).take(count).collect()
}

#[test]
fn what_octavia_renders_comes_back() {
    let cases = cases(900);
    let documents: Vec<Value> = cases.iter().map(LoadBalancer::to_json).collect();
    let Some(rendered) = octavia::ask::<Vec<Vec<Rendered>>>(SCRIPT, &documents) else { return };
    let (mut served, mut sctp, mut monitored, mut persistent) = (0, 0, 0, 0);
    for (lb, texts) in cases.iter().zip(&rendered) {
        assert_eq!(lb.listeners.len(), texts.len());
        for (listener, Rendered { id, text }) in lb.listeners.iter().zip(texts) {
            assert_eq!(listener.id, *id);
            let translated = translate(text.as_bytes()).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
            assert_eq!(translated, expected(lb, listener), "\n{text}");
            let pool = translated.served.as_ref().and_then(|served| served.pools.first());
            served += usize::from(translated.served.is_some());
            sctp += usize::from(pool.is_some_and(|pool| pool.protocol == PoolProtocol::Sctp));
            monitored += usize::from(pool.is_some_and(|pool| pool.health_monitor.is_some()));
            persistent += usize::from(pool.is_some_and(|pool| pool.session_persistence.is_some()));
        }
    }
    assert!(
        served > 100 && sctp > 50 && monitored > 15 && persistent > 15,
        "{served} {sctp} {monitored} {persistent}"
    );
}

/// A path of a monitor is all that a tenant says in words here; what objects are called is in no text.
#[test]
fn no_string_of_a_tenants_becomes_a_statement() {
    let mut g = Generator::new(23);
    let injected = [
        "\n            status_code 200",
        "\n        }",
        "\n        }\n    }\n    real_server 192.0.2.8 80 {\n        weight 1",
        "\n            connect_port 1",
        "\n\n}\nvirtual_server_group x {\n    192.0.2.9 1\n}",
        "\n    # Configuration for Member 00000000-0000-4000-8000-000000000001",
        "\n        misc_path \"/bin/sh\"",
        " }",
        " #",
        "\n#",
        "\n!",
        "\n",
    ];
    let string = |g: &mut Generator| {
        let mut string: String = (0..g.within(1..=5)).map(|_| g.pick(&hostile::PIECES)).collect();
        if g.one_in(2) {
            string.push_str(g.pick(&injected));
        }
        string
    };
    let mut cases = cases(900);
    for lb in &mut cases {
        for pool in &mut lb.pools {
            let added = string(&mut g);
            let check = HealthCheck::Http(HttpCheck {
                method: HttpMethod::Get,
                // Octavia's API wants the slash.
                url_path: if g.one_in(4) { added } else { format!("/{added}") },
                version: HttpVersion::Http10,
                domain_name: None,
                expected_codes: vec![(200, 200)],
            });
            pool.health_monitor = Some(HealthMonitor {
                id: HealthMonitorId(pool.id.0),
                name: String::new(),
                admin_state_up: true,
                delay: Duration::from_secs(5),
                timeout: Duration::from_secs(3),
                max_retries: 1,
                max_retries_down: 3,
                check,
            });
        }
        for name in hostile::names(lb) {
            *name = string(&mut g);
        }
    }
    let documents: Vec<Value> = cases.iter().map(LoadBalancer::to_json).collect();
    let Some(rendered) = octavia::ask::<Vec<Vec<Rendered>>>(SCRIPT, &documents) else { return };
    let (mut same, mut spoiled, mut refused) = (0, 0, 0);
    for (lb, texts) in cases.iter().zip(&rendered) {
        for (listener, Rendered { text, .. }) in lb.listeners.iter().zip(texts) {
            match translate(text.as_bytes()) {
                Ok(translated) => {
                    assert_eq!(translated, expected(lb, listener), "\n{text}");
                    let asks = |pool: &Pool| {
                        let check = pool.health_monitor.as_ref().map(|monitor| &monitor.check);
                        matches!(check, Some(HealthCheck::Http(_)))
                    };
                    spoiled +=
                        usize::from(translated.served.is_some_and(|served| served.pools.iter().any(asks)));
                    same += 1;
                }
                Err(fault) => {
                    assert!(fault.line > 0, "{fault}");
                    refused += 1;
                }
            }
        }
    }
    println!("{same} came back, {spoiled} of them with a path; {refused} were refused");
    assert!(same > 300 && spoiled > 10 && refused > 50, "{same} {spoiled} {refused}");
}

/// Those of 12.0.0, 13.0.0 .. 19.0.0 are the same to the byte, so that what is shown with one of these holds for all.
const TEMPLATES: [(&str, &str); 3] = [
    ("base.j2", "af80a024db820e739a1024eca8c0dfeccb184ac900d64bb6d588a8179fd096df"),
    ("keepalivedlvs.cfg.j2", "604cc32e226bab59f5038c9c187c08cb401a3659899d13712a825998857bc297"),
    ("macros.j2", "10a832211e2b8d8ae6bdfea80b8ee87081fea739012bd0b3aaa52466d16669ec"),
];

const DIGESTS: &str = r#"
import hashlib, json, os, sys
from octavia.common.jinja import lvs
sys.stdin.read()
place = os.path.join(os.path.dirname(lvs.__file__), "templates")
names = sorted(name for name in os.listdir(place) if name.endswith(".j2"))
json.dump([(name, hashlib.sha256(open(os.path.join(place, name), "rb").read()).hexdigest()) for name in names], sys.stdout)
"#;

#[test]
fn the_templates_are_those_of_all_releases() {
    let Some(found) = octavia::ask::<Vec<(String, String)>>(DIGESTS, &()) else { return };
    let wanted: Vec<_> =
        TEMPLATES.map(|(name, digest)| (name.to_owned(), digest.to_owned())).into_iter().collect();
    assert_eq!(found, wanted, "another release's: what it can write is to be looked at");
}
