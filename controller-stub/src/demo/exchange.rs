//! One request of the demo's clients, and whether its answer is the one that it has to get. No I/O.

use std::fmt;

use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode, header};

use super::{
    HEADER_MEMBER, HEADER_POOL, HEADER_TLS,
    document::{API, DOCS_PREFIX, OLD_CODE, OLD_REDIRECT, VAULT, WEB},
    member,
};

/// The name of the cookie of Octavia's HTTP_COOKIE persistence.
const COOKIE: &str = "SRV";

/// What a request is for. Each has one right answer, whatever is being changed meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A page of the default pool.
    Page,
    /// The same, without its body.
    Head,
    /// A body that is sent, and comes back: the default pool.
    Upload,
    /// Policy REDIRECT_TO_POOL.
    Api,
    /// Policy REDIRECT_TO_POOL, to the pool whose members speak TLS.
    Vault,
    /// Policy REJECT.
    Rejected,
    /// Policy REDIRECT_TO_URL.
    Moved,
    /// Policy REDIRECT_PREFIX.
    Docs,
}

impl Kind {
    /// What is asked for in turn. Most of it is pages, as in life.
    pub(super) const MIX: [Self; 13] = [
        Self::Page,
        Self::Api,
        Self::Page,
        Self::Upload,
        Self::Page,
        Self::Vault,
        Self::Rejected,
        Self::Api,
        Self::Page,
        Self::Moved,
        Self::Head,
        Self::Docs,
        Self::Page,
    ];

    /// All kinds.
    pub(super) const ALL: [Self; 8] = [
        Self::Page,
        Self::Head,
        Self::Upload,
        Self::Api,
        Self::Vault,
        Self::Rejected,
        Self::Moved,
        Self::Docs,
    ];

    /// The pool that has to answer; `None` when the proxy itself does.
    fn pool(self) -> Option<&'static str> {
        match self {
            Self::Page | Self::Head | Self::Upload => Some(WEB.0),
            Self::Api => Some(API.0),
            Self::Vault => Some(VAULT.0),
            Self::Rejected | Self::Moved | Self::Docs => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Page => "GET /page",
            Self::Head => "HEAD /page",
            Self::Upload => "POST /upload",
            Self::Api => "GET /api/",
            Self::Vault => "GET /vault/",
            Self::Rejected => "GET /admin",
            Self::Moved => "GET /old",
            Self::Docs => "GET /docs",
        })
    }
}

/// A request as the client sends it.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) body: Bytes,
    /// The client's cookie, when it keeps one and has one.
    pub(super) session: Option<Session>,
}

/// A client's persistent session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// `SRV=value`, as it is sent back.
    pub(super) cookie: String,
    /// The member that answered when it was set.
    pub(super) member: String,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The answer that it had to get.
    Right {
        /// Who answered; `None` when the proxy itself did.
        member: Option<String>,
        /// The request had a cookie, and the cookie's member answered.
        persistent: bool,
        /// The request had a cookie, and another member answered.
        moved: bool,
    },
    /// Another answer.
    Wrong(String),
    /// None, or half of one.
    Lost(String),
}

impl Ask {
    /// The `n`th request of a client. `n` goes into the target, so that no answer passes for that to another request.
    pub(super) fn new(kind: Kind, n: u64, session: Option<Session>) -> Self {
        let (method, target) = match kind {
            Kind::Page => (Method::GET, format!("/page?n={n}")),
            Kind::Head => (Method::HEAD, format!("/page?n={n}")),
            Kind::Upload => (Method::POST, format!("/upload?n={n}")),
            Kind::Api => (Method::GET, format!("/api/items/{n}")),
            Kind::Vault => (Method::GET, format!("/vault/{n}")),
            Kind::Rejected => (Method::GET, format!("/admin/{n}")),
            Kind::Moved => (Method::GET, format!("/old?n={n}")),
            Kind::Docs => (Method::GET, format!("/docs/{n}?x=y")),
        };
        let body = match kind {
            Kind::Upload => Bytes::from(format!("{n} ").repeat(1 + (n % 500) as usize)),
            _ => Bytes::new(),
        };
        Self { kind, method, target, body, session }
    }

    /// Judges a complete answer.
    pub(super) fn judge(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
        match self.fault(status, headers, body) {
            Some(fault) => Verdict::Wrong(fault),
            None => {
                let member = text(headers, HEADER_MEMBER).map(str::to_owned);
                // Only the default pool has persistence.
                let kept = self.session.as_ref().filter(|_| self.kind.pool() == Some(WEB.0));
                let same = kept.map(|session| Some(&session.member) == member.as_ref());
                Verdict::Right { member, persistent: same == Some(true), moved: same == Some(false) }
            }
        }
    }

    fn fault(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let (code, location) = match self.kind {
            Kind::Rejected => (StatusCode::FORBIDDEN.as_u16(), None),
            Kind::Moved => (OLD_CODE, Some(OLD_REDIRECT.to_owned())),
            Kind::Docs => (StatusCode::FOUND.as_u16(), Some(format!("{DOCS_PREFIX}{}", self.target))),
            _ => (StatusCode::OK.as_u16(), None),
        };
        if status.as_u16() != code {
            return Some(format!("status {status}, expected {code}"));
        }
        let found = text(headers, header::LOCATION.as_str());
        if found != location.as_deref() {
            return Some(format!("Location {found:?}, expected {location:?}"));
        }
        let pool = text(headers, HEADER_POOL);
        if pool != self.kind.pool() {
            return Some(format!("answered by pool {pool:?}, expected {:?}", self.kind.pool()));
        }
        let pool = pool?;
        let tls = text(headers, HEADER_TLS);
        if tls.is_some() != (self.kind == Kind::Vault) {
            return Some(format!("the member of {pool} was spoken to with {}", tls.unwrap_or("no TLS")));
        }
        let Some(name) = text(headers, HEADER_MEMBER) else { return Some("from nobody".to_owned()) };
        let mut expected = member::line(name, pool, self.method.as_str(), &self.target).into_bytes();
        expected.extend_from_slice(&self.body);
        if self.kind == Kind::Head {
            expected.clear();
        }
        (body != expected)
            .then(|| format!("a body of {} bytes that is not the one of {}", body.len(), expected.len()))
    }
}

/// The session that an answer sets.
pub(super) fn session(headers: &HeaderMap) -> Option<Session> {
    let cookie = headers.get_all(header::SET_COOKIE).iter().find_map(|value| {
        let pair = value.to_str().ok()?.split(';').next()?.trim();
        pair.strip_prefix(COOKIE)?.starts_with('=').then(|| pair.to_owned())
    })?;
    Some(Session { cookie, member: text(headers, HEADER_MEMBER)?.to_owned() })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn page(session: Option<Session>) -> (Ask, Vec<u8>) {
        let ask = Ask::new(Kind::Page, 7, session);
        (ask, b"web-1 of web heard GET /page?n=7\n".to_vec())
    }

    #[test]
    fn only_the_one_answer_is_right() {
        let (ask, body) = page(None);
        let good = headers(&[(HEADER_MEMBER, "web-1"), (HEADER_POOL, "web")]);
        let right = Verdict::Right { member: Some("web-1".into()), persistent: false, moved: false };
        assert_eq!(ask.judge(StatusCode::OK, &good, &body), right);
        let wrong = |status, headers: &HeaderMap, body: &[u8]| match ask.judge(status, headers, body) {
            Verdict::Wrong(what) => what,
            other => panic!("{other:?}"),
        };
        assert!(wrong(StatusCode::BAD_GATEWAY, &good, &body).contains("502"));
        assert!(wrong(StatusCode::OK, &good, b"web-1 of web heard GET /page?n=8\n").contains("body"));
        assert!(wrong(StatusCode::OK, &good, &body[1..]).contains("body"));
        let other = headers(&[(HEADER_MEMBER, "api-1"), (HEADER_POOL, "api")]);
        assert!(wrong(StatusCode::OK, &other, &body).contains("api"));
        assert!(wrong(StatusCode::OK, &HeaderMap::new(), &body).contains("None"));
    }

    #[test]
    fn policies_have_their_own_answers() {
        let judge = |kind, status: u16, location: Option<&str>| {
            let headers = location.map(|l| headers(&[("location", l)])).unwrap_or_default();
            let verdict =
                Ask::new(kind, 3, None).judge(StatusCode::from_u16(status).unwrap(), &headers, b"anything");
            matches!(verdict, Verdict::Right { member: None, .. })
        };
        assert!(judge(Kind::Rejected, 403, None) && !judge(Kind::Rejected, 200, None));
        assert!(judge(Kind::Moved, 301, Some(OLD_REDIRECT)) && !judge(Kind::Moved, 302, Some(OLD_REDIRECT)));
        assert!(judge(Kind::Docs, 302, Some("https://docs.example.com/docs/3?x=y")));
        assert!(!judge(Kind::Docs, 302, Some("https://docs.example.com/docs/4?x=y")));
    }

    #[test]
    fn a_session_stays_or_moves() {
        let answer = headers(&[
            (HEADER_MEMBER, "web-1"),
            (HEADER_POOL, "web"),
            ("set-cookie", "other=1"),
            ("set-cookie", "SRV=abc; path=/"),
        ]);
        let own = session(&answer).unwrap();
        assert_eq!(own, Session { cookie: "SRV=abc".into(), member: "web-1".into() });
        let (ask, body) = page(Some(own.clone()));
        assert!(matches!(
            ask.judge(StatusCode::OK, &answer, &body),
            Verdict::Right { persistent: true, moved: false, .. }
        ));
        let (ask, body) = page(Some(Session { member: "web-2".into(), ..own }));
        assert!(matches!(
            ask.judge(StatusCode::OK, &answer, &body),
            Verdict::Right { persistent: false, moved: true, .. }
        ));
        assert_eq!(session(&headers(&[("set-cookie", "SRVX=abc")])), None);
    }
}
