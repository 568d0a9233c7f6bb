//! L7 policies, compiled once per snapshot and evaluated for every request.
//!
//! [`L7Program::compile`] turns a listener's policies into an immutable program; [`L7Program::evaluate`] says what
//! happens to a request. The semantics are those that HAProxy gives to Octavia's rendering of the same policies:
//! REJECT (`http-request deny`) first, then redirects, then REDIRECT_TO_POOL (`use_backend`), each in the order of
//! `position`; a policy applies when all of its rules hold. Policies of our own that answer stand with REJECT; those that
//! change a request end nothing, and all that apply do so. A differential test holds this module against HAProxy.
//!
//! A request is anything that is [`RequestFacts`]. Evaluation copies and allocates nothing once its [`Scratch`]
//! has grown to the size of the program.

mod budget;
mod edits;
mod facts;
mod index;
mod matcher;
mod program;
mod regex;
mod samples;

#[cfg(test)]
mod tests;

pub use self::{
    budget::{Budget, Expressions, MAX_EXPRESSION_BYTES},
    edits::{Answer, Edits, Facts, LateEdits},
    program::{L7Program, Verdict, rewritten_path},
    samples::Scratch,
};

use amphora_model::{PoolId, RedirectCode};

/// L7 policies that one listener may have; Octavia has no limit.
pub const MAX_POLICIES: usize = 4096;

/// Enabled rules that one policy may have, Octavia's `MAX_L7RULES_PER_L7POLICY`.
pub const MAX_RULES_PER_POLICY: usize = 50;

/// Edits of fields that the policies of one listener may have, requests' and responses' together.
pub const MAX_EDITS: usize = 256;

/// Bytes in a rule's `value` or `key`: Octavia's 255 characters in UTF-8.
pub const MAX_VALUE_LENGTH: usize = 1020;

/// What rules look at in a request: its target and its header fields, as they were received.
pub trait RequestFacts {
    /// The path of the request's target with its query, which is all from the `/` of an origin-form and all after the
    /// authority of an absolute-form. Empty when the target has none (`*`, an authority-form, `http://host`): then no
    /// rule on the path matches.
    fn path_and_query(&self) -> &[u8];

    /// The host that the target itself names, where HAProxy compares and forwards that one instead of the value of
    /// `Host`: see [`normalized_host`], which says so for a raw target. Without `Host`, what [`target_host`] says.
    fn normalized_host(&self) -> Option<&[u8]> {
        None
    }

    /// How many header fields there are.
    fn header_count(&self) -> usize;

    /// Name and value of a header field, for `index` below [`header_count`](Self::header_count). The name's case
    /// does not matter; white space around the value may or may not have been removed.
    fn header(&self, index: usize) -> (&[u8], &[u8]);
}

/// The host of an absolute-form request target whose port is its scheme's default, without that port.
///
/// HAProxy normalizes such a target by the rules of its scheme (RFC 3986 section 6.2.3) and replaces the value of
/// `Host` by the result. For all other targets the answer is `None` and `Host` stays what it is.
pub fn normalized_host(target: &[u8]) -> Option<&[u8]> {
    let (scheme, authority) = authority(target)?;
    let port: &[u8] = match scheme {
        scheme if scheme.eq_ignore_ascii_case(b"http") => b":80",
        scheme if scheme.eq_ignore_ascii_case(b"https") => b":443",
        _ => return None,
    };
    authority.strip_suffix(port).or_else(|| authority.strip_suffix(b":"))
}

/// The host of an absolute-form request target, without a port that is its scheme's default.
///
/// What HTTP/1.0 without `Host` asks for: members take it from there (RFC 9112 section 3.2.2), and so do rules. HAProxy
/// shows its rules no host then.
pub fn target_host(target: &[u8]) -> Option<&[u8]> {
    normalized_host(target).or_else(|| authority(target).map(|(_, authority)| authority))
}

/// Scheme and authority of an absolute-form target.
fn authority(target: &[u8]) -> Option<(&[u8], &[u8])> {
    if target.first() == Some(&b'/') {
        return None;
    }
    let (scheme, rest) = target.split_at(target.iter().position(|b| *b == b':')?);
    let rest = rest.strip_prefix(b"://")?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    Some((scheme, &rest[..end]))
}

/// What a listener's policies say about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'p> {
    /// No policy applies: the listener's default pool serves the request, or 503 does.
    Pass,
    /// 403.
    Reject,
    /// An answer of the policy's own.
    Answer(&'p Answer),
    /// A redirect.
    Redirect {
        /// The status code.
        code: RedirectCode,
        /// The `Location` field.
        location: Location<'p>,
    },
    /// This pool serves the request. It is one that compilation was told is enabled.
    Pool(PoolId),
    /// One of several pools does: those of the policy that has this place among the listener's.
    Pools(usize),
}

/// The value of a redirect's `Location` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location<'p> {
    /// `redirect_url`, as it is.
    Url(&'p str),
    /// `redirect_prefix`, which the request's own path and query follow.
    Prefix(&'p str),
}

impl<'p> Location<'p> {
    /// The value's two pieces, one after the other, for a request with this [`RequestFacts::path_and_query`].
    ///
    /// A request without a path counts as one for `/`.
    pub fn pieces<'r>(self, path_and_query: &'r [u8]) -> [&'r [u8]; 2]
    where
        'p: 'r,
    {
        match self {
            Self::Url(url) => [url.as_bytes(), b""],
            Self::Prefix(prefix) if path_and_query.is_empty() => [prefix.as_bytes(), b"/"],
            Self::Prefix(prefix) => [prefix.as_bytes(), path_and_query],
        }
    }
}

/// Whether a rule about the client's certificate holds, for tests that compare it with others' judgement.
#[cfg(test)]
pub(crate) fn holds_over_tls(
    subject: amphora_model::L7Subject,
    compare: amphora_model::CompareType,
    value: &str,
    peer: &crate::tls::PeerFacts,
) -> bool {
    tests::holds_over_tls(subject, compare, value, peer)
}
