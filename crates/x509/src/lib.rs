//! X.509 certificates and revocation lists (RFC 5280), read and not judged: names, dates, keys and extensions as views into
//! the bytes. Nothing here verifies a signature or looks at a clock.
//!
//! | module | what is inside |
//! | --- | --- |
//! | `der` | tag, length, content (X.690) |
//! | `certificate` | [`Certificate`] and its [`Extensions`] |
//! | `crl` | [`RevocationList`] |
//! | `name` | [`Name`]: distinguished names |
//! | `time` | [`Time`] |
//! | [`oid`] | the object identifiers that are looked for |

mod certificate;
mod crl;
mod der;
mod name;
pub mod oid;
mod time;

pub use self::{
    certificate::{
        AlgorithmIdentifier, AuthorityKey, BasicConstraints, Certificate, Extension, Extensions, GeneralName,
        GeneralNames, Malformed, PublicKey,
    },
    crl::{RevocationList, Revoked},
    der::{Element, Reader, tag},
    name::{Attribute, Name, text},
    time::Time,
};
