//! The demo's load balancer, and the variants of it that are applied under load.

use std::net::SocketAddr;

use amphora_model::{LoadBalancerId, MemberId, PoolId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    HEALTH_PATH,
    secure::credentials::{APPS, AUTHORITIES, SHOP, WWW},
};

/// `redirect_url` of the policy at `/old`.
pub(super) const OLD_REDIRECT: &str = "https://www.example.com/new";
/// `redirect_http_code` of the policy at `/old`.
pub(super) const OLD_CODE: u16 = 301;
/// `redirect_prefix` of the policy at `/docs`.
pub(super) const DOCS_PREFIX: &str = "https://docs.example.com";

/// The pools: name and names of the members.
pub(super) const WEB: (&str, [&str; 3]) = ("web", ["web-1", "web-2", "web-3"]);
/// See [`WEB`].
pub(super) const API: (&str, [&str; 2]) = ("api", ["api-1", "api-2"]);
/// See [`WEB`]. Its members speak TLS; it is there where there is an HTTPS listener.
pub(super) const VAULT: (&str, [&str; 1]) = ("vault", ["vault-1"]);
/// A member of `web` that is only in some variants.
pub(super) const EXTRA: &str = "web-4";

/// Every member process: its name and pool, in the order of the topology's addresses.
pub(super) fn processes() -> Vec<(&'static str, &'static str)> {
    let of = |(pool, members): (&'static str, &[&'static str])| -> Vec<_> {
        members.iter().map(|m| (*m, pool)).collect()
    };
    [of((WEB.0, &WEB.1)), of((API.0, &API.1)), vec![(EXTRA, WEB.0)], of((VAULT.0, &VAULT.1))].concat()
}

/// The load balancer `demo`.
#[derive(Clone, Debug)]
pub(super) struct Demo {
    vip: SocketAddr,
    second_port: u16,
    /// Of the HTTPS listener.
    secure_port: Option<u16>,
    members: Vec<SocketAddr>,
    seed: Uuid,
}

/// How a document differs from the one that the demo starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Variant {
    /// Counts the changes; goes into the load balancer's name, so that no two documents are equal.
    pub(super) number: u32,
    /// [`EXTRA`] takes part.
    pub(super) extra_member: bool,
    /// Members of `web` have weights 1, 2, 3.
    pub(super) weighted: bool,
    /// That many more policies, in front of the others.
    pub(super) more_policies: u32,
    /// A second HTTP listener is there.
    pub(super) second_listener: bool,
    /// `web` balances by LEAST_CONNECTIONS.
    pub(super) least_connections: bool,
    /// What a third HTTP listener does with what comes, if there is one.
    pub(super) third_listener: Option<Third>,
}

/// What the third listener is about. It has the port of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Third {
    /// It shares requests among `web` and `api`.
    Canary {
        /// Of `web` and `api`.
        weights: [u16; 2],
    },
    /// No client may ask more often than [`THRESHOLD`] says.
    Limited,
}

/// Requests of a client within a minute that the third listener answers.
pub(super) const THRESHOLD: u32 = 100;

impl Variant {
    /// The `n`th of the changes under load: each differs from the one before, and every kind comes and goes.
    pub(super) fn nth(n: u32) -> Self {
        Self {
            number: n,
            extra_member: n % 2 == 1,
            weighted: n % 4 >= 2,
            more_policies: n % 7,
            second_listener: n % 6 >= 3,
            least_connections: n % 10 >= 5,
            third_listener: None,
        }
    }
}

impl Demo {
    /// `members` are the addresses of [`processes`], in that order.
    pub(super) fn new(vip: SocketAddr, second_port: u16, members: Vec<SocketAddr>) -> Self {
        Self { vip, second_port, secure_port: None, members, seed: Uuid::new_v4() }
    }

    /// With an HTTPS listener, and a pool whose members speak TLS.
    pub(super) fn secure(self, port: u16) -> Self {
        Self { secure_port: Some(port), ..self }
    }

    /// `loadbalancer.id`.
    pub(super) fn id(&self) -> LoadBalancerId {
        LoadBalancerId(self.uuid("loadbalancer"))
    }

    /// The id of a pool, by its name.
    pub(super) fn pool(&self, name: &str) -> PoolId {
        PoolId(self.uuid(name))
    }

    /// The id of a member, by its name.
    pub(super) fn member(&self, name: &str) -> MemberId {
        MemberId(self.uuid(name))
    }

    /// Where a member serves, by its name.
    pub(super) fn address(&self, name: &str) -> Option<SocketAddr> {
        processes().iter().zip(&self.members).find(|((n, _), _)| *n == name).map(|(_, address)| *address)
    }

    /// Where the third listener is reached.
    pub(super) fn third_address(&self) -> SocketAddr {
        SocketAddr::new(self.vip.ip(), self.second_port)
    }

    /// The whole document.
    pub(super) fn document(&self, variant: Variant) -> Value {
        let mut listeners =
            vec![self.listener("http", self.vip.port(), self.policies("", variant.more_policies))];
        if variant.second_listener {
            listeners.push(self.listener("http-2", self.second_port, Vec::new()));
        }
        listeners.extend(variant.third_listener.map(|third| self.third_listener(third)));
        let mut pools = vec![self.web(variant), self.api()];
        if let Some(port) = self.secure_port {
            listeners.push(self.secure_listener(port, self.policies("https ", variant.more_policies)));
            pools.push(self.vault());
        }
        json!({"loadbalancer": {
            "id": self.id(),
            "name": format!("demo {}", variant.number),
            "vip_address": self.vip.ip(),
            "listeners": listeners,
            "pools": pools,
        }})
    }

    /// A document with two faults, which must be refused as a whole.
    pub(super) fn bad_document(&self) -> Value {
        let mut document = self.document(Variant { number: 666, ..Variant::default() });
        let listener = &mut document["loadbalancer"]["listeners"][0];
        listener["default_pool_id"] = json!(Uuid::new_v4());
        listener["l7policies"][1]["redirect_http_code"] = json!(418);
        document
    }

    fn listener(&self, name: &str, port: u16, policies: Vec<Value>) -> Value {
        json!({
            "id": self.uuid(name),
            "name": name,
            "protocol": "HTTP",
            "protocol_port": port,
            "default_pool_id": self.pool(WEB.0),
            "insert_headers": {"X-Forwarded-For": "true"},
            "l7policies": policies,
        })
    }

    fn third_listener(&self, third: Third) -> Value {
        let mut listener = self.listener("http-3", self.second_port, Vec::new());
        match third {
            Third::Canary { weights } => {
                let pools = [WEB.0, API.0].into_iter().zip(weights);
                let pools = pools.map(|(pool, weight)| json!({"pool_id": self.pool(pool), "weight": weight}));
                listener["amphora"] = json!({"default_pools": pools.collect::<Vec<_>>()});
                if let Some(fields) = listener.as_object_mut() {
                    fields.remove("default_pool_id");
                }
            }
            Third::Limited => {
                listener["rate_limit_policies"] = json!([{
                    "id": self.uuid("rate limit"),
                    "name": "too-many",
                    "action": "DENY",
                    "rules": [{"id": self.uuid("rate limit rule"), "metric": "REQUESTS", "threshold": THRESHOLD,
                        "interval": 60}],
                }]);
            }
        }
        listener
    }

    /// Certificates by SNI, and one for who names no host; HTTP/2 and HTTP/1.1.
    fn secure_listener(&self, port: u16, policies: Vec<Value>) -> Value {
        let mut listener = self.listener("https", port, policies);
        listener["protocol"] = json!("TERMINATED_HTTPS");
        listener["default_tls_container_ref"] = json!(WWW.id);
        listener["sni_container_refs"] = json!([SHOP.id, APPS.id]);
        listener["alpn_protocols"] = json!(["h2", "http/1.1"]);
        listener
    }

    /// One policy of each action, behind `more` that match nothing that the demo asks for. `of` tells those of one listener from those of another.
    fn policies(&self, of: &str, more: u32) -> Vec<Value> {
        let path =
            |compare: &str, value: &str| json!({"type": "PATH", "compare_type": compare, "value": value});
        let mut policies: Vec<(String, Value, Value)> = (0..more)
            .map(|n| {
                let rule = path("EQUAL_TO", &format!("/nobody-asks-for-this/{n}"));
                (format!("more-{n}"), json!({"action": "REJECT"}), rule)
            })
            .collect();
        policies.extend([
            ("no-admin".to_owned(), json!({"action": "REJECT"}), path("STARTS_WITH", "/admin")),
            (
                "moved".to_owned(),
                json!({"action": "REDIRECT_TO_URL", "redirect_url": OLD_REDIRECT, "redirect_http_code": OLD_CODE}),
                path("EQUAL_TO", "/old"),
            ),
            (
                "docs".to_owned(),
                json!({"action": "REDIRECT_PREFIX", "redirect_prefix": DOCS_PREFIX}),
                path("STARTS_WITH", "/docs"),
            ),
            (
                "api".to_owned(),
                json!({"action": "REDIRECT_TO_POOL", "redirect_pool_id": self.pool(API.0)}),
                path("STARTS_WITH", "/api/"),
            ),
        ]);
        if self.secure_port.is_some() {
            policies.push((
                "vault".to_owned(),
                json!({"action": "REDIRECT_TO_POOL", "redirect_pool_id": self.pool(VAULT.0)}),
                path("STARTS_WITH", "/vault/"),
            ));
        }
        policies
            .into_iter()
            .zip(1..)
            .map(|((name, mut policy, mut rule), position)| {
                rule["id"] = json!(self.uuid(&format!("{of}rule {name}")));
                policy["id"] = json!(self.uuid(&format!("{of}policy {name}")));
                policy["name"] = json!(name);
                policy["position"] = json!(position);
                policy["rules"] = json!([rule]);
                policy
            })
            .collect()
    }

    fn web(&self, variant: Variant) -> Value {
        let extra = variant.extra_member.then_some(EXTRA);
        let members: Vec<Value> = WEB
            .1
            .into_iter()
            .chain(extra)
            .zip(1..)
            .map(|(name, n)| self.member_document(name, if variant.weighted { n } else { 1 }))
            .collect();
        json!({
            "id": self.pool(WEB.0),
            "name": WEB.0,
            "protocol": "HTTP",
            "lb_algorithm": if variant.least_connections { "LEAST_CONNECTIONS" } else { "ROUND_ROBIN" },
            "session_persistence": {"type": "HTTP_COOKIE"},
            "healthmonitor": {"id": self.uuid("monitor web"), "name": "says-well", "type": "HTTP", "delay": 1,
                "timeout": 1, "max_retries": 2, "max_retries_down": 2, "http_method": "GET", "url_path": HEALTH_PATH,
                "expected_codes": "200"},
            "members": members,
        })
    }

    fn api(&self) -> Value {
        json!({
            "id": self.pool(API.0),
            "name": API.0,
            "protocol": "HTTP",
            "lb_algorithm": "LEAST_CONNECTIONS",
            "healthmonitor": {"id": self.uuid("monitor api"), "name": "connects", "type": "TCP", "delay": 1,
                "timeout": 1, "max_retries": 2, "max_retries_down": 2},
            "members": API.1.map(|name| self.member_document(name, 1)),
        })
    }

    /// Its members are spoken to over TLS, and their certificates verified.
    fn vault(&self) -> Value {
        json!({
            "id": self.pool(VAULT.0),
            "name": VAULT.0,
            "protocol": "HTTP",
            "lb_algorithm": "ROUND_ROBIN",
            "tls_enabled": true,
            "ca_tls_container_ref": AUTHORITIES,
            "healthmonitor": {"id": self.uuid("monitor vault"), "name": "says-well-over-tls", "type": "HTTP", "delay": 1,
                "timeout": 1, "max_retries": 2, "max_retries_down": 2, "http_method": "GET", "url_path": HEALTH_PATH,
                "expected_codes": "200"},
            "members": VAULT.1.map(|name| self.member_document(name, 1)),
        })
    }

    fn member_document(&self, name: &str, weight: u16) -> Value {
        let address = self.address(name).expect("every name in a document is one of `processes`");
        json!({"id": self.member(name), "name": name, "address": address.ip(), "protocol_port": address.port(),
            "weight": weight})
    }

    /// An id for each name, the same within one demo.
    fn uuid(&self, name: &str) -> Uuid {
        // FNV-1a, and the finalizer of splitmix64 so that names that differ in one letter look different.
        let hash = |offset: u64| {
            let h = name.bytes().fold(offset, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
            let h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            h ^ (h >> 31)
        };
        let (high, low) = self.seed.as_u64_pair();
        let id = Uuid::from_u64_pair(hash(high), hash(low));
        uuid::Builder::from_random_bytes(id.into_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashSet;

    use super::*;

    fn demo() -> Demo {
        let members = (1..=7).map(|n| SocketAddr::from(([203, 0, 113, n], 8080))).collect();
        Demo::new(SocketAddr::from(([198, 51, 100, 10], 80)), 8080, members).secure(443)
    }

    fn ids(value: &Value, found: &mut Vec<String>) {
        found.extend(value.get("id").and_then(Value::as_str).map(str::to_owned));
        match value {
            Value::Array(list) => list.iter().for_each(|v| ids(v, found)),
            Value::Object(fields) => fields.values().for_each(|v| ids(v, found)),
            _ => {}
        }
    }

    #[test]
    fn every_variant_is_a_change_and_no_id_comes_twice() {
        let demo = demo();
        for n in 1..200 {
            let document = demo.document(Variant::nth(n));
            let changes = crate::diff::diff(Some(&demo.document(Variant::nth(n - 1))), Some(&document));
            assert!(changes.len() >= 2, "{n}: more than the name changes");
            let mut all = Vec::new();
            ids(&document, &mut all);
            amphora_model::LoadBalancer::from_value(&document).unwrap();
            assert_eq!(all.len(), all.iter().collect::<HashSet<_>>().len(), "{n}");
        }
    }

    #[test]
    fn the_bad_document_differs_only_in_its_faults() {
        let demo = demo();
        let good = demo.document(Variant { number: 666, ..Variant::default() });
        assert_eq!(crate::diff::diff(Some(&good), Some(&demo.bad_document())).len(), 2);
        let refusal = amphora_model::LoadBalancer::from_value(&demo.bad_document()).unwrap_err();
        assert_eq!(refusal.faults.len(), 2);
    }
}
