//! Octavia's status tree, `GET .../status`: operating statuses as its health manager derives them from a heartbeat
//! (`octavia.amphorae.drivers.health.heartbeat_udp`), and what its API does with an object that is disabled.

use std::collections::{BTreeMap, BTreeSet};

use amphora_ipc::proxy::{LeavingMember, MemberReport, Members, Remark};
use amphora_model::{
    CheckState, HealthCheck, Listener, ListenerId, LoadBalancer, Member, MemberId, Pool, PoolId,
};
use serde::{Serialize, Serializer};

use crate::heartbeat::{
    MemberStatus, Message,
    message::{ListenerStatus, PoolReport, PoolStatus},
};

/// Octavia's `operating_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperatingStatus {
    /// Serves.
    Online,
    /// Serves, with a part that is in error or full.
    Degraded,
    /// Does not serve.
    Error,
    /// A member that is up with weight 0.
    Draining,
    /// A member that nobody checks.
    NoMonitor,
    /// Disabled, or not in use.
    Offline,
}

/// The answer: `{"statuses": {"loadbalancer": ...}}`.
#[derive(Clone, Debug, Serialize)]
pub struct StatusTree {
    statuses: Statuses,
    /// Beside the tree, in which Octavia has no place for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remarks: Vec<Remark>,
    /// Beside it as well: members that the load balancer has no more, and that may still finish what they have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    leaving_members: Vec<LeavingMember>,
}

#[derive(Clone, Debug, Serialize)]
struct Statuses {
    loadbalancer: LoadBalancerStatus,
}

/// What every object of the tree has.
#[derive(Clone, Debug, Serialize)]
struct Head {
    #[serde(serialize_with = "as_text")]
    id: uuid::Uuid,
    name: String,
    /// Always `ACTIVE`: a change is live when it is answered, or it did not come about.
    provisioning_status: &'static str,
    operating_status: OperatingStatus,
}

#[derive(Clone, Debug, Serialize)]
struct LoadBalancerStatus {
    #[serde(flatten)]
    head: Head,
    listeners: Vec<ListenerNode>,
    /// Every pool, which Octavia's tree has not: a pool that no listener uses is nowhere else.
    pools: Vec<PoolNode>,
}

#[derive(Clone, Debug, Serialize)]
struct ListenerNode {
    #[serde(flatten)]
    head: Head,
    pools: Vec<PoolNode>,
}

#[derive(Clone, Debug, Serialize)]
struct PoolNode {
    #[serde(flatten)]
    head: Head,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_monitor: Option<MonitorNode>,
    members: Vec<MemberNode>,
}

#[derive(Clone, Debug, Serialize)]
struct MonitorNode {
    #[serde(flatten)]
    head: Head,
    r#type: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct MemberNode {
    #[serde(flatten)]
    head: Head,
    address: std::net::IpAddr,
    protocol_port: u16,
    /// What Octavia has no place for, where there is something to tell.
    #[serde(skip_serializing_if = "MemberReport::is_empty")]
    amphora: MemberReport,
}

fn as_text<S: Serializer>(id: &uuid::Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

fn head(id: uuid::Uuid, name: &str, operating_status: OperatingStatus) -> Head {
    Head { id, name: name.to_owned(), provisioning_status: "ACTIVE", operating_status }
}

/// The operating status of every object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatingStatuses {
    /// The load balancer's.
    pub load_balancer: OperatingStatus,
    /// The listeners'.
    pub listeners: BTreeMap<ListenerId, OperatingStatus>,
    /// The pools'.
    pub pools: BTreeMap<PoolId, OperatingStatus>,
    /// The members'.
    pub members: BTreeMap<(PoolId, MemberId), OperatingStatus>,
}

/// What Octavia's health manager makes of a heartbeat, for a load balancer that is `ACTIVE`.
pub fn operating_statuses(model: &LoadBalancer, heartbeat: &Message) -> OperatingStatuses {
    let mut all = OperatingStatuses {
        load_balancer: if model.admin_state_up { OperatingStatus::Online } else { OperatingStatus::Offline },
        listeners: BTreeMap::new(),
        pools: BTreeMap::new(),
        members: BTreeMap::new(),
    };
    for listener in &model.listeners {
        let status = match heartbeat.listeners.get(&listener.id).map(|report| report.status) {
            Some(ListenerStatus::Open) => OperatingStatus::Online,
            Some(ListenerStatus::Full) => {
                all.degrade();
                OperatingStatus::Degraded
            }
            None if listener.admin_state_up && model.admin_state_up => OperatingStatus::Error,
            None => OperatingStatus::Offline,
        };
        all.listeners.insert(listener.id, status);
    }
    // A pool that several listeners use comes once for each; the last counts, as in Octavia.
    let reports: BTreeMap<PoolId, &PoolReport> =
        heartbeat.pools.iter().map(|(key, report)| (key.pool, report)).collect();
    for pool in &model.pools {
        let report = reports.get(&pool.id).copied();
        let mut status = match report.map(|report| report.status) {
            Some(PoolStatus::Up) => OperatingStatus::Online,
            Some(PoolStatus::Down) => {
                all.load_balancer = OperatingStatus::Error;
                OperatingStatus::Error
            }
            None => OperatingStatus::Offline,
        };
        for member in &pool.members {
            let member_status = match report.and_then(|report| report.members.get(&member.id)) {
                Some(MemberStatus::Maint) => OperatingStatus::Offline,
                Some(MemberStatus::Drain) => OperatingStatus::Draining,
                Some(MemberStatus::Check(CheckState::NoCheck)) => OperatingStatus::NoMonitor,
                Some(MemberStatus::Check(check)) if check.is_up() => OperatingStatus::Online,
                Some(MemberStatus::Check(_)) => {
                    if status == OperatingStatus::Online {
                        status = OperatingStatus::Degraded;
                        all.degrade();
                    }
                    OperatingStatus::Error
                }
                // A pool that no listener uses is not watched; its members are what they were created as.
                None if report.is_none() && member.admin_state_up && !monitored(pool) => {
                    OperatingStatus::NoMonitor
                }
                None => OperatingStatus::Offline,
            };
            all.members.insert((pool.id, member.id), member_status);
        }
        all.pools.insert(pool.id, status);
    }
    all
}

impl OperatingStatuses {
    fn degrade(&mut self) {
        if self.load_balancer == OperatingStatus::Online {
            self.load_balancer = OperatingStatus::Degraded;
        }
    }
}

fn monitored(pool: &Pool) -> bool {
    pool.health_monitor.as_ref().is_some_and(|monitor| monitor.admin_state_up)
}

/// The whole tree, and what of the load balancer is honoured in part.
pub fn tree(model: &LoadBalancer, heartbeat: &Message, members: Members, remarks: Vec<Remark>) -> StatusTree {
    let all = operating_statuses(model, heartbeat);
    let pools = |wanted: &BTreeSet<PoolId>| {
        model
            .pools
            .iter()
            .filter(|pool| wanted.contains(&pool.id))
            .map(|pool| pool_node(pool, &all, &members))
            .collect()
    };
    let listeners = model.listeners.iter().map(|listener| ListenerNode {
        head: head(listener.id.0, &listener.name, all.listeners[&listener.id]),
        pools: pools(&pools_of(listener)),
    });
    StatusTree {
        statuses: Statuses {
            loadbalancer: LoadBalancerStatus {
                head: head(model.id.0, &model.name, all.load_balancer),
                listeners: listeners.collect(),
                pools: model.pools.iter().map(|pool| pool_node(pool, &all, &members)).collect(),
            },
        },
        remarks,
        leaving_members: members.leaving,
    }
}

/// The default pool and those of enabled policies, as Octavia's `listener.pools`.
fn pools_of(listener: &Listener) -> BTreeSet<PoolId> {
    let policies = listener.l7policies.iter().filter(|policy| policy.admin_state_up);
    listener.default_pools().chain(policies.flat_map(|policy| policy.action.pools())).collect()
}

fn pool_node(pool: &Pool, all: &OperatingStatuses, members: &Members) -> PoolNode {
    let special = members.pools.get(&pool.id);
    let member = |member: &Member| MemberNode {
        head: head(member.id.0, &member.name, all.members[&(pool.id, member.id)]),
        address: member.address,
        protocol_port: member.port,
        amphora: special.and_then(|of| of.get(&member.id)).cloned().unwrap_or_default(),
    };
    PoolNode {
        head: head(pool.id.0, &pool.name, all.pools[&pool.id]),
        health_monitor: pool.health_monitor.as_ref().map(|monitor| {
            let status =
                if monitor.admin_state_up { OperatingStatus::Online } else { OperatingStatus::Offline };
            MonitorNode {
                head: head(monitor.id.0, &monitor.name, status),
                r#type: monitor_type(&monitor.check),
            }
        }),
        members: pool.members.iter().map(member).collect(),
    }
}

fn monitor_type(check: &HealthCheck) -> &'static str {
    match check {
        HealthCheck::Http(_) => "HTTP",
        HealthCheck::Https(_) => "HTTPS",
        HealthCheck::Tcp => "TCP",
        HealthCheck::TlsHello => "TLS-HELLO",
        HealthCheck::Ping => "PING",
        HealthCheck::UdpConnect => "UDP-CONNECT",
        HealthCheck::Sctp => "SCTP",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use amphora_ipc::proxy::Stats;

    use super::*;
    use crate::{amphora::Unserved, fixture, heartbeat::report};

    /// The load balancer's, the listener's, the pool's and the two members' statuses.
    fn statuses(model: &LoadBalancer, stats: &Stats) -> [OperatingStatus; 5] {
        let all = operating_statuses(model, &report::statuses(stats, Some(model), &Unserved::default()));
        let (pool, listener) = (&model.pools[0], &model.listeners[0]);
        let member = |at: usize| all.members[&(pool.id, pool.members[at].id)];
        [all.load_balancer, all.listeners[&listener.id], all.pools[&pool.id], member(0), member(1)]
    }

    fn with(change: impl Fn(&mut LoadBalancer, &mut Stats)) -> [OperatingStatus; 5] {
        let (mut model, mut stats) = (fixture::load_balancer(), fixture::stats());
        change(&mut model, &mut stats);
        statuses(&model, &stats)
    }

    fn check(stats: &mut Stats, states: [CheckState; 2]) {
        let pool = stats.pools.values_mut().next().unwrap();
        pool.members.values_mut().zip(states).for_each(|(member, state)| member.check = state);
    }

    #[test]
    fn statuses_follow_the_health_manager() {
        use CheckState::{Down, Up};
        use OperatingStatus::{Degraded, Draining, Error, NoMonitor, Offline, Online};

        assert_eq!(with(|_, _| {}), [Online, Online, Online, NoMonitor, NoMonitor]);
        assert_eq!(with(|_, s| check(s, [Up, Up])), [Online; 5]);
        assert_eq!(with(|_, s| check(s, [Up, Down])), [Degraded, Online, Degraded, Online, Error]);
        assert_eq!(with(|_, s| check(s, [Down, Down])), [Error, Online, Error, Error, Error]);
        assert_eq!(
            with(|_, s| check(
                s,
                [CheckState::UpFailing { passed: 1, of: 2 }, CheckState::DownRising { passed: 1, of: 2 }]
            )),
            [Degraded, Online, Degraded, Online, Error]
        );
        assert_eq!(
            with(|_, s| {
                check(s, [Up, Up]);
                s.pools.values_mut().next().unwrap().members.values_mut().next().unwrap().weight = 0;
            }),
            [Online, Online, Online, Draining, Online]
        );
        assert_eq!(
            with(|_, s| s
                .pools
                .values_mut()
                .next()
                .unwrap()
                .members
                .values_mut()
                .next()
                .unwrap()
                .admin_state_up = false),
            [Online, Online, Online, Offline, NoMonitor]
        );
        assert_eq!(
            with(|m, s| {
                m.listeners[0].connection_limit = Some(1);
                s.listeners.values_mut().next().unwrap().active_connections = 1;
            }),
            [Degraded, Degraded, Online, NoMonitor, NoMonitor]
        );
    }

    #[test]
    fn what_is_disabled_is_offline_and_what_is_missing_is_an_error() {
        use OperatingStatus::{Error, NoMonitor, Offline, Online};

        let empty = |s: &mut Stats| (s.listeners, s.pools) = Default::default();
        assert_eq!(with(|_, s| empty(s)), [Online, Error, Offline, NoMonitor, NoMonitor]);
        assert_eq!(
            with(|m, s| {
                m.admin_state_up = false;
                empty(s);
            }),
            [Offline, Offline, Offline, NoMonitor, NoMonitor]
        );
        assert_eq!(
            with(|m, s| {
                m.listeners[0].admin_state_up = false;
                empty(s);
            }),
            [Online, Offline, Offline, NoMonitor, NoMonitor]
        );
    }

    /// Hundreds of random load balancers through the real health manager.
    #[test]
    fn octavias_health_manager_says_the_same() {
        use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

        const SCRIPT: &str = r#"
import json, sys, time
from unittest import mock
from octavia.common import config
from octavia.amphorae.drivers.health import heartbeat_udp as h

out = []
for lb, heartbeat in json.load(sys.stdin):
    found = {}
    def repo(kind):
        r = mock.MagicMock()
        r.update = lambda session, id, operating_status: found.__setitem__(kind + ":" + id, operating_status)
        return r
    u = h.UpdateHealthDb.__new__(h.UpdateHealthDb)
    u.amphora_repo = mock.MagicMock()
    u.amphora_repo.get_lb_for_health_update.return_value = lb
    u.amphora_health_repo = mock.MagicMock()
    u.listener_repo, u.loadbalancer_repo = repo("listener"), repo("lb")
    u.member_repo, u.pool_repo = repo("member"), repo("pool")
    heartbeat["recv_time"] = time.time()
    with mock.patch.object(h, "db_api"):
        u._update_health(heartbeat, "127.0.0.1")
    out.append(found)
json.dump(out, sys.stdout)
"#;
        let state = prop_oneof![
            Just(CheckState::NoCheck),
            Just(CheckState::Up),
            Just(CheckState::UpFailing { passed: 1, of: 2 }),
            Just(CheckState::Down),
            Just(CheckState::DownRising { passed: 1, of: 3 }),
        ];
        let cases = (
            any::<bool>(),
            any::<bool>(),
            0u64..3,
            prop::collection::vec((state, 0u16..2, any::<bool>()), 2),
        );
        let mut runner = TestRunner::deterministic();
        let mut inputs = Vec::new();
        let mut ours = Vec::new();
        for _ in 0..400 {
            let (listener_up, pool_up, connections, members) = cases.new_tree(&mut runner).unwrap().current();
            let (mut model, mut stats) = (fixture::load_balancer(), fixture::stats());
            model.listeners[0].admin_state_up = listener_up;
            model.listeners[0].connection_limit = Some(2);
            model.pools[0].admin_state_up = pool_up;
            stats.listeners.values_mut().next().unwrap().active_connections = connections;
            if !listener_up {
                stats.listeners.clear();
            }
            let pool = stats.pools.values_mut().next().unwrap();
            for (member, (check, weight, up)) in pool.members.values_mut().zip(members) {
                (member.check, member.weight, member.admin_state_up) = (check, weight, up);
            }
            let heartbeat = report::statuses(&stats, Some(&model), &Unserved::default());
            let all = operating_statuses(&model, &heartbeat);
            let (listener, pool) = (&model.listeners[0], &model.pools[0]);
            let members: serde_json::Map<_, _> = pool
                .members
                .iter()
                .map(|m| (m.id.to_string(), serde_json::json!({"operating_status": "-"})))
                .collect();
            inputs.push((
                serde_json::json!({
                    "id": model.id, "enabled": true, "provisioning_status": "ACTIVE", "operating_status": "-",
                    "listeners": {listener.id.to_string(): {
                        "operating_status": "-", "enabled": listener_up, "protocol": "HTTP"}},
                    "pools": {pool.id.to_string(): {"operating_status": "-", "members": members}},
                }),
                serde_json::to_value(&heartbeat).unwrap(),
            ));
            let mut expected = BTreeMap::from([
                (format!("lb:{}", model.id), all.load_balancer),
                (format!("listener:{}", listener.id), all.listeners[&listener.id]),
                (format!("pool:{}", pool.id), all.pools[&pool.id]),
            ]);
            // Of the members of a pool that is not reported the health manager says nothing.
            if !heartbeat.pools.is_empty() {
                expected.extend(
                    pool.members.iter().map(|m| (format!("member:{}", m.id), all.members[&(pool.id, m.id)])),
                );
            }
            ours.push(serde_json::to_value(expected).unwrap());
        }
        let Some(theirs) = crate::testing::octavia::ask::<Vec<serde_json::Value>>(SCRIPT, &inputs) else {
            return;
        };
        for ((input, ours), theirs) in inputs.iter().zip(ours).zip(theirs) {
            assert_eq!(ours, theirs, "{}", input.1);
        }
    }

    #[test]
    fn the_tree_has_octavias_shape() {
        let model = fixture::load_balancer();
        let heartbeat = report::statuses(&fixture::stats(), Some(&model), &Unserved::default());
        let of =
            |remarks| serde_json::to_value(tree(&model, &heartbeat, Members::default(), remarks)).unwrap();
        let tree = of(Vec::new());
        let lb = &tree["statuses"]["loadbalancer"];
        assert_eq!(lb["id"], "10000000-0000-4000-8000-000000000001");
        assert_eq!(lb["provisioning_status"], "ACTIVE");
        let member = &lb["listeners"][0]["pools"][0]["members"][0];
        assert_eq!(
            *member,
            serde_json::json!({
                "id": "40000000-0000-4000-8000-000000000001", "name": "m1", "provisioning_status": "ACTIVE",
                "operating_status": "NO_MONITOR", "address": "127.0.0.1", "protocol_port": 9001
            })
        );
        assert!(lb["listeners"][0]["pools"][0].get("health_monitor").is_none());
        assert!(tree.get("remarks").is_none());
        let remark = Remark { path: "loadbalancer.x".to_owned(), text: "is left out".to_owned() };
        let remarked = of(vec![remark]);
        assert_eq!(
            remarked["remarks"],
            serde_json::json!([{"path": "loadbalancer.x", "text": "is left out"}])
        );
        assert_eq!(remarked["statuses"], tree["statuses"]);
    }
}
