//! The rows: what is asked of whom, and what this proxy is to reach.

use amphora_benches::peers::{Door, Peer, Setup};
use clap::ValueEnum;

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Cell {
    KeepAlive128,
    KeepAlive10k,
    PerConnection128,
    TcpConnect,
    TcpBulk,
    H2c128,
    H2c10k,
    FlowLog128,
    RateLimit128,
    Tls128,
    Tls10k,
    HandshakeEcdsa,
    HandshakeRsa,
    HandshakeResumed,
    H2Tls128,
    H2Tls10k,
    Reencrypt128,
    Reencrypt10k,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Ask for so many bytes, again and again on each connection.
    KeepAlive(usize),
    /// Ask for so many bytes on a connection each.
    Connections(usize),
    /// The same, with TLS sessions that are resumed.
    Resumptions(usize),
    /// Ask for so many bytes on streams of HTTP/2.
    Streams(usize),
    /// 64 bytes each way, on a connection each.
    Tcp,
    /// Receive bytes without end.
    Bulk,
}

/// How this proxy is to stand beside another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// At most so much of what that peer takes.
    AtMost(f64, Peer),
    /// At least so much of what that peer does.
    AtLeast(f64, Peer),
}

impl Target {
    pub(crate) fn peer(self) -> Peer {
        match self {
            Self::AtMost(_, peer) | Self::AtLeast(_, peer) => peer,
        }
    }

    pub(crate) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(bound, _) => ratio <= bound,
            Self::AtLeast(bound, _) => ratio >= bound,
        }
    }

    pub(crate) fn sentence(self) -> String {
        let (word, bound) = match self {
            Self::AtMost(bound, _) => ("at most", bound),
            Self::AtLeast(bound, _) => ("at least", bound),
        };
        format!("Target for amphora-proxy: {word} {bound:.2} of {}'s.", self.peer().name())
    }
}

/// What a prototype took of HAProxy's, and 15 % more.
const fn within(prototype: f64) -> Option<Target> {
    Some(Target::AtMost(prototype * 1.15, Peer::Haproxy))
}

/// What a line of the flow log is to cost at most, by HAProxy's: a prototype took 1.7 µs where HAProxy took 5.4.
pub(crate) const LINE_TARGET: f64 = 1.7 / 5.4 * 1.15;

impl Cell {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::KeepAlive128 => "HTTP keep-alive, 128 B",
            Self::KeepAlive10k => "HTTP keep-alive, 10 KiB",
            Self::PerConnection128 => "HTTP, a connection per request, 128 B",
            Self::TcpConnect => "TCP, connections of 64 B each way",
            Self::TcpBulk => "TCP bulk",
            Self::H2c128 => "HTTP/2 without TLS to HTTP/1.1, 128 B",
            Self::H2c10k => "HTTP/2 without TLS to HTTP/1.1, 10 KiB",
            Self::FlowLog128 => "HTTP keep-alive with a flow log, 128 B",
            Self::RateLimit128 => "HTTP keep-alive with a rate limit, 128 B",
            Self::Tls128 => "HTTPS keep-alive, 128 B",
            Self::Tls10k => "HTTPS keep-alive, 10 KiB",
            Self::HandshakeEcdsa => "HTTPS, a full handshake per request, ECDSA P-256",
            Self::HandshakeRsa => "HTTPS, a full handshake per request, RSA 2048",
            Self::HandshakeResumed => "HTTPS, a resumed handshake per request",
            Self::H2Tls128 => "HTTP/2 to HTTP/1.1, 128 B",
            Self::H2Tls10k => "HTTP/2 to HTTP/1.1, 10 KiB",
            Self::Reencrypt128 => "HTTPS keep-alive to HTTPS members, 128 B",
            Self::Reencrypt10k => "HTTPS keep-alive to HTTPS members, 10 KiB",
        }
    }

    /// The ratio of CPU per request, or of throughput per CPU, that this proxy is to reach.
    pub(crate) fn target(self) -> Option<Target> {
        let of_haproxy = |bound| Some(Target::AtMost(bound, Peer::Haproxy));
        match self {
            Self::KeepAlive128 => of_haproxy(0.80),
            Self::KeepAlive10k => of_haproxy(0.85),
            Self::RateLimit128 => of_haproxy(0.70),
            Self::PerConnection128 => of_haproxy(0.65),
            Self::TcpConnect => Some(Target::AtMost(1.0, Peer::Nginx)),
            Self::TcpBulk => Some(Target::AtLeast(1.0, Peer::Haproxy)),
            Self::Tls128 => within(0.70),
            Self::Tls10k => within(0.58),
            Self::HandshakeEcdsa => within(0.29),
            Self::HandshakeRsa => within(0.64),
            Self::H2c128 | Self::H2c10k | Self::H2Tls128 | Self::H2Tls10k => of_haproxy(1.0),
            Self::FlowLog128 | Self::HandshakeResumed | Self::Reencrypt128 | Self::Reencrypt10k => None,
        }
    }

    pub(crate) fn setup(self) -> Setup {
        match self {
            Self::FlowLog128 => Setup::Logged,
            Self::RateLimit128 => Setup::Limited,
            Self::KeepAlive128
            | Self::KeepAlive10k
            | Self::PerConnection128
            | Self::TcpConnect
            | Self::TcpBulk
            | Self::H2c128
            | Self::H2c10k => Setup::Plain,
            Self::Reencrypt128 | Self::Reencrypt10k => Setup::Reencrypt,
            _ => Setup::Tls,
        }
    }

    pub(crate) fn door(self) -> Door {
        match self {
            Self::KeepAlive128
            | Self::KeepAlive10k
            | Self::PerConnection128
            | Self::FlowLog128
            | Self::RateLimit128 => Door::Http,
            Self::TcpConnect | Self::TcpBulk => Door::Tcp,
            Self::H2c128 | Self::H2c10k => Door::H2c,
            Self::HandshakeRsa => Door::Rsa,
            Self::Reencrypt128 | Self::Reencrypt10k => Door::Reencrypt,
            Self::Tls128
            | Self::Tls10k
            | Self::HandshakeEcdsa
            | Self::HandshakeResumed
            | Self::H2Tls128
            | Self::H2Tls10k => Door::Ecdsa,
        }
    }

    pub(crate) fn work(self) -> Work {
        const LARGE: usize = 10 * 1024;
        match self {
            Self::KeepAlive128
            | Self::FlowLog128
            | Self::RateLimit128
            | Self::Tls128
            | Self::Reencrypt128 => Work::KeepAlive(128),
            Self::KeepAlive10k | Self::Tls10k | Self::Reencrypt10k => Work::KeepAlive(LARGE),
            Self::PerConnection128 | Self::HandshakeEcdsa | Self::HandshakeRsa => Work::Connections(128),
            Self::HandshakeResumed => Work::Resumptions(128),
            Self::TcpConnect => Work::Tcp,
            Self::TcpBulk => Work::Bulk,
            Self::H2c128 | Self::H2Tls128 => Work::Streams(128),
            Self::H2c10k | Self::H2Tls10k => Work::Streams(LARGE),
        }
    }

    /// Whether a request costs many times what others do.
    pub(crate) fn is_handshake(self) -> bool {
        self.setup() == Setup::Tls && matches!(self.work(), Work::Connections(_) | Work::Resumptions(_))
    }

    pub(crate) fn columns(self) -> [&'static str; 2] {
        match self.work() {
            Work::Bulk => ["Gbit per CPU second", "Gbit/s"],
            Work::Tcp => ["CPU µs/connection", "connections/s"],
            _ => ["CPU µs/request", "requests/s"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_look_the_right_way() {
        assert!(Cell::TcpBulk.target().is_some_and(|target| target.is_met(1.2) && !target.is_met(0.9)));
        assert!(
            Cell::HandshakeEcdsa.target().is_some_and(|target| target.is_met(0.33) && !target.is_met(0.34))
        );
        assert!(Cell::TcpConnect.target().is_some_and(|target| target.peer() == Peer::Nginx));
    }
}
