//! HTTP/1.1 (RFC 9112) as an engine without I/O: bytes in, decisions and bytes out.
//!
//! A message head is the bytes as they came plus a table of offsets: [`RequestHead`] and [`ResponseHead`] parse into
//! tables that are reused, [`RequestView`] and [`ResponseView`] look through them into the buffer. [`request_framing`]
//! and [`response_framing`] decide where a body ends, [`ChunkedDecoder`] follows a chunked one, [`write_request`] and
//! [`write_response`] pass a head on with the edits a proxy makes, and [`responses`] has the proxy's own answers.
//! Nothing is allocated per message once the tables have grown to the size of the traffic.
//!
//! The rules are stricter than RFC 9112 asks and than HAProxy and hyper are: what peers might read differently is
//! refused, because a proxy and a member that disagree on where a request ends let one client speak for another.

mod chunked;
mod cookies;
mod fields;
mod framing;
mod identity;
mod names;
mod reject;
mod request;
mod response;
pub mod responses;
mod scan;
mod target;
mod values;
mod write;

pub use self::{
    chunked::{ChunkedDecoder, Piece, Step, write_chunk_header},
    cookies::{Cookie, cookie_values, sampled_cookies, sampled_set_cookie_values},
    framing::{Body, RequestFraming, ResponseFraming, request_framing, response_framing},
    names::{Known, Method, Version},
    reject::{BadResponse, Reject},
    request::{RequestHead, RequestView},
    response::{ResponseHead, ResponseView},
    values::comma_values,
    write::{Connection, RequestEdits, ResponseEdits, Transfer, write_request, write_response},
};

/// The most bytes that a head may have, its first and its last line included.
pub const MAX_HEAD: usize = 16 * 1024;

/// The most fields that a head, or the trailers of a chunked body, may have.
pub const MAX_FIELDS: usize = 100;
