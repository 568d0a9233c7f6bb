//! Session persistence of HTTP requests: which member a client belongs to, and what it is told to remember.

use std::net::IpAddr;

use crate::{
    http::{Known, RequestView, ResponseEdits, ResponseView},
    persist::{CookieVerdict, Persistence, app_cookie, server_cookie},
    snapshot::PoolPlan,
};

/// What persistence says of a request before a member is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Affinity {
    member: Option<usize>,
}

impl Affinity {
    /// Looks for the member that the client belongs to. One that is down or disabled counts for nothing; one
    /// that drains still serves its own. `now` is in seconds since the process started.
    pub(super) fn find(pool: &PoolPlan, request: &RequestView<'_>, client: IpAddr, now: u32) -> Self {
        let cookies = || {
            let fields = request.fields().filter(|(_, _, known)| *known == Known::Cookie);
            fields.map(|(_, value, _)| value)
        };
        let member = match &pool.persistence {
            None | Some(Persistence::Network(_)) => None,
            Some(Persistence::Source(stick)) => stick.find(stick.state().source_key(client), pool, now),
            Some(Persistence::AppCookie { name, stick }) => {
                app_cookie::of_request(cookies(), name.as_bytes())
                    .and_then(|value| stick.find(stick.state().cookie_key(value), pool, now))
            }
            Some(Persistence::ServerCookie(servers)) => match servers.judge(cookies(), pool) {
                CookieVerdict::Use(member) => Some(member),
                CookieVerdict::Insert => None,
            },
        };
        Self { member }
    }

    /// The member that the client belongs to.
    pub(super) fn member(&self) -> Option<usize> {
        self.member
    }

    /// The request was given to `member`.
    pub(super) fn remember(&self, pool: &PoolPlan, member: usize, client: IpAddr, now: u32) {
        if let Some(Persistence::Source(stick)) = &pool.persistence {
            stick.store(stick.state().source_key(client), member, now);
        }
    }

    /// The member has answered: it may have set the application's cookie.
    pub(super) fn learn(&self, pool: &PoolPlan, member: usize, response: &ResponseView<'_>, now: u32) {
        if let Some(Persistence::AppCookie { name, stick }) = &pool.persistence
            && response.has(Known::SetCookie)
        {
            let fields = response.fields().filter(|(_, _, known)| *known == Known::SetCookie);
            let value = app_cookie::of_response(fields.map(|(_, value, _)| value), name.as_bytes());
            if let Some(value) = value {
                stick.store(stick.state().cookie_key(value), member, now);
            }
        }
    }

    /// What a response is to tell the client to remember: the cookie of the member that served it, unless it sent
    /// just that. `safe` is whether the request's method is.
    pub(super) fn edit<'a>(
        &self,
        pool: &'a PoolPlan,
        member: usize,
        response: &ResponseView<'_>,
        safe: bool,
    ) -> ResponseEdits<'a> {
        let Some(Persistence::ServerCookie(_)) = pool.persistence else { return ResponseEdits::default() };
        let insert = self.member != Some(member);
        let fields = response.fields().map(|(name, value, _)| (name, value));
        ResponseEdits {
            strip_cookie: Some(server_cookie::NAME),
            insert_cookie: insert.then(|| (server_cookie::NAME, &pool.members[member].state.id_text[..])),
            private: insert && server_cookie::needs_private(safe, response.status(), fields),
            ..ResponseEdits::default()
        }
    }
}
