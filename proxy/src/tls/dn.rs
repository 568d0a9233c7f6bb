//! Distinguished names as HAProxy writes them: `ssl_c_s_dn`, `ssl_c_s_dn(FIELD)`.

use amphora_x509::{Attribute, Name};

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
        line.extend(attribute.value);
        if line.len() > MAX_SAMPLE {
            return Vec::new();
        }
    }
    line
}

/// Every attribute by its name, `CN`, `emailAddress`, `1.2.3.4`, in order. One that is too long has no value.
pub(super) fn fields(name: &Name<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let field = |attribute: Attribute<'_>| {
        let value = Some(attribute.value).filter(|value| value.len() <= MAX_SAMPLE);
        (short_name(attribute.oid), value.map(<[u8]>::to_vec))
    };
    name.attributes().map(field).collect()
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
