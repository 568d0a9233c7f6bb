//! Where requests go beyond Octavia's words.

use super::Generator;
use crate::{
    Answer, Edits, FieldEdit, FieldOp, PathEdit, Pool, PoolCookie, PoolId, PoolProtocol, PoolShare,
    RequestIdField, Routing, Template, Traceparent, WeightedPools,
};

impl Generator {
    /// Of a listener, which is of `http` or not, and can send to these pools.
    pub(super) fn routing(&mut self, http: bool, reachable: &[PoolId], pools: &[Pool]) -> Routing {
        let speaks_http =
            |id: &PoolId| pools.iter().any(|pool| pool.id == *id && pool.protocol == PoolProtocol::Http);
        let alike: Vec<PoolId> = match reachable.first() {
            Some(first) if !http => {
                let first = speaks_http(first);
                reachable.iter().copied().filter(|id| speaks_http(id) == first).collect()
            }
            _ => reachable.to_vec(),
        };
        let pools = if self.one_in(2) { self.weighted_pools(http, &alike) } else { None };
        if !http {
            return Routing { pools, ..Routing::default() };
        }
        let request_id = self.some(|g| RequestIdField {
            field: g.pick(&[RequestIdField::DEFAULT, "x-id"]).to_owned(),
            keep: g.one_in(2),
        });
        Routing { pools, request_id, traceparent: self.pick(&[Traceparent::Pass, Traceparent::Begin]) }
    }

    /// Some of these pools, if there are two.
    pub(super) fn weighted_pools(&mut self, http: bool, pools: &[PoolId]) -> Option<WeightedPools> {
        let mut shares: Vec<PoolShare> = Vec::new();
        for pool in pools.iter().take(WeightedPools::MOST) {
            let weight = self.within(0..=usize::from(WeightedPools::MAX_WEIGHT)) as u16;
            shares.push(PoolShare { pool: *pool, weight });
        }
        let first = shares.first_mut()?;
        first.weight = first.weight.max(1);
        let cookie = |g: &mut Self| PoolCookie {
            name: g.pick(&["pool", "x-pool"]).to_owned(),
            max_age: g.some(|g| g.within(1..=86_400) as u32),
        };
        let cookie = if http { self.some(cookie) } else { None };
        (shares.len() > 1).then_some(WeightedPools { shares, cookie })
    }

    fn template(&mut self, of_response: bool) -> Template {
        let value = match of_response {
            true => self.pick(&["", "${member_address}:${member_port}", "a b"]),
            false => self.pick(&["x", "${client_address}", "${host}${path} ${request_id}", "a\tb"]),
        };
        Template::parse(value).unwrap_or_else(|reason| unreachable!("{reason}"))
    }

    fn field_edit(&mut self, of_response: bool) -> FieldEdit {
        let op = match self.within(0..=2) {
            0 => FieldOp::Set(self.template(of_response)),
            1 => FieldOp::Add(self.template(of_response)),
            _ => FieldOp::Remove,
        };
        FieldEdit { name: self.pick(&["X-One", "x-two", "Cookie", "Server", "Accept"]).to_owned(), op }
    }

    /// Edits of a policy.
    pub fn edits(&mut self) -> Edits {
        let request = self.list(&(0..=3), |g| g.field_edit(false));
        let response = self.list(&(0..=3), |g| g.field_edit(true));
        let path = match self.within(0..=3) {
            0 => Some(PathEdit::Prefix {
                prefix: "/a".into(),
                replacement: self.pick(&["", "/", "/b/c"]).into(),
            }),
            1 => Some(PathEdit::Regex { regex: "^/([a-z]+)(.*)$".into(), replacement: "/x\\2/\\1".into() }),
            _ => None,
        };
        let host = self.some(|g| g.pick(&["inner.example.com", "[2001:db8::1]:8080", "a:1"]).to_owned());
        let edits = Edits { request, response, path, host };
        match edits.is_empty() {
            true => Edits { host: Some("a".into()), ..edits },
            false => edits,
        }
    }

    /// An answer of a policy.
    pub fn answer(&mut self) -> Answer {
        let status = self.pick(&[200, 204, 304, 418, 503]);
        Answer {
            status,
            content_type: self.some(|_| "text/plain; charset=utf-8".to_owned()),
            body: if Answer::is_without_body(status) { String::new() } else { self.name() },
            fields: self.list(&(0..=2), |g| (g.pick(&["X-Why", "Location"]).to_owned(), g.template(false))),
        }
    }
}
