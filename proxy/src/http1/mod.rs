//! HTTP/1.1 (RFC 9112) as an engine without I/O: bytes in, decisions and bytes out.
//!
//! [`RequestHead`](crate::http::RequestHead) and [`ResponseHead`](crate::http::ResponseHead) are parsed here.
//! [`request_framing`] and [`response_framing`] decide where a body ends, [`ChunkedDecoder`] follows a chunked one,
//! [`write_request`] and [`write_response`] pass a head on with the edits a proxy makes, and [`responses`] has the proxy's own
//! answers. Nothing is allocated per message once the tables have grown to the size of the traffic.
//!
//! The rules are stricter than RFC 9112 asks and than HAProxy and hyper are: what peers might read differently is
//! refused, because a proxy and a member that disagree on where a request ends let one client speak for another.

mod chunked;
mod fields;
mod framing;
mod head;
mod request;
mod response;
pub mod responses;
mod write;

pub use self::{
    chunked::{ChunkedDecoder, Piece, Run, Step, write_chunk_header},
    framing::{Body, RequestFraming, ResponseFraming, request_framing, response_framing},
    write::{Connection, ResponseHop, Transfer, write_request, write_response},
};
