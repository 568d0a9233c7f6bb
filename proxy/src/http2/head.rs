//! Heads between HTTP/2 and what everything else decides by (RFC 9113 section 8).
//!
//! Requests of clients and responses of members are [filled](crate::http::fill) into an arena, which checks them as those of
//! HTTP/1.1 are. What goes out is made of views, or of the text that a member of HTTP/1.1 would be sent.

mod read;
mod write;

pub(super) use self::write::encode_trailers;
pub use self::{
    read::{RequestContext, is_extended_connect, read_agreement, read_request, read_response, refusal},
    write::{RequestBlock, ResponseBlock, request, response},
};
use super::hpack::{Bounds, FieldList};
use crate::http::{Head, is_forbidden_trailer, scan};

/// Appends trailers that have come as lines of HTTP/1.1, without those that may not be there (RFC 9110 section 6.5.1), and the
/// empty line behind them.
pub fn write_trailers(trailers: &FieldList, out: &mut Vec<u8>) {
    for (name, value) in trailers {
        if !is_forbidden_trailer(name) {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(scan::trim(value));
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Trailers to be sent, of fields of HTTP/1.1, without those that may not be there.
pub fn trailers<'f>(fields: impl Iterator<Item = (&'f [u8], &'f [u8])>) -> FieldList {
    let mut list = FieldList::default();
    for (name, value) in fields.filter(|(name, _)| !is_forbidden_trailer(name)) {
        list.push(name, value, Bounds::NONE);
    }
    list
}

/// The same, of trailers that have come with HTTP/2.
pub fn passed_trailers(trailers: FieldList) -> FieldList {
    if trailers.iter().any(|(name, _)| is_forbidden_trailer(name)) {
        return self::trailers(trailers.iter());
    }
    trailers
}

/// What is kept of a head, in bytes, once it is read: its text, and its table.
pub fn kept<L>(head: &Head<L>, text: &[u8]) -> usize {
    text.len() + head.fields.list.len() * size_of::<crate::http::Field>()
}

#[cfg(test)]
mod tests {
    use super::{read::tests::list, *};

    #[test]
    fn trailers_are_passed_on_without_what_may_not_be_there() {
        let list = list(&[("grpc-status", "0"), ("content-length", "0"), ("x", " 1 ")]);
        let mut out = Vec::new();
        write_trailers(&list, &mut out);
        assert_eq!(out, b"grpc-status: 0\r\nx: 1\r\n\r\n");
        assert_eq!(passed_trailers(list.clone()).len(), 2);
        assert_eq!(trailers(list.iter()).len(), 2);
    }
}
