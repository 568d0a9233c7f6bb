//! What a proxy changes in a head: lists that the writers of each version apply.

use super::{
    cookies,
    names::{Known, KnownSet},
};

/// What to change in a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestEdits<'a> {
    /// The value of an `X-Forwarded-For` line to add, as HAProxy's `option forwardfor` does; lines that the client sent
    /// stay before it.
    pub forwarded_for: Option<&'a [u8]>,
    /// The value that replaces every `X-Forwarded-Port`, as `http-request set-header` does.
    pub forwarded_port: Option<&'a [u8]>,
    /// The value that replaces every `X-Forwarded-Proto`.
    pub forwarded_proto: Option<&'a [u8]>,
    /// Fields that replace every field of their names.
    pub set: SetFields<'a>,
    /// The name of the cookie that the member must not see (`cookie NAME ... indirect`).
    pub strip_cookie: Option<&'a [u8]>,
    /// Leave an `Expect` of `100-continue` out: there is no body, so it means nothing (RFC 9110 section 10.1.1), and a
    /// member that answers it all the same would answer twice.
    pub drop_expect: bool,
}

/// Fields that are written already, as `http-request set-header` sets them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetFields<'a> {
    /// Their names.
    pub names: KnownSet,
    /// Their lines, each with its end.
    pub lines: &'a [u8],
}

/// What to change in a response, whatever the version that the client speaks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseEdits<'a> {
    /// The name of a cookie whose `Set-Cookie` lines the client must not see, because the proxy owns it.
    pub strip_cookie: Option<&'a [u8]>,
    /// Name and value of a persistence cookie to set, with `path=/`.
    pub insert_cookie: Option<(&'a [u8], &'a [u8])>,
    /// The value of `Set-Cookie` that keeps the client with its pool.
    pub pool_cookie: Option<&'a [u8]>,
    /// Add `cache-control: private` (`nocache`).
    pub private: bool,
    /// The value that replaces every `Strict-Transport-Security`.
    pub transport_security: Option<&'a [u8]>,
}

/// A field that an edit adds: its name in lower case, and its value in pieces.
pub(crate) type Added<'a> = (&'static str, [&'a [u8]; 4]);

impl<'a> ResponseEdits<'a> {
    /// The fields among which some may have to [go](Self::removes).
    #[inline]
    pub(crate) fn touches(&self) -> KnownSet {
        let mut names = KnownSet::default();
        if self.strip_cookie.is_some() {
            names.insert(Known::SetCookie);
        }
        if self.transport_security.is_some() {
            names.insert(Known::StrictTransportSecurity);
        }
        names
    }

    /// Whether a field is left out.
    #[inline]
    pub(crate) fn removes(&self, known: Known, value: &[u8]) -> bool {
        match known {
            Known::SetCookie => self.strip_cookie.is_some_and(|name| cookies::sets_cookie(value, name)),
            Known::StrictTransportSecurity => self.transport_security.is_some(),
            _ => false,
        }
    }

    /// The fields that are added, in order.
    #[inline]
    pub(crate) fn added(&self) -> impl Iterator<Item = Added<'a>> + use<'a> {
        let cookie = self.insert_cookie.map(|(name, value)| ("set-cookie", [name, b"=", value, b"; path=/"]));
        let pool = self.pool_cookie.map(|cookie| ("set-cookie", [cookie, b"", b"", b""]));
        let private = self.private.then_some(("cache-control", [b"private".as_slice(), b"", b"", b""]));
        let security = self.transport_security;
        let security = security.map(|value| ("strict-transport-security", [value, b"", b"", b""]));
        [security, cookie, pool, private].into_iter().flatten()
    }
}
