//! A request without a socket, and its answer.

use bytes::Bytes;
use serde_json::Value;

use super::fault::Fault;
use crate::serve::policies::Context;

/// What a client asks.
#[derive(Debug)]
pub(super) struct Request {
    /// `http://host:port`, as the client has called this server.
    pub(super) base: String,
    /// As the client has written it.
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) content_type: String,
    pub(super) body: Bytes,
    pub(super) context: Context,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Option<Value>,
    /// Further header fields.
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(super) fn new(status: u16, body: Value) -> Self {
        Self { status, body: Some(body), headers: Vec::new() }
    }

    /// An answer without a body.
    pub(super) fn empty(status: u16) -> Self {
        Self { status, body: None, headers: Vec::new() }
    }
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Self {
        Self::new(fault.status, fault.body())
    }
}

impl Request {
    /// The bytes of a body of JSON.
    ///
    /// # Errors
    /// 415 when it is said to be something else.
    pub(super) fn json(&self) -> Result<&[u8], Fault> {
        let kind = self.content_type.split(';').next().unwrap_or_default().trim();
        match kind {
            _ if self.body.is_empty() => Ok(&[]),
            "application/json" | "text/javascript" | "application/javascript" => Ok(&self.body),
            // WSME has read it as parameters, and found none of its own.
            "application/x-www-form-urlencoded" => Ok(&[]),
            _ => Err(Fault::new(415, format!("Unknown mimetype: {kind}"))),
        }
    }

    /// Refuses parameters that are not among these.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Fault> {
        self.query.only(known)
    }
}

/// The parameters of a query, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(pub(super) Vec<(String, String)>);

impl Query {
    /// Reads what stands behind the question mark.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name, true), decode(value, true)))
                .collect(),
        )
    }

    /// Refuses parameters that are not among these.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Fault> {
        let unknown: Vec<_> =
            self.0.iter().map(|(name, _)| name.as_str()).filter(|name| !known.contains(name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Fault::new(400, format!("Unknown argument: \"{}\"", unknown.join(", "))))
    }

    /// The last value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter, and of those the ones between commas.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).flat_map(|(_, value)| value.split(','))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// `strutils.bool_from_string`.
    pub(super) fn is(&self, name: &str) -> bool {
        self.get(name).is_some_and(is_true)
    }
}

/// `strutils.bool_from_string`.
pub(super) fn is_true(text: &str) -> bool {
    matches!(text.trim().to_ascii_lowercase().as_str(), "1" | "t" | "true" | "on" | "y" | "yes")
}

/// Takes percent-encoding away. What is not UTF-8 is replaced.
pub(super) fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        // That takes a sign as well.
        let escaped = escaped.filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match escaped.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(if byte == b'+' && plus_is_space { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Percent-encodes all but what is plain in a query.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b',' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_percent_encoded_is_decoded() {
        for (text, expected) in [
            ("%41%6a", "Aj"),
            ("%+1", "%+1"),
            ("%-1", "%-1"),
            ("%4", "%4"),
            ("%", "%"),
            ("%zz", "%zz"),
            ("%é", "%é"),
        ] {
            assert_eq!(decode(text, false), expected);
        }
        assert_eq!((decode("a+b", true), decode("a+b", false)), ("a b".to_owned(), "a+b".to_owned()));
    }
}
