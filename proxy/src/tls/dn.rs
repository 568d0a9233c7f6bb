//! Distinguished names as HAProxy writes them: `ssl_c_s_dn`, `ssl_c_s_dn(FIELD)`.

use amphora_x509::{Attribute, Name};

use super::objects::short_name;

/// The most bytes of a sample of HAProxy's: a buffer of the default size (`tune.bufsize`).
const MAX_SAMPLE: usize = 16 * 1024;

/// `/C=DE/O=Example/CN=www`: every attribute in order, values as they are in the certificate, in whatever encoding. Empty for a
/// name without attributes, one that is too long, and one with a NUL inside a value, which nobody could tell from its
/// beginning (HAProxy since 2026; before, what follows the NUL is lost).
pub(super) fn oneline(name: &Name<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    for attribute in name.attributes() {
        let Some(value) = value(&attribute) else { return Vec::new() };
        line.push(b'/');
        line.extend(short_name(attribute.oid).bytes());
        line.push(b'=');
        line.extend(value);
        if line.len() > MAX_SAMPLE {
            return Vec::new();
        }
    }
    line
}

/// Every attribute by its name, `CN`, `emailAddress`, `1.2.3.4`, in order. One that is too long or has a NUL inside has no value.
pub(super) fn fields(name: &Name<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let field = |attribute: Attribute<'_>| {
        let value = value(&attribute).filter(|value| value.len() <= MAX_SAMPLE);
        (short_name(attribute.oid), value.map(<[u8]>::to_vec))
    };
    name.attributes().map(field).collect()
}

fn value<'a>(attribute: &Attribute<'a>) -> Option<&'a [u8]> {
    let value = attribute.value;
    let end = value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let value = &value[..end];
    (!value.contains(&0)).then_some(value)
}
