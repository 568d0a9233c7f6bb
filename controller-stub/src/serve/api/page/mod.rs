//! The page for persons at `/`: read-only, of one HTML, one CSS and one JavaScript file that are a part of this program.
//!
//! What it shows of tenants comes as JSON and gets into the document as text alone; the policy of its contents lets nothing of elsewhere in.

mod masters;
mod tree;

use std::{collections::BTreeSet, time::Instant};

use hyper::{HeaderMap, header::ACCEPT};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use uuid::Uuid;

pub(super) use self::{masters::masters, tree::tree};
use super::{
    fault::Fault,
    reply::Reply,
    request::{Answer, Query},
    resources,
};
use crate::serve::{
    config::AuthStrategy,
    health_manager::traffic::{Sample, Traffic},
    policies::{Context, Rule},
};

/// The document, as it is called behind `/page/`.
pub(super) const INDEX: &str = "index.html";

/// The load balancers and all that is theirs.
pub(super) const TREE: &str = "tree";

/// Who of the amphorae of a load balancer is master.
pub(super) const MASTERS: &str = "masters";

/// The traffic of the last minutes.
pub(super) const RATES: &str = "rates";

/// Where the document says how one signs in.
const AUTH: &str = "data-auth=\"\"";

/// Nothing but the page's own files and this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Whether a client would rather have a document for persons than JSON: as a browser, and not as one that takes anything.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let quality = |kind: &str| {
        let ranges = accept.iter().flat_map(|value| value.split(','));
        let ranges = ranges.filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_it = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(kind));
            let quality = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
            is_it.then(|| quality.parse::<f32>().unwrap_or(0.0))
        });
        ranges.fold(0.0, f32::max)
    };
    let html = quality("text/html");
    html > 0.0 && html >= quality("application/json")
}

/// A file of the page.
pub(super) fn file(name: &str, auth: AuthStrategy) -> Option<Reply> {
    let (kind, text) = match name {
        INDEX => {
            let auth = match auth {
                AuthStrategy::NoAuth => "data-auth=\"noauth\"",
                AuthStrategy::Keystone => "data-auth=\"keystone\"",
                AuthStrategy::HttpBasic => "data-auth=\"http_basic\"",
            };
            ("text/html; charset=utf-8", include_str!("index.html").replacen(AUTH, auth, 1).into())
        }
        "style.css" => ("text/css; charset=utf-8", include_str!("style.css").into()),
        "script.js" => ("text/javascript; charset=utf-8", include_str!("script.js").into()),
        "icon.svg" => ("image/svg+xml", include_str!("icon.svg").into()),
        _ => return None,
    };
    let headers = [
        ("cache-control", "no-cache"),
        ("content-security-policy", POLICY),
        ("cross-origin-opener-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("vary", "accept"),
        ("x-content-type-options", "nosniff"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).to_vec();
    Some(Reply::Text { kind, text, headers })
}

/// The traffic of the listeners that somebody sees, of all load balancers together or of one: per second, the oldest span first.
pub(super) fn rates(
    connection: &Connection,
    context: &Context,
    query: &Query,
    traffic: &Traffic,
    now: Instant,
) -> Result<Answer, Fault> {
    query.only(&["project_id", "loadbalancer_id"])?;
    let project = resources::visible(context, query.get("project_id"), Rule::ReadGlobal, Rule::Read)?;
    let mut listeners = connection.prepare_cached(
        "SELECT id FROM listener WHERE (?1 IS NULL OR project_id = ?1) AND (?2 IS NULL OR load_balancer_id = ?2)",
    )?;
    let ids = listeners
        .query_map(params![project, query.get("loadbalancer_id")], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let ids: BTreeSet<Uuid> = ids.iter().filter_map(|id| id.parse().ok()).collect();
    let samples = traffic.of(|id| ids.contains(id), now);
    let seconds = traffic.span().as_secs().max(1);
    let rate = |of: fn(&Sample) -> u64| -> Value {
        #[expect(clippy::cast_precision_loss, reason = "drawn, and not counted")]
        let rates = samples.iter().map(|sample| of(sample) as f64 / seconds as f64);
        rates.map(|rate| (rate * 100.0).round() / 100.0).collect()
    };
    Ok(Answer::new(
        200,
        json!({
            "every_seconds": seconds,
            "spans": crate::serve::health_manager::traffic::KEPT - 1,
            "bytes_in": rate(|sample| sample.bytes_in),
            "bytes_out": rate(|sample| sample.bytes_out),
            "connections": rate(|sample| sample.connections),
            "errors": rate(|sample| sample.errors),
            "open_connections": samples.iter().map(|sample| sample.open).collect::<Value>(),
        }),
    ))
}
