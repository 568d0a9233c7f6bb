//! Distinguished names.

use std::borrow::Cow;

use crate::der::{Reader, tag};

/// A `Name` (RFC 5280 section 4.1.2.4): relative distinguished names, each a set of attributes.
///
/// That it is one has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

/// An attribute of a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Which of the name's sets it is in.
    pub set: usize,
    /// Its type, the content of an OBJECT IDENTIFIER.
    pub oid: &'a [u8],
    /// The tag of its value.
    pub tag: u8,
    /// Its value, as it is there.
    pub value: &'a [u8],
    /// The value with its tag and length.
    pub der: &'a [u8],
}

impl<'a> Name<'a> {
    /// Reads the next element as a name.
    pub fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let element = reader.expect(tag::SEQUENCE)?;
        let name = Self { whole: element.whole, content: element.content };
        let mut sets = Reader::new(name.content);
        while !sets.is_empty() {
            let mut set = sets.enter(tag::SET)?;
            while !set.is_empty() {
                attribute(&mut set, 0)?;
            }
        }
        Some(name)
    }

    /// The name in DER.
    pub const fn der(&self) -> &'a [u8] {
        self.whole
    }

    /// What is inside of it: its sets.
    pub const fn content(&self) -> &'a [u8] {
        self.content
    }

    /// Whether it has no attribute.
    pub fn is_empty(&self) -> bool {
        self.attributes().next().is_none()
    }

    /// Every attribute, in order.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let mut sets = Reader::new(self.content);
        let mut set = Reader::new(&[]);
        let mut at = 0;
        std::iter::from_fn(move || {
            while set.is_empty() {
                set = sets.enter(tag::SET)?;
                at += 1;
            }
            attribute(&mut set, at - 1)
        })
    }

    /// What names are compared by: text of any encoding in UTF-8, its ASCII letters in lower case, without white space
    /// at its ends and with one space for each that is inside, as OpenSSL compares (and RFC 5280 section 7.1 asks for).
    pub fn canonical(&self) -> Vec<u8> {
        let mut sets: Vec<Vec<Vec<u8>>> = Vec::new();
        for Attribute { set, oid, tag, value, .. } in self.attributes() {
            let mut attribute = Vec::with_capacity(oid.len() + value.len() + 16);
            let value = match text(tag, value) {
                Some(text) => {
                    attribute.push(tag::UTF8_STRING);
                    Cow::Owned(folded(&text).into_bytes())
                }
                None => {
                    attribute.push(tag);
                    Cow::Borrowed(value)
                }
            };
            for part in [oid, &value] {
                attribute.extend((part.len() as u64).to_be_bytes());
                attribute.extend(part);
            }
            sets.resize_with(set + 1, Vec::new);
            sets[set].push(attribute);
        }
        for set in &mut sets {
            set.sort_unstable();
        }
        let count = |n: usize| (n as u64).to_be_bytes();
        sets.iter().flat_map(|set| count(set.len()).into_iter().chain(set.concat())).collect()
    }
}

fn attribute<'a>(set: &mut Reader<'a>, at: usize) -> Option<Attribute<'a>> {
    let mut attribute = set.enter(tag::SEQUENCE)?;
    let oid = attribute.expect(tag::OBJECT_IDENTIFIER)?.content;
    let value = attribute.element()?;
    attribute.is_empty().then_some(Attribute {
        set: at,
        oid,
        tag: value.tag,
        value: value.content,
        der: value.whole,
    })
}

/// A string of ASN.1 as text: UTF8String, PrintableString, IA5String and VisibleString as they are, T61String read as Latin-1
/// (as OpenSSL does), BMPString and UniversalString. `None` for another tag, or for what is no text of its kind.
pub fn text(tag: u8, value: &[u8]) -> Option<Cow<'_, str>> {
    match tag {
        tag::UTF8_STRING => str::from_utf8(value).ok().map(Cow::Borrowed),
        tag::PRINTABLE_STRING | tag::IA5_STRING | tag::VISIBLE_STRING | tag::T61_STRING => {
            match str::from_utf8(value) {
                Ok(text) if text.is_ascii() => Some(Cow::Borrowed(text)),
                _ => Some(value.iter().map(|byte| char::from(*byte)).collect::<String>().into()),
            }
        }
        tag::BMP_STRING => {
            let (pairs, []) = value.as_chunks::<2>() else { return None };
            let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
            char::decode_utf16(units).collect::<Result<String, _>>().ok().map(Cow::Owned)
        }
        tag::UNIVERSAL_STRING => {
            let (quads, []) = value.as_chunks::<4>() else { return None };
            let characters = quads.iter().map(|quad| char::from_u32(u32::from_be_bytes(*quad)));
            characters.collect::<Option<String>>().map(Cow::Owned)
        }
        _ => None,
    }
}

fn folded(text: &str) -> String {
    let space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    let mut folded = String::with_capacity(text.len());
    for word in text.split(space).filter(|word| !word.is_empty()) {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.extend(word.chars().map(|c| c.to_ascii_lowercase()));
    }
    folded
}
