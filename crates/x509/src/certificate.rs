//! Certificates.

use crate::{
    der::{Element, Reader, octets, small, tag},
    name::Name,
    oid,
    time::Time,
};

/// A certificate (RFC 5280 section 4.1), of any version.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// The whole of it.
    pub der: &'a [u8],
    /// What is signed: `tbsCertificate`, with tag and length.
    pub signed: &'a [u8],
    /// 1, 2 or 3.
    pub version: u8,
    /// `serialNumber`, the content of the INTEGER.
    pub serial: &'a [u8],
    /// How it is signed, as what is signed has it.
    pub inner_algorithm: AlgorithmIdentifier<'a>,
    /// `issuer`.
    pub issuer: Name<'a>,
    /// `notBefore`.
    pub not_before: Time<'a>,
    /// `notAfter`.
    pub not_after: Time<'a>,
    /// `subject`.
    pub subject: Name<'a>,
    /// `subjectPublicKeyInfo`.
    pub public_key: PublicKey<'a>,
    /// `extensions`.
    pub extensions: Extensions<'a>,
    /// `signatureAlgorithm`: how it is signed.
    pub algorithm: AlgorithmIdentifier<'a>,
    /// The signature's octets.
    pub signature: &'a [u8],
}

/// An algorithm with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlgorithmIdentifier<'a> {
    /// Which.
    pub oid: &'a [u8],
    /// Its parameters, the whole element.
    pub parameters: Option<&'a [u8]>,
    /// Both, the content of the SEQUENCE.
    pub content: &'a [u8],
}

/// `SubjectPublicKeyInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey<'a> {
    /// The whole of it.
    pub der: &'a [u8],
    /// What kind of key.
    pub algorithm: AlgorithmIdentifier<'a>,
    /// The octets of the key.
    pub key: &'a [u8],
}

impl<'a> AlgorithmIdentifier<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let content = reader.expect(tag::SEQUENCE)?.content;
        let mut inside = Reader::new(content);
        let oid = inside.expect(tag::OBJECT_IDENTIFIER)?.content;
        let parameters = if inside.is_empty() { None } else { Some(inside.element()?.whole) };
        inside.is_empty().then_some(Self { oid, parameters, content })
    }
}

impl<'a> PublicKey<'a> {
    /// Reads a `SubjectPublicKeyInfo`.
    pub fn read(der: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(der);
        let key = Self::next(&mut reader)?;
        reader.is_empty().then_some(key)
    }

    fn next(reader: &mut Reader<'a>) -> Option<Self> {
        let Element { content, whole, .. } = reader.expect(tag::SEQUENCE)?;
        let mut inside = Reader::new(content);
        let algorithm = AlgorithmIdentifier::read(&mut inside)?;
        let key = octets(inside.expect(tag::BIT_STRING)?.content)?;
        inside.is_empty().then_some(Self { der: whole, algorithm, key })
    }

    /// How many bits the modulus of an RSA key has; `None` for other keys.
    pub fn rsa_bits(&self) -> Option<usize> {
        if self.algorithm.oid != oid::RSA && self.algorithm.oid != oid::RSA_PSS {
            return None;
        }
        let modulus = Reader::new(self.key).enter(tag::SEQUENCE)?.expect(tag::INTEGER)?.content;
        let start = modulus.iter().position(|octet| *octet != 0)?;
        let modulus = &modulus[start..];
        Some(modulus.len() * 8 - modulus[0].leading_zeros() as usize)
    }
}

/// What has a signature: a certificate, or a revocation list.
pub(crate) struct Signed<'a> {
    pub(crate) content: &'a [u8],
    /// The content as it is signed, with its tag and length.
    pub(crate) signed: &'a [u8],
    pub(crate) algorithm: AlgorithmIdentifier<'a>,
    pub(crate) signature: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(crate) fn read(der: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(der);
        let mut outer = reader.enter(tag::SEQUENCE)?;
        let Element { content, whole: signed, .. } = outer.expect(tag::SEQUENCE)?;
        let algorithm = AlgorithmIdentifier::read(&mut outer)?;
        let signature = octets(outer.expect(tag::BIT_STRING)?.content)?;
        (reader.is_empty() && outer.is_empty()).then_some(Self { content, signed, algorithm, signature })
    }
}

impl<'a> Certificate<'a> {
    /// Reads a certificate, and nothing behind it. `None` when it is not in the form of RFC 5280.
    pub fn read(der: &'a [u8]) -> Option<Self> {
        let Signed { content, signed, algorithm, signature } = Signed::read(der)?;
        let mut inner = Reader::new(content);
        let version = match inner.optional(tag::constructed(0)) {
            None => 1,
            Some(explicit) => match Reader::new(explicit.content).expect(tag::INTEGER)?.content {
                [version @ 0..=2] => version + 1,
                _ => return None,
            },
        };
        let serial = inner.expect(tag::INTEGER)?.content;
        let inner_algorithm = AlgorithmIdentifier::read(&mut inner)?;
        let issuer = Name::read(&mut inner)?;
        let mut validity = inner.enter(tag::SEQUENCE)?;
        let not_before = Time::read(validity.element()?)?;
        let not_after = Time::read(validity.element()?)?;
        let subject = Name::read(&mut inner)?;
        let public_key = PublicKey::next(&mut inner)?;
        for unique in [1, 2] {
            inner.optional(tag::context(unique));
        }
        let extensions = Extensions::read(inner.optional(tag::constructed(3)))?;
        (validity.is_empty() && inner.is_empty()).then_some(Self {
            der,
            signed,
            version,
            serial,
            inner_algorithm,
            issuer,
            not_before,
            not_after,
            subject,
            public_key,
            extensions,
            algorithm,
            signature,
        })
    }

    /// Whether subject and issuer are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.subject.der() == self.issuer.der() || self.subject.canonical() == self.issuer.canonical()
    }
}

/// Extensions of a certificate, of a revocation list or of an entry of one.
///
/// That they are such has been checked; what each says has not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions<'a> {
    content: &'a [u8],
}

/// An extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Which.
    pub oid: &'a [u8],
    /// Whether one who does not know it must refuse.
    pub critical: bool,
    /// What it says, in DER.
    pub value: &'a [u8],
}

/// `basicConstraints`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicConstraints {
    /// Whether the key may sign certificates.
    pub authority: bool,
    /// How many certificates of authorities may follow that are not self-issued.
    pub path_length: Option<u32>,
}

/// A `GeneralName`, of the forms that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneralName<'a> {
    /// `rfc822Name`
    Email(&'a [u8]),
    /// `dNSName`
    Dns(&'a [u8]),
    /// `directoryName`
    Directory(Name<'a>),
    /// `uniformResourceIdentifier`
    Uri(&'a [u8]),
    /// `iPAddress`: 4 or 16 octets; with a mask, twice as many.
    Ip(&'a [u8]),
    /// Another form, by its tag.
    Other(u8),
}

impl<'a> GeneralName<'a> {
    /// Reads the next element as a name.
    pub fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let Element { tag, content, .. } = reader.element()?;
        Some(match tag {
            0x81 => Self::Email(content),
            0x82 => Self::Dns(content),
            0xa4 => Self::Directory(Name::read(&mut Reader::new(content))?),
            0x86 => Self::Uri(content),
            0x87 => Self::Ip(content),
            other => Self::Other(other),
        })
    }
}

/// `GeneralNames`, one after the other. That each is one has been checked.
#[derive(Clone, Copy, Debug)]
pub struct GeneralNames<'a>(Reader<'a>);

impl Default for GeneralNames<'_> {
    fn default() -> Self {
        Self(Reader::new(&[]))
    }
}

impl<'a> Iterator for GeneralNames<'a> {
    type Item = GeneralName<'a>;

    fn next(&mut self) -> Option<GeneralName<'a>> {
        GeneralName::read(&mut self.0)
    }
}

impl<'a> Extensions<'a> {
    /// Reads what is in the explicit tag around the sequence, or no extensions.
    pub(crate) fn read(explicit: Option<Element<'a>>) -> Option<Self> {
        let Some(explicit) = explicit else { return Some(Self::default()) };
        let mut reader = Reader::new(explicit.content);
        let extensions = Self::sequence(reader.expect(tag::SEQUENCE)?)?;
        reader.is_empty().then_some(extensions)
    }

    pub(crate) fn sequence(sequence: Element<'a>) -> Option<Self> {
        let extensions = Self { content: sequence.content };
        let mut reader = Reader::new(extensions.content);
        while !reader.is_empty() {
            extension(&mut reader)?;
        }
        Some(extensions)
    }

    /// Every extension, in order.
    pub fn iter(&self) -> impl Iterator<Item = Extension<'a>> + use<'a> {
        let mut reader = Reader::new(self.content);
        std::iter::from_fn(move || extension(&mut reader))
    }

    /// The first extension of this kind.
    pub fn find(&self, oid: &[u8]) -> Option<Extension<'a>> {
        self.iter().find(|extension| extension.oid == oid)
    }

    /// Whether one comes twice, which RFC 5280 section 4.2 forbids. A peer that nobody trusts yet decides how many there are, and
    /// ten thousand fit a handshake: they are sorted, not each compared with all others.
    pub fn has_duplicates(&self) -> bool {
        let mut kinds: Vec<_> = self.iter().map(|extension| extension.oid).collect();
        kinds.sort_unstable();
        kinds.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// `basicConstraints`: `Ok(None)` without.
    ///
    /// # Errors
    /// It is there and not in its form.
    pub fn basic_constraints(&self) -> Result<Option<BasicConstraints>, Malformed> {
        self.parsed(oid::BASIC_CONSTRAINTS, |mut reader| {
            let mut inside = reader.enter(tag::SEQUENCE)?;
            let authority = match inside.optional(tag::BOOLEAN) {
                None => false,
                Some(Element { content: [value], .. }) => *value != 0,
                Some(_) => return None,
            };
            let path_length = match inside.optional(tag::INTEGER) {
                None => None,
                Some(number) => Some(small(number.content)?),
            };
            inside.is_empty().then_some(BasicConstraints { authority, path_length })
        })
    }

    /// `keyUsage`, the bit of `digitalSignature` (0) as the lowest: `Ok(None)` without.
    ///
    /// # Errors
    /// It is there and not in its form.
    pub fn key_usage(&self) -> Result<Option<u16>, Malformed> {
        self.bits(oid::KEY_USAGE)
    }

    /// `nsCertType` of Netscape, likewise.
    ///
    /// # Errors
    /// It is there and not in its form.
    pub fn netscape_cert_type(&self) -> Result<Option<u16>, Malformed> {
        self.bits(oid::NETSCAPE_CERT_TYPE)
    }

    fn bits(&self, oid: &[u8]) -> Result<Option<u16>, Malformed> {
        self.parsed(oid, |mut reader| match reader.expect(tag::BIT_STRING)?.content {
            [_unused, octets @ ..] => {
                let octet = |at: usize| octets.get(at).map_or(0, |octet| u16::from(octet.reverse_bits()));
                Some(octet(0) | octet(1) << 8)
            }
            [] => None,
        })
    }

    /// The purposes of `extKeyUsage`: `Ok(None)` without.
    ///
    /// # Errors
    /// It is there and not in its form.
    pub fn extended_key_usage(&self) -> Result<Option<Vec<&'a [u8]>>, Malformed> {
        self.parsed(oid::EXTENDED_KEY_USAGE, |mut reader| {
            let mut purposes = reader.enter(tag::SEQUENCE)?;
            let mut found = Vec::new();
            while !purposes.is_empty() {
                found.push(purposes.expect(tag::OBJECT_IDENTIFIER)?.content);
            }
            Some(found)
        })
    }

    /// The names of `subjectAltName`, none without. There may be a million of them: each is read when it is asked for.
    ///
    /// # Errors
    /// It is there and not in its form.
    pub fn subject_alt_names(&self) -> Result<GeneralNames<'a>, Malformed> {
        let names = self.parsed(oid::SUBJECT_ALT_NAME, |mut reader| {
            let names = GeneralNames(reader.enter(tag::SEQUENCE)?);
            let mut unread = names.0;
            while !unread.is_empty() {
                GeneralName::read(&mut unread)?;
            }
            Some(names)
        })?;
        Ok(names.unwrap_or_default())
    }

    /// `subjectKeyIdentifier`: `Ok(None)` without.
    ///
    /// # Errors
    /// It is there and not in its form.
    pub fn subject_key_identifier(&self) -> Result<Option<&'a [u8]>, Malformed> {
        self.parsed(oid::SUBJECT_KEY_IDENTIFIER, |mut reader| Some(reader.expect(tag::OCTET_STRING)?.content))
    }

    /// `authorityKeyIdentifier`: key identifier, the issuer's names, the issuer's serial number.
    ///
    /// # Errors
    /// It is there and not in its form.
    pub fn authority_key_identifier(&self) -> Result<Option<AuthorityKey<'a>>, Malformed> {
        self.parsed(oid::AUTHORITY_KEY_IDENTIFIER, |mut reader| {
            let mut inside = reader.enter(tag::SEQUENCE)?;
            let key = inside.optional(tag::context(0)).map(|element| element.content);
            let mut issuer = None;
            if let Some(names) = inside.optional(tag::constructed(1)) {
                let mut names = Reader::new(names.content);
                while !names.is_empty() {
                    if let GeneralName::Directory(name) = GeneralName::read(&mut names)? {
                        issuer.get_or_insert(name);
                    }
                }
            }
            let serial = inside.optional(tag::context(2)).map(|element| element.content);
            inside.is_empty().then_some(AuthorityKey { key, issuer, serial })
        })
    }

    fn parsed<T>(
        &self,
        oid: &[u8],
        read: impl FnOnce(Reader<'a>) -> Option<T>,
    ) -> Result<Option<T>, Malformed> {
        let Some(extension) = self.find(oid) else { return Ok(None) };
        read(Reader::new(extension.value)).map(Some).ok_or(Malformed)
    }
}

/// `authorityKeyIdentifier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorityKey<'a> {
    /// `keyIdentifier`
    pub key: Option<&'a [u8]>,
    /// The first directory name of `authorityCertIssuer`.
    pub issuer: Option<Name<'a>>,
    /// `authorityCertSerialNumber`
    pub serial: Option<&'a [u8]>,
}

/// An extension that is there and not in its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

fn extension<'a>(reader: &mut Reader<'a>) -> Option<Extension<'a>> {
    let mut inside = reader.enter(tag::SEQUENCE)?;
    let oid = inside.expect(tag::OBJECT_IDENTIFIER)?.content;
    let critical = match inside.optional(tag::BOOLEAN) {
        None => false,
        Some(Element { content: [value], .. }) => *value != 0,
        Some(_) => return None,
    };
    let value = inside.expect(tag::OCTET_STRING)?.content;
    inside.is_empty().then_some(Extension { oid, critical, value })
}

#[cfg(test)]
mod tests;
