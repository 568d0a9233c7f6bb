//! HTTP/2 (RFC 9113) on the crate `h2`, to clients and to members.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`guard`] | frames that cost more than they carry, counted before they reach the library |

pub mod guard;
