//! What the versions of HTTP share, without any wire format: heads, fields, cookies, methods, edits.
//!
//! A message head is a table of offsets over its bytes: [`RequestHead`] and [`ResponseHead`] are tables that are reused,
//! [`RequestView`] and [`ResponseView`] look through them. Whatever decides on a message sees only views. [HTTP/1.1](crate::http1)
//! parses into the table; [`fill`] writes fields that come decoded into an arena, with the same checks. [`RequestEdits`] and
//! [`ResponseEdits`] are what a proxy changes while a head is written out.

pub(crate) mod cookies;
mod edits;
mod fields;
pub mod fill;
mod head;
mod identity;
mod ids;
mod method;
mod names;
mod reject;
pub(crate) mod scan;
mod target;
mod trailers;
mod values;
pub(crate) mod websocket;

pub use self::{
    cookies::{Cookie, cookie_values, sampled_cookies, sampled_set_cookie_values},
    edits::{EditList, FieldEdits, RequestEdits, ResponseEdits, SetFields, TooLong},
    head::{Head, RequestHead, RequestLine, RequestView, ResponseHead, ResponseView, StatusLine},
    ids::{Entropy, Identification, Ids},
    method::{Method, Version},
    names::{Known, KnownSet},
    reject::{BadResponse, Reject},
    values::comma_values,
};
pub(crate) use self::{
    fields::{Field, Fields, Span},
    target::Target,
    trailers::is_forbidden_trailer,
};

/// The most bytes that a head may have, its first and its last line included.
pub const MAX_HEAD: usize = 16 * 1024;

/// The most fields that a head, or the trailers of a body, may have.
pub const MAX_FIELDS: usize = 100;
