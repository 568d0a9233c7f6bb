//! Distinguished names as HAProxy writes them: `ssl_c_s_dn`, `ssl_c_s_dn(FIELD)`.

use std::borrow::Cow;

use amphora_x509::{Attribute, Name, tag};

use super::objects::short_name;

/// The most bytes of a sample of HAProxy's: a buffer of the default size (`tune.bufsize`).
const MAX_SAMPLE: usize = 16 * 1024;

/// `/C=DE/O=Example/CN=www`: every attribute in order, values as they are in the certificate, in whatever encoding: any bytes. Empty
/// for a name without attributes, and for one that is too long.
pub(super) fn oneline(name: &Name<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    for attribute in name.attributes() {
        line.push(b'/');
        line.extend(short_name(attribute.oid).bytes());
        line.push(b'=');
        line.extend(&*value(&attribute));
        if line.len() > MAX_SAMPLE {
            return Vec::new();
        }
    }
    line
}

/// Every attribute by its name, `CN`, `emailAddress`, `1.2.3.4`, in order. One that is too long has no value.
pub(super) fn fields(name: &Name<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let field = |attribute: Attribute<'_>| {
        let value = Some(value(&attribute)).filter(|value| value.len() <= MAX_SAMPLE);
        (short_name(attribute.oid), value.map(Cow::into_owned))
    };
    name.attributes().map(field).collect()
}

/// The bytes of a value as OpenSSL keeps them: of a string what is in it, of bits (`x500UniqueIdentifier`) those that are used, of what
/// has parts all of it, with its tag.
fn value<'a>(attribute: &Attribute<'a>) -> Cow<'a, [u8]> {
    match (attribute.tag, attribute.value) {
        (tag::BIT_STRING, [unused @ 1..=7, octets @ .., last]) => {
            [octets, &[last & (0xff << unused)]].concat().into()
        }
        (tag::BIT_STRING, [_, octets @ ..]) => octets.into(),
        // Constructed, or of no universal kind.
        (tag, _) if tag & 0xe0 != 0 => attribute.der.into(),
        (_, value) => value.into(),
    }
}

/// Appends a text as HAProxy's formats of header fields do: what no field's value may have (`http_encode_map`: control characters but
/// the tab) as `%0A`.
pub fn write_field_value(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        if byte == b'\t' || !byte.is_ascii_control() {
            out.push(byte);
        } else {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
            out.extend([b'%', digit(byte >> 4), digit(byte & 0x0f)]);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use amphora_x509::Reader;

    use super::*;

    /// A name of one attribute, 2.5.4.45 (`x500UniqueIdentifier`), with this value in DER.
    fn of(value: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| [&[tag, content.len().try_into().unwrap()], content].concat();
        wrap(0x30, &wrap(0x31, &wrap(0x30, &[&[6, 3, 0x55, 4, 45], value].concat())))
    }

    #[test]
    fn values_are_what_openssl_keeps_of_them() {
        for (der, shown) in [
            (&[3, 3, 0, b'a', b'b'][..], &b"ab"[..]),
            (&[3, 3, 4, b'a', 0xff], b"a\xf0"),
            (&[3, 1, 0], b""),
            (&[0x30, 3, 2, 1, 1], b"0\x03\x02\x01\x01"),
            (&[0x0c, 1, b'x'], b"x"),
            (&[0x1e, 2, 0, b'x'], b"\0x"),
        ] {
            let der = of(der);
            let name = Name::read(&mut Reader::new(&der)).unwrap();
            assert_eq!(oneline(&name), [&b"/x500UniqueIdentifier="[..], shown].concat());
            assert_eq!(fields(&name), [("x500UniqueIdentifier".to_owned(), Some(shown.to_vec()))]);
        }
    }
}
