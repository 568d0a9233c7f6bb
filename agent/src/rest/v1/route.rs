//! Paths and methods of `/1.0`, as Flask routes them in Octavia's own agent: exact, decoded first, no slash at the end.

use std::borrow::Cow;

use hyper::Method;

/// What a request is about. Parameters are as they came, decoded: what they may be is found out where they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// `/`, and `//`, as the controller asks.
    Discovery,
    /// `/1.0/info`.
    Info,
    /// `/1.0/details`.
    Details,
    /// `/1.0/listeners`.
    Listeners,
    /// `/1.0/listeners/<id>`: a load balancer or a listener, to be deleted.
    Object(String),
    /// `/1.0/loadbalancer/<amphora>/<id>/haproxy`.
    Upload(String),
    /// `/1.0/loadbalancer/<id>/haproxy`, and `/1.0/loadbalancer/<id>/<action>` with that action.
    Text(String),
    /// `/1.0/loadbalancer/<id>/<action>`.
    Action(String, String),
    /// `/1.0/loadbalancer/<id>/certificates/<name>`.
    Certificate(String, String),
    /// `/1.0/listeners/<amphora>/<id>/udp_listener`.
    UploadUdp(String),
    /// `/1.0/listeners/<id>/udp_listener`.
    Udp(String),
    /// `/1.0/plug/vip/<ip>`.
    PlugVip(String),
    /// `/1.0/plug/network`.
    PlugNetwork,
    /// `/1.0/interface/<ip>`.
    Interface(String),
    /// `/1.0/interface/<ip>/rules`.
    Rules(String),
    /// `/1.0/vrrp/upload`.
    UploadVrrp,
    /// `/1.0/vrrp/<action>`.
    Vrrp(String),
    /// `/1.0/certificate`.
    ServerCertificate,
    /// `/1.0/config`.
    Config,
}

/// Whether a path is one of this API's, or of none: all that is not the native API's.
pub(in crate::rest) fn is_ours(path: &str) -> bool {
    let first = path.strip_prefix('/').and_then(|path| path.split('/').next());
    !matches!(first, Some("2.0" | "metrics"))
}

impl Resource {
    /// What a path names; `None` when it is nothing here.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = decode(path)?;
        if matches!(&*path, "/" | "//") {
            return Some(Self::Discovery);
        }
        let mut parts = [""; 6];
        let mut count = 0;
        for part in path.strip_prefix("/1.0/")?.split('/') {
            // A parameter is never empty.
            *parts.get_mut(count).filter(|_| !part.is_empty())? = part;
            count += 1;
        }
        let owned = str::to_owned;
        Some(match parts[..count] {
            ["info"] => Self::Info,
            ["details"] => Self::Details,
            ["listeners"] => Self::Listeners,
            ["listeners", id] => Self::Object(owned(id)),
            ["listeners", id, "udp_listener"] => Self::Udp(owned(id)),
            ["listeners", _, id, "udp_listener"] => Self::UploadUdp(owned(id)),
            ["loadbalancer", id, "haproxy"] => Self::Text(owned(id)),
            ["loadbalancer", id, action] => Self::Action(owned(id), owned(action)),
            ["loadbalancer", id, "certificates", name] => Self::Certificate(owned(id), owned(name)),
            ["loadbalancer", _, id, "haproxy"] => Self::Upload(owned(id)),
            ["plug", "vip", ip] => Self::PlugVip(owned(ip)),
            ["plug", "network"] => Self::PlugNetwork,
            ["interface", ip] => Self::Interface(owned(ip)),
            ["interface", ip, "rules"] => Self::Rules(owned(ip)),
            ["vrrp", "upload"] => Self::UploadVrrp,
            ["vrrp", action] => Self::Vrrp(owned(action)),
            ["certificate"] => Self::ServerCertificate,
            ["config"] => Self::Config,
            _ => return None,
        })
    }

    /// The methods that it takes, as Flask writes them in `Allow`.
    pub(super) fn allow(&self) -> &'static str {
        match self {
            Self::Discovery
            | Self::Info
            | Self::Details
            | Self::Listeners
            | Self::Udp(_)
            | Self::Interface(_) => "GET, OPTIONS, HEAD",
            Self::Object(_) => "OPTIONS, DELETE",
            // PUT is an action of this name, which there is not.
            Self::Text(_) => "GET, OPTIONS, PUT, HEAD",
            Self::Certificate(..) => "GET, OPTIONS, PUT, HEAD, DELETE",
            Self::PlugVip(_) | Self::PlugNetwork => "OPTIONS, POST",
            _ => "OPTIONS, PUT",
        }
    }

    /// Whether it takes a method.
    pub(super) fn allows(&self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// A path without its escapes (RFC 3986 section 2.1), as UTF-8; `None` when it cannot be.
fn decode(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        bytes.push(data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()?.first().copied()?);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Parses arbitrary bytes as a path, for fuzzing.
pub(in crate::rest) fn fuzz(path: &str) {
    if let Some(resource) = Resource::parse(path) {
        assert!(is_ours(path) && !resource.allow().is_empty());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_exact() {
        let object = |id: &str| Some(Resource::Object(id.to_owned()));
        assert_eq!(Resource::parse("/"), Some(Resource::Discovery));
        assert_eq!(Resource::parse("//"), Some(Resource::Discovery));
        assert_eq!(Resource::parse("/1.0/listeners/a"), object("a"));
        assert_eq!(Resource::parse("/1.0/listeners/%61%3A"), object("a:"));
        assert_eq!(Resource::parse("/1.0/interface/fd77::1"), Some(Resource::Interface("fd77::1".into())));
        assert_eq!(Resource::parse("/1.0/loadbalancer/a/b/haproxy"), Some(Resource::Upload("b".into())));
        for path in [
            "",
            "1.0/info",
            "/1.0",
            "/1.0/",
            "/1.0/info/",
            "/1.0//info",
            "/1.0/listeners/",
            "/1.0/listeners/a/b",
            "/0.5/info",
            "/1.0/loadbalancer/a/certificates/..%2Fx.pem",
            "/1.0/listeners/%6",
            "/1.0/listeners/%zz",
            "/1.0/listeners/%ff",
            "/1.0/a/b/c/d/e/f/g",
        ] {
            assert_eq!(Resource::parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_rest_is_the_native_api() {
        for (path, ours) in
            [("/2.0", false), ("/2.0/x", false), ("/metrics", false), ("/2.00", true), ("/x", true)]
        {
            assert_eq!(is_ours(path), ours, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "(/|%|1\\.0|2\\.0|info|loadbalancer|vrrp|[0-9a-f]{2}|.){0,20}") {
            fuzz(&path);
        }
    }
}
