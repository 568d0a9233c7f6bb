//! Header compression (RFC 7541), without I/O.
//!
//! A [`Decoder`] keeps to the bounds of its [`FieldList`] while it decodes: what is beyond them is gone over for the table's sake
//! and not kept. What is [encoded](encode) is of the static table and literals, so that a block does not depend on those before it: it
//! may be made when it is known, and left out when it is not wanted any more. Both do without the Huffman code for what they
//! write, as HAProxy does.
//!
//! | module | what is inside |
//! | --- | --- |
//! | `decoder` | [`Decoder`] |
//! | `table` | the dynamic table |
//! | `huffman` | strings |
//! | `list` | [`FieldList`] |
//! | [`encode`] | blocks that are sent |

mod decoder;
pub mod encode;
mod huffman;
mod list;
mod table;

pub use self::{
    decoder::Decoder,
    list::{Bounds, FieldList, Fields},
};

#[cfg(test)]
mod tests;

/// Why a block is none. What follows cannot be decoded either, so the connection ends (RFC 9113 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends within a field.
    #[error("block that ends within a field")]
    Truncated,
    /// An integer beyond what can be meant.
    #[error("integer that is too large")]
    Integer,
    /// A place in the tables where nothing is.
    #[error("index beyond the tables")]
    Index,
    /// A string that is not in the Huffman code.
    #[error("string that is not in the Huffman code")]
    Huffman,
    /// A size of the dynamic table beyond what was announced, or behind a field.
    #[error("size of the table that may not be")]
    Size,
}

/// A field, name and value.
type Entry = (&'static [u8], &'static [u8]);

/// The static table (RFC 7541 appendix A), from index 1 on.
const STATIC: [Entry; 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// What an entry takes besides its name and its value, by definition (RFC 7541 section 4.1, RFC 9113 section 6.5.2).
const OVERHEAD: usize = 32;
