//! What a request is known by: its id, and its place in a trace (W3C Trace Context, level 1).

use amphora_model::{Routing, Traceparent};
use uuid::Builder;

use super::{EditList, Known, RequestView, TooLong};

/// The longest id of a client's that is kept.
const MAX_ID: usize = 128;

const TRACEPARENT: &[u8] = b"traceparent";
const TRACESTATE: &[u8] = b"tracestate";

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// What requests of a listener are to be known by.
#[derive(Debug)]
pub struct Identification {
    id: Option<IdField>,
    traces: bool,
}

#[derive(Debug)]
struct IdField {
    /// In lower case.
    name: Box<[u8]>,
    known: Known,
    keep: bool,
}

/// Bytes that nobody can know: for an id, a trace and a span.
pub type Entropy = [u8; 40];

/// What one request is known by.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    /// Its id; empty where there is none.
    pub request: Box<[u8]>,
    /// Its `traceparent`; empty where that is not asked for.
    pub traceparent: Box<[u8]>,
    /// The id is the client's.
    kept: bool,
    /// The trace is the client's.
    continues: bool,
}

impl Identification {
    /// `None` when nothing is asked for.
    pub fn new(routing: &Routing) -> Option<Box<Self>> {
        let id = routing.request_id.as_ref().map(|id| {
            let name: Box<[u8]> = id.field.to_ascii_lowercase().into_bytes().into();
            IdField { known: Known::of(&name), name, keep: id.keep }
        });
        let traces = routing.traceparent == Traceparent::Begin;
        (id.is_some() || traces).then(|| Box::new(Self { id, traces }))
    }

    /// What this request is known by.
    pub fn identify(&self, view: &RequestView<'_>, entropy: &Entropy) -> Ids {
        let mut ids = Ids::default();
        let (id, trace) = entropy.split_at(16);
        if let Some(field) = &self.id {
            let kept = only(view.values(&field.name)).filter(|id| field.keep && may_be_kept(id));
            ids.kept = kept.is_some();
            ids.request = match kept {
                Some(id) => id.into(),
                None => {
                    let mut bytes = [0; 16];
                    bytes.copy_from_slice(id);
                    let uuid = Builder::from_random_bytes(bytes).into_uuid();
                    uuid.to_string().into_bytes().into()
                }
            };
        }
        if self.traces {
            let client = only(view.values(TRACEPARENT)).filter(|value| is_traceparent(value));
            ids.continues = client.is_some();
            ids.traceparent = client.map_or_else(|| begun(trace), Into::into);
        }
        ids
    }

    /// The fields that members are told them in.
    ///
    /// # Errors
    /// See [`EditList::add`].
    pub fn fields<'a>(&'a self, ids: &Ids, list: &mut EditList<'a>) -> Result<(), TooLong> {
        if let Some(IdField { name, known, .. }) = self.id.as_ref().filter(|_| !ids.kept) {
            list.add(name, *known, true, |out| {
                out.extend_from_slice(&ids.request);
                Ok(())
            })?;
        }
        if self.traces && !ids.continues {
            list.add(TRACEPARENT, Known::Other, true, |out| {
                out.extend_from_slice(&ids.traceparent);
                Ok(())
            })?;
            // It is of the trace that there was, if there was any (section 3.3).
            list.remove(TRACESTATE, Known::Other);
        }
        Ok(())
    }
}

/// The value, if there is one and no other.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Whether a client's id may go on as it is, into logs, too.
fn may_be_kept(id: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~:+/=@".contains(b);
    (1..=MAX_ID).contains(&id.len()) && id.iter().all(plain)
}

/// Whether this is a `traceparent` of version 00, or of a later one that begins like it (section 3.2.4).
fn is_traceparent(value: &[u8]) -> bool {
    let hex = |text: &[u8]| text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let nothing = |text: &[u8]| text.iter().all(|b| *b == b'0');
    let Some((known, behind)) = value.split_at_checked(LENGTH) else { return false };
    let (version, trace, span, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    let ends = behind.is_empty() || version != b"00" && behind[0] == b'-';
    // What is not printed here is no field of a request.
    dashes
        && ends
        && version != b"ff"
        && [version, trace, span, flags].iter().all(|part| hex(part))
        && !nothing(trace)
        && !nothing(span)
        && value.len() <= MAX_ID
}

/// A trace that begins here, and is to be recorded.
fn begun(entropy: &[u8]) -> Box<[u8]> {
    let mut text = b"00-".to_vec();
    for (at, byte) in entropy.iter().take(24).enumerate() {
        if at == 16 {
            text.push(b'-');
        }
        // Neither of the two may be nothing.
        let byte = if at == 0 || at == 16 { byte | 1 } else { *byte };
        text.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    text.extend_from_slice(b"-01");
    text.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use amphora_model::RequestIdField;

    use super::*;
    use crate::http::RequestHead;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// What a member is told of a request with these fields, and what logs are.
    fn told(keep: bool, fields: &str) -> (Vec<(String, String)>, bool, String, String) {
        let routing = Routing {
            request_id: Some(RequestIdField { field: "X-Request-ID".into(), keep }),
            traceparent: Traceparent::Begin,
            ..Routing::default()
        };
        let identification = Identification::new(&routing).unwrap();
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        head.parse(text.as_bytes()).unwrap().unwrap();
        let ids = identification.identify(&head.view(text.as_bytes()), &[0xab; 40]);
        let mut list = EditList::default();
        identification.fields(&ids, &mut list).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let added = list.edits().added().map(|(name, value)| (text(name), text(value))).collect();
        (added, list.edits().removes(TRACESTATE, Known::Other), text(&ids.request), text(&ids.traceparent))
    }

    #[test]
    fn what_is_not_there_is_made() {
        let (added, _, id, trace) = told(false, "");
        assert_eq!(id, "abababab-abab-4bab-abab-abababababab");
        let expected = format!("00-{}-{}-01", "ab".repeat(16), "ab".repeat(8));
        assert_eq!(trace, expected);
        let expected = [("x-request-id".to_owned(), id), ("traceparent".to_owned(), expected)];
        assert_eq!(added, expected);
        assert!(is_traceparent(&begun(&[0; 24])));
        assert!(Identification::new(&Routing::default()).is_none());
    }

    #[test]
    fn a_clients_id_is_kept_where_it_may_be() {
        let fields = |id: &str| format!("X-Request-ID: {id}\r\ntraceparent: {TRACE}\r\ntracestate: a=b\r\n");
        assert_eq!(told(true, &fields("abc-1")), (vec![], false, "abc-1".into(), TRACE.into()));
        let longest = "x".repeat(128);
        assert_eq!(told(true, &fields(&longest)).2, longest);
        for (keep, id) in
            [(false, "abc-1"), (true, ""), (true, "a b"), (true, "a\""), (true, &*"x".repeat(129))]
        {
            let (added, ..) = told(keep, &fields(id));
            assert_eq!(added.len(), 1, "{id}");
            assert_eq!(added[0].0, "x-request-id");
        }
        assert_eq!(told(true, &format!("{}{}", fields("a"), fields("b"))).0.len(), 2);
    }

    #[test]
    fn a_trace_that_is_none_begins_anew() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (value, valid) in [
            (TRACE.to_owned(), true),
            (format!("00-{trace}-{span}-00"), true),
            (format!("01-{trace}-{span}-00"), true),
            (format!("01-{trace}-{span}-00-more"), true),
            (format!("01-{trace}-{span}-00more"), false),
            (format!("00-{trace}-{span}-00-more"), false),
            (format!("ff-{trace}-{span}-00"), false),
            (format!("00-{}-{span}-00", trace.to_uppercase()), false),
            (format!("00-{}-{span}-00", "0".repeat(32)), false),
            (format!("00-{trace}-{}-00", "0".repeat(16)), false),
            (format!("00-{trace}-{span}-0g"), false),
            (format!("00-{trace}-{span}"), false),
            (format!("00_{trace}-{span}-00"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_traceparent(value.as_bytes()), valid, "{value}");
            let (added, forgets, _, now) = told(false, &format!("traceparent: {value}\r\n"));
            assert_eq!(
                (added.len(), forgets, now == value),
                (if valid { 1 } else { 2 }, !valid, valid),
                "{value}"
            );
        }
    }
}
