//! Field names that the proxy decides by, classified once while a head is read.

/// A field name that the proxy knows; every other name is [`Known::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Known {
    /// Any name that is not listed here.
    Other,
    /// `Authorization`.
    Authorization,
    /// `Cache-Control`.
    CacheControl,
    /// `Connection`.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Content-Type`.
    ContentType,
    /// `Cookie`.
    Cookie,
    /// `Date`.
    Date,
    /// `Expect`.
    Expect,
    /// `Host`.
    Host,
    /// `HTTP2-Settings`.
    Http2Settings,
    /// `Keep-Alive`.
    KeepAlive,
    /// `Location`.
    Location,
    /// `Proxy-Authenticate`.
    ProxyAuthenticate,
    /// `Proxy-Authorization`.
    ProxyAuthorization,
    /// `Proxy-Connection`.
    ProxyConnection,
    /// `Referer`.
    Referer,
    /// `Server`.
    Server,
    /// `Set-Cookie`.
    SetCookie,
    /// `Strict-Transport-Security`.
    StrictTransportSecurity,
    /// `TE`.
    Te,
    /// `Trailer`.
    Trailer,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Upgrade`.
    Upgrade,
    /// `User-Agent`.
    UserAgent,
    /// `WWW-Authenticate`.
    WwwAuthenticate,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Port`.
    XForwardedPort,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// `X-SSL-Client-CN`.
    XSslClientCn,
    /// `X-SSL-Client-DN`.
    XSslClientDn,
    /// `X-SSL-Client-Has-Cert`.
    XSslClientHasCert,
    /// `X-SSL-Client-Not-After`.
    XSslClientNotAfter,
    /// `X-SSL-Client-Not-Before`.
    XSslClientNotBefore,
    /// `X-SSL-Client-SHA1`.
    XSslClientSha1,
    /// `X-SSL-Client-Verify`.
    XSslClientVerify,
    /// `X-SSL-Issuer`.
    XSslIssuer,
}

impl Known {
    /// Classifies `name`, any bytes, case-insensitively. What is not [`Known::Other`] is a token.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        use Known::*;
        // The length and one byte leave at most one candidate, so a name costs one comparison.
        let first = name.first().map_or(0, |b| b | 0x20);
        if first == b'x' {
            return Self::of_extension(name);
        }
        let (candidate, same) = match (name.len(), first) {
            (2, _) => (Te, is(name, b"te")),
            (4, b'h') => (Host, is(name, b"host")),
            (4, b'd') => (Date, is(name, b"date")),
            (6, b'c') => (Cookie, is(name, b"cookie")),
            (6, b'e') => (Expect, is(name, b"expect")),
            (6, b's') => (Server, is(name, b"server")),
            (7, b'u') => (Upgrade, is(name, b"upgrade")),
            (7, b't') => (Trailer, is(name, b"trailer")),
            (7, b'r') => (Referer, is(name, b"referer")),
            (8, b'l') => (Location, is(name, b"location")),
            (10, b'c') => (Connection, is(name, b"connection")),
            (10, b'k') => (KeepAlive, is(name, b"keep-alive")),
            (10, b's') => (SetCookie, is(name, b"set-cookie")),
            (10, b'u') => (UserAgent, is(name, b"user-agent")),
            (12, b'c') => (ContentType, is(name, b"content-type")),
            (13, b'c') => (CacheControl, is(name, b"cache-control")),
            (13, b'a') => (Authorization, is(name, b"authorization")),
            (14, b'h') => (Http2Settings, is(name, b"http2-settings")),
            (14, b'c') => (ContentLength, is(name, b"content-length")),
            (16, b'p') => (ProxyConnection, is(name, b"proxy-connection")),
            (16, b'w') => (WwwAuthenticate, is(name, b"www-authenticate")),
            (17, b't') => (TransferEncoding, is(name, b"transfer-encoding")),
            (18, b'p') => (ProxyAuthenticate, is(name, b"proxy-authenticate")),
            (19, b'p') => (ProxyAuthorization, is(name, b"proxy-authorization")),
            (25, b's') => (StrictTransportSecurity, is(name, b"strict-transport-security")),
            _ => return Other,
        };
        if same { candidate } else { Other }
    }

    /// The same of a name that begins with an X.
    #[inline]
    fn of_extension(name: &[u8]) -> Self {
        use Known::*;
        let (candidate, same) = match (name.len(), name.last().map_or(0, |b| b | 0x20)) {
            (12, _) => (XSslIssuer, is(name, b"x-ssl-issuer")),
            (15, b'r') => (XForwardedFor, is(name, b"x-forwarded-for")),
            (15, b'n') if is(name, b"x-ssl-client-cn") => return XSslClientCn,
            (15, b'n') => (XSslClientDn, is(name, b"x-ssl-client-dn")),
            (16, _) => (XForwardedPort, is(name, b"x-forwarded-port")),
            (17, b'o') => (XForwardedProto, is(name, b"x-forwarded-proto")),
            // A digit has the bit already.
            (17, b'1') => (XSslClientSha1, is(name, b"x-ssl-client-sha1")),
            (19, _) => (XSslClientVerify, is(name, b"x-ssl-client-verify")),
            (21, _) => (XSslClientHasCert, is(name, b"x-ssl-client-has-cert")),
            (22, _) => (XSslClientNotAfter, is(name, b"x-ssl-client-not-after")),
            (23, _) => (XSslClientNotBefore, is(name, b"x-ssl-client-not-before")),
            _ => return Other,
        };
        if same { candidate } else { Other }
    }
}

/// Whether `text` is `lower` in any case; `lower` has lower-case letters, digits and hyphens.
///
/// Length and letters are known when this is compiled, so that it becomes a few word-wide operations.
#[inline]
pub(crate) fn is<const N: usize>(text: &[u8], lower: &[u8; N]) -> bool {
    let Ok(text) = <&[u8; N]>::try_from(text) else { return false };
    let mut difference = 0;
    for i in 0..N {
        // The bit that tells cases apart; of what is no letter another byte would be told.
        let case = if lower[i].is_ascii_lowercase() { 0x20 } else { 0 };
        difference |= (text[i] | case) ^ lower[i];
    }
    difference == 0
}

/// A set of [`Known`] names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet(u64);

impl KnownSet {
    /// These.
    pub const fn of(names: &[Known]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < names.len() {
            bits |= 1 << names[i] as u64;
            i += 1;
        }
        Self(bits)
    }

    /// These, and another.
    pub const fn with(self, name: Known) -> Self {
        Self(self.0 | 1 << name as u64)
    }

    /// Whether it is among them.
    #[inline]
    pub fn contains(self, name: Known) -> bool {
        self.0 & (1 << name as u64) != 0
    }

    /// Another.
    #[inline]
    pub fn insert(&mut self, name: Known) {
        self.0 |= 1 << name as u64;
    }

    #[inline]
    pub(crate) fn insert_all(&mut self, others: Self) {
        self.0 |= others.0;
    }

    #[inline]
    pub(crate) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_classified_in_any_case() {
        for (name, known) in [
            ("HTTP2-Settings", Known::Http2Settings),
            ("Host", Known::Host),
            ("hOST", Known::Host),
            ("Transfer-Encoding", Known::TransferEncoding),
            ("TRANSFER-ENCODING", Known::TransferEncoding),
            ("content-length", Known::ContentLength),
            ("X-Forwarded-Proto", Known::XForwardedProto),
            ("Te", Known::Te),
            ("Hos", Known::Other),
            ("Hosts", Known::Other),
            ("Xost", Known::Other),
            ("Transfer_Encoding", Known::Other),
            ("", Known::Other),
            ("(ost", Known::Other),
            ("keep_alive", Known::Other),
            ("keep\ralive", Known::Other),
            ("http\x12-settings", Known::Other),
            ("KEEP-ALIVE", Known::KeepAlive),
            ("X-Forwarded-For", Known::XForwardedFor),
            ("x-forwarded-PORT", Known::XForwardedPort),
            ("X-SSL-Client-CN", Known::XSslClientCn),
            ("x-ssl-client-dn", Known::XSslClientDn),
            ("X-SSL-Client-Has-Cert", Known::XSslClientHasCert),
            ("X-SSL-Client-Not-After", Known::XSslClientNotAfter),
            ("X-SSL-Client-Not-Before", Known::XSslClientNotBefore),
            ("X-SSL-CLIENT-SHA1", Known::XSslClientSha1),
            ("X-Ssl-Client-Verify", Known::XSslClientVerify),
            ("X-SSL-Issuer", Known::XSslIssuer),
            ("X-SSL_Issuer", Known::Other),
            ("X-SSL-Client-XN", Known::Other),
            ("Strict-Transport-Security", Known::StrictTransportSecurity),
            ("WWW-AUTHENTICATE", Known::WwwAuthenticate),
            ("proxy-authenticate", Known::ProxyAuthenticate),
            ("Proxy-Authorization", Known::ProxyAuthorization),
        ] {
            assert_eq!(Known::of(name.as_bytes()), known, "{name}");
        }
    }
}
