//! Load-balancer documents, in Octavia's words. What has no method is said with `with`.

use std::net::{IpAddr, SocketAddr};

use amphora_model::{ListenerId, MemberId, PoolId};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{Backend, free_port, loopback};

macro_rules! with_fields {
    ($($kind:ty),*) => {
        $(impl $kind {
            /// With this field; in place of what was there.
            pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
                self.fields.insert(field.to_owned(), value.into());
                self
            }
        })*
    };
}
with_fields!(Document, Listener, Pool, Member, HealthMonitor, L7Policy, L7Rule);

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("not an object: {other}"),
    }
}

fn new_id() -> Uuid {
    Uuid::new_v4()
}

/// A load balancer.
#[derive(Clone, Debug)]
pub struct Document {
    /// `vip_address`.
    pub vip: IpAddr,
    /// `listeners`.
    pub listeners: Vec<Listener>,
    /// `pools`.
    pub pools: Vec<Pool>,
    fields: Map<String, Value>,
}

impl Document {
    /// An empty one on a VIP of its own.
    pub fn new() -> Self {
        Self::at(loopback())
    }

    /// An empty one.
    pub fn at(vip: IpAddr) -> Self {
        let fields = fields(json!({ "id": new_id().to_string(), "vip_address": vip.to_string() }));
        Self { vip, listeners: Vec::new(), pools: Vec::new(), fields }
    }

    /// The same with another VIP: what the other amphora of a pair would have on a network of its own.
    pub fn on(self, vip: IpAddr) -> Self {
        Self { vip, ..self.with("vip_address", vip.to_string()) }
    }

    /// With a listener. One without a port gets a free one.
    pub fn listener(mut self, mut listener: Listener) -> Self {
        if listener.port == 0 {
            listener.port = free_port(self.vip);
        }
        self.listeners.push(listener);
        self
    }

    /// With a pool.
    pub fn pool(mut self, pool: &Pool) -> Self {
        self.pools.push(pool.clone());
        self
    }

    /// The only listener, and the default pool behind it.
    pub fn of(listener: Listener, pool: Pool) -> Self {
        Self::new().listener(listener.to(&pool)).pool(&pool)
    }

    /// One HTTP listener, round robin over these members.
    pub fn http<'a>(members: impl IntoIterator<Item = &'a Backend>) -> Self {
        Self::of(Listener::http(), Pool::http().members(members))
    }

    /// One TCP listener, round robin over these members.
    pub fn tcp<'a>(members: impl IntoIterator<Item = &'a Backend>) -> Self {
        Self::of(Listener::tcp(), Pool::tcp().members(members))
    }

    /// Where the first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.address_of(0)
    }

    /// Where this listener listens.
    pub fn address_of(&self, index: usize) -> SocketAddr {
        SocketAddr::new(self.vip, self.listeners[index].port)
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("listeners".into(), self.listeners.iter().map(Listener::to_json).collect());
        fields.insert("pools".into(), self.pools.iter().map(Pool::to_json).collect());
        json!({ "loadbalancer": fields })
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}

/// A listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// `id`.
    pub id: ListenerId,
    /// `protocol_port`.
    pub port: u16,
    /// `l7policies`.
    pub policies: Vec<L7Policy>,
    fields: Map<String, Value>,
}

impl Listener {
    fn new(protocol: &str) -> Self {
        Self {
            id: ListenerId(new_id()),
            port: 0,
            policies: Vec::new(),
            fields: fields(json!({ "protocol": protocol })),
        }
    }

    /// Of protocol HTTP.
    pub fn http() -> Self {
        Self::new("HTTP")
    }

    /// Of protocol TERMINATED_HTTPS, with the certificate of this id.
    pub fn https(certificate: &str) -> Self {
        Self::new("TERMINATED_HTTPS").with("default_tls_container_ref", certificate)
    }

    /// Of protocol TCP.
    pub fn tcp() -> Self {
        Self::new("TCP")
    }

    /// Of protocol UDP.
    pub fn udp() -> Self {
        Self::new("UDP")
    }

    /// Of protocol SCTP.
    pub fn sctp() -> Self {
        Self::new("SCTP")
    }

    /// Of protocol PROMETHEUS.
    pub fn prometheus() -> Self {
        Self::new("PROMETHEUS")
    }

    /// On this port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// With this default pool.
    pub fn to(self, pool: &Pool) -> Self {
        self.with("default_pool_id", pool.id.to_string())
    }

    /// With this policy behind those that are there.
    pub fn policy(mut self, policy: L7Policy) -> Self {
        self.policies.push(policy);
        self
    }

    fn to_json(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("id".into(), self.id.to_string().into());
        fields.insert("protocol_port".into(), self.port.into());
        if !self.policies.is_empty() {
            fields.insert("l7policies".into(), self.policies.iter().map(L7Policy::to_json).collect());
        }
        fields.into()
    }
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// `id`.
    pub id: PoolId,
    /// `members`.
    pub members: Vec<Member>,
    fields: Map<String, Value>,
}

impl Pool {
    /// ROUND_ROBIN, of this protocol.
    pub fn new(protocol: &str) -> Self {
        let fields = fields(json!({ "protocol": protocol, "lb_algorithm": "ROUND_ROBIN" }));
        Self { id: PoolId(new_id()), members: Vec::new(), fields }
    }

    /// Of protocol HTTP.
    pub fn http() -> Self {
        Self::new("HTTP")
    }

    /// Of protocol TCP.
    pub fn tcp() -> Self {
        Self::new("TCP")
    }

    /// With this member.
    pub fn member(mut self, member: Member) -> Self {
        self.members.push(member);
        self
    }

    /// With a member for each backend.
    pub fn members<'a>(mut self, backends: impl IntoIterator<Item = &'a Backend>) -> Self {
        self.members.extend(backends.into_iter().map(Member::of));
        self
    }

    /// With this algorithm.
    pub fn balanced_by(self, algorithm: &str) -> Self {
        self.with("lb_algorithm", algorithm)
    }

    /// With this health monitor.
    pub fn monitored(self, monitor: &HealthMonitor) -> Self {
        let monitor = Value::from(monitor.fields.clone());
        self.with("healthmonitor", monitor)
    }

    fn to_json(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("id".into(), self.id.to_string().into());
        fields.insert("members".into(), self.members.iter().map(Member::to_json).collect());
        fields.into()
    }
}

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// `id`.
    pub id: MemberId,
    fields: Map<String, Value>,
}

impl Member {
    /// At this address.
    pub fn at(address: SocketAddr) -> Self {
        let fields = fields(json!({ "address": address.ip().to_string(), "protocol_port": address.port() }));
        Self { id: MemberId(new_id()), fields }
    }

    /// A backend.
    pub fn of(backend: &Backend) -> Self {
        Self::at(backend.address)
    }

    /// With this weight.
    pub fn weight(self, weight: u16) -> Self {
        self.with("weight", weight)
    }

    fn to_json(&self) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("id".into(), self.id.to_string().into());
        fields.into()
    }
}

/// A health monitor that probes once a second, and is content with one result.
#[derive(Clone, Debug)]
pub struct HealthMonitor {
    fields: Map<String, Value>,
}

impl HealthMonitor {
    /// Of this type.
    pub fn new(kind: &str) -> Self {
        let fields = fields(json!({
            "id": new_id().to_string(),
            "type": kind,
            "delay": 1,
            "timeout": 1,
            "max_retries": 1,
            "max_retries_down": 1,
        }));
        Self { fields }
    }
}

/// An L7 policy.
#[derive(Clone, Debug)]
pub struct L7Policy {
    fields: Map<String, Value>,
}

impl L7Policy {
    /// That does this when `rule` matches.
    pub fn new(action: &str, rule: L7Rule) -> Self {
        let rules = json!([rule.fields]);
        let fields = fields(json!({ "id": new_id().to_string(), "action": action, "rules": rules }));
        Self { fields }
    }

    /// That sends to a pool when `rule` matches.
    pub fn to_pool(pool: &Pool, rule: L7Rule) -> Self {
        Self::new("REDIRECT_TO_POOL", rule).with("redirect_pool_id", pool.id.to_string())
    }

    /// When this rule matches as well.
    pub fn and(mut self, rule: L7Rule) -> Self {
        let rules = self.fields.get_mut("rules").and_then(Value::as_array_mut);
        rules.expect("each policy has rules").push(rule.fields.into());
        self
    }

    fn to_json(&self) -> Value {
        self.fields.clone().into()
    }
}

/// An L7 rule.
#[derive(Clone, Debug)]
pub struct L7Rule {
    fields: Map<String, Value>,
}

impl L7Rule {
    /// A comparison.
    pub fn new(kind: &str, compare: &str, value: &str) -> Self {
        let fields = fields(json!({
            "id": new_id().to_string(), "type": kind, "compare_type": compare, "value": value,
        }));
        Self { fields }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.fields["id"].as_str().unwrap()
    }

    /// The path starts with this.
    pub fn path(prefix: &str) -> Self {
        Self::new("PATH", "STARTS_WITH", prefix)
    }
}
