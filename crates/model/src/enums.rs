//! Octavia's enumerations, spelled on the wire as in its API reference.

use crate::Transport;

/// A closed set of strings.
pub(crate) trait Spelled: Sized {
    /// Every spelling, in the order of Octavia's reference.
    const NAMES: &'static [&'static str];

    /// The value with this spelling.
    fn spelled(text: &str) -> Option<Self>;
}

macro_rules! octavia_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $name {
            /// Every value, in the order of Octavia's reference.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The value's spelling in a document.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The value with this spelling.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text)
            }
        }

        impl $crate::enums::Spelled for $name {
            const NAMES: &'static [&'static str] = &[$($text,)+];

            fn spelled(text: &str) -> Option<Self> {
                Self::parse(text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use octavia_enum;

octavia_enum!(
    /// `listener.protocol`, those that this version carries.
    ListenerProtocol {
        /// HTTP/1.1, with L7 policies.
        Http = "HTTP",
        /// Bytes over TCP.
        Tcp = "TCP",
        /// TLS passed through to the member untouched.
        Https = "HTTPS",
        /// HTTP over TLS that ends here, with L7 policies.
        TerminatedHttps = "TERMINATED_HTTPS",
        /// `/metrics` for a Prometheus server.
        Prometheus = "PROMETHEUS",
        /// Datagrams, by flows.
        Udp = "UDP",
        /// Associations of SCTP.
        Sctp = "SCTP",
    }
);

octavia_enum!(
    /// `pool.protocol`, those that this version carries.
    PoolProtocol {
        /// HTTP/1.1.
        Http = "HTTP",
        /// TLS passed through.
        Https = "HTTPS",
        /// Bytes over TCP.
        Tcp = "TCP",
        /// PROXY protocol v1 in front of what the listener carries.
        Proxy = "PROXY",
        /// PROXY protocol v2 in front of what the listener carries.
        ProxyV2 = "PROXYV2",
        /// Datagrams, by flows.
        Udp = "UDP",
        /// Associations of SCTP.
        Sctp = "SCTP",
    }
);

impl ListenerProtocol {
    /// What its clients come by.
    pub fn transport(self) -> Transport {
        match self {
            Self::Http | Self::Tcp | Self::Https | Self::TerminatedHttps | Self::Prometheus => Transport::Tcp,
            Self::Udp => Transport::Udp,
            Self::Sctp => Transport::Sctp,
        }
    }

    /// True when the kernel forwards it, flow by flow, and nothing of it comes to the proxy.
    pub fn is_forwarded(self) -> bool {
        matches!(self, Self::Udp | Self::Sctp)
    }

    /// True when its requests are read: it has L7 policies, headers are inserted, cookies persist (HAProxy `mode http`).
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::TerminatedHttps)
    }

    /// True when a listener of this protocol may send to pools of that one: Octavia's
    /// `VALID_LISTENER_POOL_PROTOCOL_MAP`.
    pub fn carries(self, pool: PoolProtocol) -> bool {
        use PoolProtocol::{Http, Https, Proxy, ProxyV2, Tcp};
        match self {
            Self::Http | Self::TerminatedHttps => matches!(pool, Http | Proxy | ProxyV2),
            Self::Tcp => matches!(pool, Http | Https | Proxy | ProxyV2 | Tcp),
            Self::Https => matches!(pool, Https | Proxy | ProxyV2 | Tcp),
            Self::Prometheus => false,
            Self::Udp => pool == PoolProtocol::Udp,
            Self::Sctp => pool == PoolProtocol::Sctp,
        }
    }
}

impl PoolProtocol {
    /// True when the kernel forwards to its members, flow by flow.
    pub fn is_forwarded(self) -> bool {
        matches!(self, Self::Udp | Self::Sctp)
    }
}

octavia_enum!(
    /// `pool.lb_algorithm`.
    LbAlgorithm {
        /// Smooth weighted round robin.
        RoundRobin = "ROUND_ROBIN",
        /// The member with the fewest connections for its weight.
        LeastConnections = "LEAST_CONNECTIONS",
        /// By a hash of the client's address.
        SourceIp = "SOURCE_IP",
        /// By a hash of the client's address and port.
        SourceIpPort = "SOURCE_IP_PORT",
    }
);

octavia_enum!(
    /// `healthmonitor.http_method`.
    HttpMethod {
        /// The default.
        Get = "GET",
        /// No body comes back.
        Head = "HEAD",
        /// As named.
        Post = "POST",
        /// As named.
        Put = "PUT",
        /// As named.
        Delete = "DELETE",
        /// As named.
        Trace = "TRACE",
        /// As named.
        Options = "OPTIONS",
        /// As named.
        Patch = "PATCH",
        /// As named.
        Connect = "CONNECT",
    }
);

octavia_enum!(
    /// `healthmonitor.http_version`.
    HttpVersion {
        /// The default.
        Http10 = "1.0",
        /// With a `Host` header.
        Http11 = "1.1",
    }
);

octavia_enum!(
    /// `rule.compare_type`.
    CompareType {
        /// A regular expression finds something in the value.
        Regex = "REGEX",
        /// Prefix.
        StartsWith = "STARTS_WITH",
        /// Suffix.
        EndsWith = "ENDS_WITH",
        /// Substring.
        Contains = "CONTAINS",
        /// The whole value.
        EqualTo = "EQUAL_TO",
    }
);

/// `l7policy.redirect_http_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RedirectCode {
    /// 301 Moved Permanently.
    MovedPermanently,
    /// 302 Found, what HAProxy sends when no code is given.
    #[default]
    Found,
    /// 303 See Other.
    SeeOther,
    /// 307 Temporary Redirect.
    Temporary,
    /// 308 Permanent Redirect.
    Permanent,
}

impl RedirectCode {
    /// The status code.
    pub fn code(self) -> u16 {
        match self {
            Self::MovedPermanently => 301,
            Self::Found => 302,
            Self::SeeOther => 303,
            Self::Temporary => 307,
            Self::Permanent => 308,
        }
    }

    /// The value with this status code.
    pub fn from_code(code: u16) -> Option<Self> {
        [Self::MovedPermanently, Self::Found, Self::SeeOther, Self::Temporary, Self::Permanent]
            .into_iter()
            .find(|c| c.code() == code)
    }
}
