//! `HTTP_COOKIE`: HAProxy's `cookie SRV insert indirect nocache`. The proxy tells the client its member in a cookie
//! of its own, which members never see.
//!
//! | the request's cookie | the session goes | the response gets |
//! | --- | --- | --- |
//! | none, or of an unknown member | where balancing says | `Set-Cookie` of the member that answered |
//! | a member that is usable, weight 0 included | there | nothing |
//! | a member that is down or disabled | where balancing says | `Set-Cookie` of the member that answered |
//! | a member that then fails, so that the session is redispatched | elsewhere | `Set-Cookie` of that one |
//!
//! Of several cookies the first that leads to a usable member counts. The cookie is never deleted: HAProxy does
//! that only for servers without a cookie value, which Octavia does not configure. A `Set-Cookie: SRV`
//! of a member is dropped. All of it was checked against HAProxy 2.6.

use std::mem;

use amphora_model::MemberId;
use uuid::Uuid;

use crate::{balance::MembersView, http::cookie_values};

/// The cookie's name.
pub const NAME: &[u8] = b"SRV";

/// The members by the value of their cookie, which is their id.
#[derive(Clone, Debug, Default)]
pub struct ServerCookie {
    /// Sorted.
    members: Box<[(MemberId, u32)]>,
}

/// Where a request's cookie sends it, and with that what its response gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieVerdict {
    /// To this member; its response gets no cookie unless another member had to answer.
    Use(usize),
    /// Balance, and insert the cookie of the member that answers.
    Insert,
}

impl CookieVerdict {
    /// Whether the response of the member that answered, `served_by`, gets a `Set-Cookie`.
    pub fn inserts(self, served_by: usize) -> bool {
        self != Self::Use(served_by)
    }
}

impl ServerCookie {
    /// The cookies of these members, numbered in this order.
    pub fn new(members: impl IntoIterator<Item = MemberId>) -> Self {
        let mut members: Box<[_]> = members.into_iter().zip(0..).collect();
        members.sort_unstable();
        Self { members }
    }

    /// Judges a request by its `Cookie` headers.
    pub fn judge<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a [u8]>,
        view: &impl MembersView,
    ) -> CookieVerdict {
        let named = |header| cookie_values(header, NAME).filter_map(|value| self.member(value));
        headers
            .into_iter()
            .flat_map(named)
            .find(|&i| view.usable(i))
            .map_or(CookieVerdict::Insert, CookieVerdict::Use)
    }

    /// What `Cookie` headers say that lead to no usable member: `None` when none has the proxy's cookie, else whether it names a
    /// member.
    pub fn known<'a>(&self, headers: impl IntoIterator<Item = &'a [u8]>) -> Option<bool> {
        self.named(headers).map(|member| member.is_some())
    }

    /// `None` when no header has the proxy's cookie, else the first member that one names, usable or not.
    pub fn named<'a>(&self, headers: impl IntoIterator<Item = &'a [u8]>) -> Option<Option<usize>> {
        let values = headers.into_iter().flat_map(|header| cookie_values(header, NAME));
        values.map(|value| self.member(value)).reduce(Option::or)
    }

    /// The member that a cookie's value names, up to a `|`, behind which HAProxy keeps dates when it is told to.
    fn member(&self, value: &[u8]) -> Option<usize> {
        let value = &value[..memchr::memchr(b'|', value).unwrap_or(value.len())];
        // HAProxy compares bytes: only the canonical spelling of an id is one.
        if value.len() != 36 || value.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let id = MemberId(Uuid::try_parse_ascii(value).ok()?);
        let found = self.members.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(self.members[found].1 as usize)
    }
}

/// Whether `nocache` adds `Cache-control: private` to a response into which a cookie is inserted: when a cache might
/// keep it otherwise. `safe` is true for GET, HEAD, OPTIONS and TRACE; `headers` are the response's, names in
/// any case.
///
/// HAProxy decides by method and status, which `Cache-Control: public` overrules, by `Pragma`, of which it reads the first alone, by
/// `Cache-Control`, and by whether there is a validator or a time of expiry (RFC 9111 section 3).
pub fn needs_private<'a>(
    safe: bool,
    status: u16,
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> bool {
    const CACHEABLE: [u16; 11] = [200, 203, 204, 206, 300, 301, 404, 405, 410, 414, 501];
    let mut cacheable = safe && CACHEABLE.contains(&status);
    let (mut fresh_or_validated, mut pragma_seen) = (false, false);
    for (name, value) in headers {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        if is(b"pragma") {
            if !mem::replace(&mut pragma_seen, true) && value.trim_ascii().eq_ignore_ascii_case(b"no-cache") {
                return false;
            }
        } else if is(b"etag") || is(b"last-modified") || is(b"expires") {
            fresh_or_validated = true;
        } else if is(b"cache-control") {
            for directive in directives(value) {
                let starts = |with: &[u8]| {
                    directive.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with))
                };
                let one_of = |all: &[&[u8]]| all.iter().any(|one| directive.eq_ignore_ascii_case(one));
                if one_of(&[b"public"]) {
                    cacheable = true;
                } else if one_of(&[b"private", b"no-cache", b"no-store", b"max-age=0", b"s-maxage=0"]) {
                    cacheable = false;
                } else if starts(b"max-age") || starts(b"s-maxage") {
                    fresh_or_validated = true;
                }
            }
        }
    }
    cacheable && fresh_or_validated && status >= 200
}

/// The directives of a `Cache-Control` field; commas in quotes part none (RFC 9110 section 5.6.4).
fn directives(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = value.split(move |&byte| {
        let was_escaped = mem::take(&mut escaped);
        match byte {
            b'"' if !was_escaped => quoted = !quoted,
            b'\\' if quoted && !was_escaped => escaped = true,
            _ => {}
        }
        byte == b',' && !quoted
    });
    parts.map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct View([bool; 3]);

    impl MembersView for View {
        fn len(&self) -> usize {
            3
        }
        fn id(&self, i: usize) -> MemberId {
            id(i)
        }
        fn weight(&self, _: usize) -> u16 {
            0
        }
        fn backup(&self, _: usize) -> bool {
            true
        }
        fn usable(&self, i: usize) -> bool {
            self.0[i]
        }
        fn load(&self, _: usize) -> u32 {
            0
        }
        fn epoch(&self) -> u64 {
            0
        }
    }

    fn id(i: usize) -> MemberId {
        // Descending, so that the order of ids is not that of members.
        MemberId(Uuid::from_u128(0xabcd_0000 - i as u128))
    }

    fn judge(header: &str, usable: [bool; 3]) -> CookieVerdict {
        let header = header.replace("$0", &id(0).to_string()).replace("$1", &id(1).to_string());
        ServerCookie::new((0..3).map(id)).judge([&b"x=1"[..], header.as_bytes()], &View(usable))
    }

    #[test]
    fn a_cookie_is_followed_where_its_member_is_usable() {
        let up = [true; 3];
        assert_eq!(judge("SRV=$1", up), CookieVerdict::Use(1));
        assert_eq!(judge("a=b; SRV=$0; c=d", up), CookieVerdict::Use(0));
        assert_eq!(judge("SRV=$1", [true, false, true]), CookieVerdict::Insert);
        assert_eq!(judge("SRV=$1; SRV=$0", [true, false, true]), CookieVerdict::Use(0));
        assert_eq!(judge("SRV=$0; SRV=$1", up), CookieVerdict::Use(0));
        assert_eq!(judge("SRV=zz; SRV=$1", up), CookieVerdict::Use(1));
        assert_eq!(judge("SRV=$1|abc", up), CookieVerdict::Use(1));
        assert_eq!(judge("x\"; SRV=$1; y\"", up), CookieVerdict::Use(1));
        for bad in ["", "SRV=", "SRV=\"$1\"", "srv=$1", "SRV=$1x", "SRV=x$1"] {
            assert_eq!(judge(bad, up), CookieVerdict::Insert, "{bad}");
        }
        let id = id(1).0;
        let spellings = [
            id.simple().to_string(),
            id.urn().to_string(),
            id.braced().to_string(),
            id.to_string().to_uppercase(),
        ];
        for other in spellings {
            assert_eq!(judge(&format!("SRV={other}"), up), CookieVerdict::Insert, "{other}");
        }
    }

    #[test]
    fn a_cookie_is_inserted_unless_its_member_answered() {
        assert!(!CookieVerdict::Use(1).inserts(1));
        assert!(CookieVerdict::Use(1).inserts(2));
        assert!(CookieVerdict::Insert.inserts(0));
    }

    #[test]
    fn private_is_added_where_haproxy_adds_it() {
        let ask = |method, status, headers: &[(&'static str, &'static str)]| {
            needs_private(method, status, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())))
        };
        let etag = ("ETag", "x");
        for headers in [
            &[etag][..],
            &[("Last-Modified", "x")],
            &[("Expires", "x")],
            &[("Cache-Control", "max-age=5")],
            &[("cache-control", "S-MaxAge=5")],
            &[("Cache-Control", "x, s-maxage=5")],
            &[("Pragma", "x"), etag],
            &[("X-Pragma", "no-cache"), etag],
            &[("Cache-Control", "no-cache=\"set-cookie\""), etag],
            &[etag, ("Vary", "x")],
            &[("Cache-Control", "private=\"x\""), etag],
            &[("Cache-Control", "private=\"a, private\", max-age=5")],
            &[("Cache-Control", "no-cache=\"a\\\", no-store\", max-age=5")],
            &[("Cache-Control", "\"a, no-store"), etag],
            &[("Cache-Control", "a\\\", no-store"), etag],
            &[("Cache-Control", "no-cache=\"a, public\", max-age=5")],
            &[("Pragma", "x"), ("Pragma", "no-cache"), etag],
            &[("Pragma", "no-cache, x"), etag],
            &[("ETag", "")],
        ] {
            assert!(ask(true, 200, headers), "{headers:?}");
            assert!(!ask(false, 200, headers) && !ask(true, 302, headers), "{headers:?}");
        }
        // What is public is kept whatever the method and the status.
        for headers in [
            &[("Cache-Control", "public"), etag][..],
            &[("Cache-Control", "Public, max-age=60")],
            &[("Cache-Control", "private, public"), etag],
            &[("Cache-Control", "max-age=0, public"), etag],
            &[("Cache-Control", "no-store"), ("Cache-Control", "public"), etag],
        ] {
            for (safe, status) in [(true, 200), (false, 200), (true, 302), (false, 503)] {
                assert!(ask(safe, status, headers), "{headers:?} {status}");
            }
            assert!(!ask(true, 101, headers), "{headers:?}");
        }
        for headers in [
            &[][..],
            &[("Cache-Control", "public")],
            &[("Cache-Control", "max-age=0")],
            &[("Cache-Control", "x=max-age=5")],
            &[("Cache-Control", "s-maxage=0"), etag],
            &[("X-Cache-Control", "max-age=5")],
            &[("PRAGMA", " No-Cache "), etag],
            &[("Cache-Control", "private"), etag],
            &[("Cache-Control", "no-cache"), etag],
            &[("Cache-Control", "No-Store"), etag],
            &[("Pragma", "no-cache"), etag],
            &[("Pragma", "no-cache"), ("Pragma", "x"), etag],
            &[("Cache-Control", "public, private"), etag],
            &[("Cache-Control", "public, max-age=0"), etag],
            &[("Cache-Control", "max-age=0, s-maxage=5")],
            &[("Cache-Control", "public"), ("Cache-Control", "no-store"), etag],
            &[("Cache-Control", "public"), ("Pragma", "no-cache"), etag],
        ] {
            assert!(!ask(true, 200, headers), "{headers:?}");
        }
        assert!(ask(true, 404, &[etag]) && ask(true, 204, &[etag]));
        assert!(!ask(true, 500, &[etag]) && !ask(true, 302, &[etag]) && !ask(false, 200, &[etag]));
    }
}
