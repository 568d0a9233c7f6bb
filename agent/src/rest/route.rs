//! Paths and methods: the whole table of the API.

use amphora_model::{CertificateId, LoadBalancerId, MemberId, PoolId};
use amphora_netlink::MacAddress;
use hyper::Method;

use crate::vrrp_client::VrrpAction;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `/2.0`.
    Version,
    /// `/2.0/info`.
    Info,
    /// `/2.0/health`.
    Health,
    /// `/2.0/openapi.json`.
    OpenApi,
    /// `/metrics`.
    Metrics,
    /// `/2.0/loadbalancers/{id}`.
    LoadBalancer(LoadBalancerId),
    /// `/2.0/loadbalancers/{id}/status`.
    Status(LoadBalancerId),
    /// `/2.0/loadbalancers/{id}/stats`.
    Stats(LoadBalancerId),
    /// `/2.0/loadbalancers/{id}/explain`.
    Explain(LoadBalancerId),
    /// `/2.0/loadbalancers/{id}/pools/{pool_id}/members/{member_id}`.
    Member(LoadBalancerId, PoolId, MemberId),
    /// `/2.0/certificates`.
    Certificates,
    /// `/2.0/certificates/{certificate_id}`.
    Certificate(CertificateId),
    /// `/2.0/interfaces`.
    Interfaces,
    /// `/2.0/interfaces/{mac_address}`.
    Interface(MacAddress),
    /// `/2.0/vrrp` and below.
    Vrrp(VrrpResource),
    /// `/2.0/peers`.
    Peers,
}

/// What a request to VRRP is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpResource {
    /// `/2.0/vrrp`.
    Configuration,
    /// `/2.0/vrrp/status`.
    Status,
    /// `/2.0/vrrp/start`, `stop`, `hand-over`, `resume`.
    Action(VrrpAction),
}

/// Why a path is nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResource {
    /// There is no such path.
    Unknown,
    /// This parameter of the path is not a UUID.
    NotAnId(&'static str),
    /// The parameter of the path is not the id of a certificate.
    NotACertificate,
    /// The parameter of the path is not a MAC address.
    NotAMacAddress,
}

impl Resource {
    /// What a path names. A single slash at the end is as good as none; nothing is decoded, since no path of this
    /// API has a character that would have to be escaped.
    ///
    /// # Errors
    /// When it names nothing.
    pub fn parse(path: &str) -> Result<Self, NoResource> {
        let path = path.strip_prefix('/').ok_or(NoResource::Unknown)?;
        let path = path.strip_suffix('/').unwrap_or(path);
        // One more than the longest path has, so that a longer one is not taken for it.
        let mut parts = [""; 9];
        let mut count = 0;
        for part in path.split('/') {
            *parts.get_mut(count).ok_or(NoResource::Unknown)? = part;
            count += 1;
        }
        match &parts[..count] {
            ["metrics"] => Ok(Self::Metrics),
            ["2.0"] => Ok(Self::Version),
            ["2.0", "info"] => Ok(Self::Info),
            ["2.0", "health"] => Ok(Self::Health),
            ["2.0", "openapi.json"] => Ok(Self::OpenApi),
            ["2.0", "loadbalancers", lb] => Ok(Self::LoadBalancer(id(lb, "id")?)),
            ["2.0", "loadbalancers", lb, "status"] => Ok(Self::Status(id(lb, "id")?)),
            ["2.0", "loadbalancers", lb, "stats"] => Ok(Self::Stats(id(lb, "id")?)),
            ["2.0", "loadbalancers", lb, "explain"] => Ok(Self::Explain(id(lb, "id")?)),
            ["2.0", "loadbalancers", lb, "pools", pool, "members", member] => {
                Ok(Self::Member(id(lb, "id")?, id(pool, "pool_id")?, id(member, "member_id")?))
            }
            ["2.0", "certificates"] => Ok(Self::Certificates),
            ["2.0", "certificates", id] => {
                id.parse().map(Self::Certificate).map_err(|_| NoResource::NotACertificate)
            }
            ["2.0", "interfaces"] => Ok(Self::Interfaces),
            ["2.0", "interfaces", mac] => {
                mac.parse().map(Self::Interface).map_err(|_| NoResource::NotAMacAddress)
            }
            ["2.0", "peers"] => Ok(Self::Peers),
            ["2.0", "vrrp"] => Ok(Self::Vrrp(VrrpResource::Configuration)),
            ["2.0", "vrrp", "status"] => Ok(Self::Vrrp(VrrpResource::Status)),
            ["2.0", "vrrp", name] => {
                let action = VrrpAction::ALL.into_iter().find(|action| action.as_str() == *name);
                action.map(|action| Self::Vrrp(VrrpResource::Action(action))).ok_or(NoResource::Unknown)
            }
            _ => Err(NoResource::Unknown),
        }
    }

    /// The methods that it takes, as the `Allow` header names them.
    pub fn allow(&self) -> &'static str {
        match self {
            Self::LoadBalancer(_)
            | Self::Certificate(_)
            | Self::Interface(_)
            | Self::Vrrp(VrrpResource::Configuration)
            | Self::Peers => "GET, HEAD, PUT, DELETE",
            Self::Member(..) => "PUT",
            Self::Explain(_) | Self::Vrrp(VrrpResource::Action(_)) => "POST",
            _ => "GET, HEAD",
        }
    }

    /// Whether it takes a method.
    pub fn allows(&self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// Parses arbitrary bytes as a path, for fuzzing: what is understood is written the one way that reads back.
pub fn fuzz(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    super::v1::fuzz(path);
    if let Ok(resource) = Resource::parse(path) {
        assert!(!resource.allow().is_empty());
        assert_eq!(Resource::parse(path.strip_suffix('/').unwrap_or(path)), Ok(resource));
    }
}

fn id<T: std::str::FromStr>(text: &str, name: &'static str) -> Result<T, NoResource> {
    // Octavia's ids have hyphens; the other spellings of a UUID would be other names of the same thing.
    let hyphenated = text.len() == 36;
    hyphenated.then(|| text.parse().ok()).flatten().ok_or(NoResource::NotAnId(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LB: &str = "10000000-0000-4000-8000-000000000001";

    #[test]
    fn paths_are_exact() {
        assert_eq!(Resource::parse("/2.0"), Ok(Resource::Version));
        assert_eq!(Resource::parse("/2.0/"), Ok(Resource::Version));
        for path in [
            "",
            "/",
            "2.0",
            "/2.0//",
            "//2.0",
            "/2.0/loadbalancers",
            "/2.00",
            "/metrics/x",
            "/2.0/Info",
            "/2.0/vrrp/x",
            "/2.0/vrrp/start/x",
            "/2.0/peers/x",
        ] {
            assert_eq!(Resource::parse(path), Err(NoResource::Unknown), "{path:?}");
        }
        assert!(matches!(
            Resource::parse(&format!("/2.0/loadbalancers/{LB}")),
            Ok(Resource::LoadBalancer(_))
        ));
        assert_eq!(
            Resource::parse(&format!("/2.0/loadbalancers/{LB}/pools/x/members/{LB}")),
            Err(NoResource::NotAnId("pool_id"))
        );
        let simple = LB.replace('-', "");
        assert_eq!(Resource::parse(&format!("/2.0/loadbalancers/{simple}")), Err(NoResource::NotAnId("id")));
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "(/|2\\.0|info|loadbalancers|pools|members|vrrp|[0-9a-f-]{36}|.){0,20}") {
            fuzz(path.as_bytes());
        }
    }
}
