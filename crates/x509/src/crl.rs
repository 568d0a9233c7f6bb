//! Certificate revocation lists.

use crate::{
    certificate::{AlgorithmIdentifier, Extensions, Signed},
    der::{Element, Reader, tag},
    name::Name,
    oid,
    time::Time,
};

/// A revocation list (RFC 5280 section 5.1), of any version.
#[derive(Clone, Copy, Debug)]
pub struct RevocationList<'a> {
    /// The whole of it.
    pub der: &'a [u8],
    /// What is signed: `tbsCertList`, with tag and length.
    pub signed: &'a [u8],
    /// 1 or 2.
    pub version: u8,
    /// How it is signed, as what is signed has it.
    pub inner_algorithm: AlgorithmIdentifier<'a>,
    /// `issuer`.
    pub issuer: Name<'a>,
    /// `thisUpdate`.
    pub this_update: Time<'a>,
    /// `nextUpdate`, when the next list is due.
    pub next_update: Option<Time<'a>>,
    /// `crlExtensions`.
    pub extensions: Extensions<'a>,
    /// `signatureAlgorithm`: how it is signed.
    pub algorithm: AlgorithmIdentifier<'a>,
    /// The signature's octets.
    pub signature: &'a [u8],
    entries: &'a [u8],
}

/// A certificate that is revoked.
#[derive(Clone, Copy, Debug)]
pub struct Revoked<'a> {
    /// Its serial number, the content of the INTEGER.
    pub serial: &'a [u8],
    /// Since when.
    pub date: Time<'a>,
    /// `crlEntryExtensions`.
    pub extensions: Extensions<'a>,
}

impl Revoked<'_> {
    /// Whether the entry takes a revocation back: `removeFromCRL`.
    pub fn is_removal(&self) -> bool {
        let reason = self.extensions.find(oid::CRL_REASON);
        reason.is_some_and(|reason| reason.value == [tag::ENUMERATED, 1, 8])
    }
}

impl<'a> RevocationList<'a> {
    /// Reads a list, and nothing behind it. `None` when it is not in the form of RFC 5280.
    pub fn read(der: &'a [u8]) -> Option<Self> {
        let Signed { content, signed, algorithm, signature } = Signed::read(der)?;
        let mut inner = Reader::new(content);
        let version = match inner.optional(tag::INTEGER) {
            None => 1,
            Some(Element { content: [version @ 0..=1], .. }) => version + 1,
            Some(_) => return None,
        };
        let inner_algorithm = AlgorithmIdentifier::read(&mut inner)?;
        let issuer = Name::read(&mut inner)?;
        let this_update = Time::read(inner.element()?)?;
        let next_update = match inner.peek() {
            Some(tag::UTC_TIME | tag::GENERALIZED_TIME) => Some(Time::read(inner.element()?)?),
            _ => None,
        };
        let entries = inner.optional(tag::SEQUENCE).map_or(&[][..], |entries| entries.content);
        let extensions = Extensions::read(inner.optional(tag::constructed(0)))?;
        if !inner.is_empty() {
            return None;
        }
        let mut each = Reader::new(entries);
        while !each.is_empty() {
            entry(&mut each)?;
        }
        Some(Self {
            der,
            signed,
            version,
            inner_algorithm,
            issuer,
            this_update,
            next_update,
            extensions,
            algorithm,
            signature,
            entries,
        })
    }

    /// Every certificate that is revoked, in order.
    pub fn entries(&self) -> impl Iterator<Item = Revoked<'a>> + use<'a> {
        let mut reader = Reader::new(self.entries);
        std::iter::from_fn(move || entry(&mut reader))
    }
}

fn entry<'a>(reader: &mut Reader<'a>) -> Option<Revoked<'a>> {
    let mut inside = reader.enter(tag::SEQUENCE)?;
    let serial = inside.expect(tag::INTEGER)?.content;
    let date = Time::read(inside.element()?)?;
    let extensions = match inside.optional(tag::SEQUENCE) {
        Some(sequence) => Extensions::sequence(sequence)?,
        None => Extensions::default(),
    };
    inside.is_empty().then_some(Revoked { serial, date, extensions })
}
