//! haproxy.cfg, as Octavia's templates render it, to the load balancer that it was rendered from.
//!
//! All that the templates of Octavia 12.0.0 to 19.0.0 can write is understood, and nothing else: a keyword, an argument or a value that they do
//! not write is refused with its line. What a statement means to HAProxy is what the load balancer does; mechanics of HAProxy's that have no
//! counterpart here are told as [remarks](Remark). `docs/octavia.md` has every keyword, what rendering loses, and the few places where what a tenant
//! has asked for is taken instead of what HAProxy would make of the text.
//!
//! A text is read line by line: `words` (quoting, HTML escapes), then a statement of its section (`global`, `frontend`, `acl`, `backend`,
//! `server`, `tls`, `exporter`), which goes at once to the draft of that section (`draft`), where what comes twice is refused. At the end of
//! the text drafts become [`LoadBalancer`]s (`listener`, `pool`), which pass through the parser of the native API's documents.
//!
//! No string of a tenant's becomes a statement: lines and words end where the templates end them; statements are in the order in which the
//! templates write them; each rule belongs to the one policy right below it; what comes twice is refused. What is accepted is a text that Octavia
//! writes for a load balancer without such strings.

mod acl;
mod args;
mod backend;
mod check;
mod crt_list;
mod draft;
mod exporter;
mod frontend;
mod fuzz;
mod global;
mod lines;
mod listener;
mod names;
mod pool;
mod server;
mod tls;
mod words;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, net::IpAddr};

use amphora_model::{CertificateId, ListenerId, LoadBalancer, PoolId};

pub use self::{
    fuzz::fuzz,
    global::{Peer, peer_name},
    lines::Lines,
    names::Everything,
    words::MAX_TEXT,
};
pub use super::fault::Fault;

/// What is known beside the text.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// What the text's names stand for.
    pub certificates: &'a dyn Certificates,
    /// The addresses of the load balancer, for a text without a listener, which names none. Otherwise the text's own count.
    pub vips: &'a [IpAddr],
}

/// Files that the controller has sent before: `<directory>/<load balancer>/<name>.pem` in the text.
pub trait Certificates {
    /// Whether there is a certificate, a list of authorities or of revocations of this name, which is the file's without `.pem`.
    fn has(&self, id: &CertificateId) -> bool;

    /// The crt-list of a listener, which has the listener's id for its name.
    fn crt_list(&self, listener: ListenerId) -> Option<Cow<'_, [u8]>>;
}

/// What a text means.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// The load balancer. Names are empty, the health monitor of a pool has the pool's id, and an L7 policy the least of its rules' ids,
    /// for the text has none.
    pub load_balancer: LoadBalancer,
    /// Its backends: each pool with each listener that it comes for, whether anything leads there or not. HAProxy's statistics, and so
    /// heartbeats, tell of all of them.
    pub backends: Vec<(PoolId, ListenerId)>,
    /// Both amphorae of a pair; nobody without one.
    pub peers: Vec<Peer>,
    /// What has no effect, in the order of the text; each reason once.
    pub remarks: Vec<Remark>,
    /// Where it says what.
    pub lines: Lines,
}

/// A statement that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Its line, the first of its kind.
    pub line: usize,
    /// Why.
    pub reason: &'static str,
    /// Whether a tenant has asked for it, so that whoever runs the amphora is to know.
    pub is_asked_for: bool,
}

/// Reads a haproxy.cfg.
///
/// # Errors
/// The first fault, with its line. Those of crt-lists are told at the line that names them.
pub fn translate(text: &[u8], context: &Context<'_>) -> Result<Translated, Fault> {
    if text.len() > MAX_TEXT {
        return Err(Fault::whole(format!("is longer than {MAX_TEXT} bytes")));
    }
    let mut draft = draft::Draft::default();
    for line in words::lines(text) {
        draft.line(&line?)?;
    }
    check::checked(text, draft.finish(context)?)
}
