//! BER (X.690) as NSS and macOS write PKCS #12 in: lengths that are not told in advance, strings in pieces. Made DER of, as far as
//! the structure goes.

/// The tag of an OCTET STRING, whole and in pieces.
const OCTET_STRING: u8 = 0x04;
const PIECES: u8 = 0x24;
const CONSTRUCTED: u8 = 0x20;

/// How deep elements may lie in one another.
const MAX_DEPTH: u8 = 32;

/// The same with every length told in advance, and every OCTET STRING in one piece. What is inside of those is left as it is. `None`
/// when it is not BER, or something stands behind it.
pub(super) fn definite(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes;
    let mut out = Vec::with_capacity(bytes.len());
    element(&mut rest, &mut out, 0)?;
    rest.is_empty().then_some(out)
}

/// What is in the OCTET STRINGs that follow one another.
pub(super) fn joined(mut pieces: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::with_capacity(pieces.len());
    while !pieces.is_empty() {
        let (tag, content) = header(&mut pieces)?;
        if tag != OCTET_STRING {
            return None;
        }
        joined.extend_from_slice(content?);
    }
    Some(joined)
}

/// Tag and content of the element at the front, which is passed; without content when its length is not told, and then only its head is
/// passed.
#[allow(clippy::type_complexity, reason = "used in this file alone")]
fn header<'a>(rest: &mut &'a [u8]) -> Option<(u8, Option<&'a [u8]>)> {
    let (&tag, behind) = rest.split_first()?;
    // Tags of more than one octet do not occur.
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, behind) = behind.split_first()?;
    let (length, behind) = match first {
        0..=0x7f => (usize::from(first), behind),
        0x80 if tag & CONSTRUCTED != 0 => {
            *rest = behind;
            return Some((tag, None));
        }
        0x81..=0x84 => {
            let (octets, behind) = behind.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), behind)
        }
        _ => return None,
    };
    let (content, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some((tag, Some(content)))
}

fn element(rest: &mut &[u8], out: &mut Vec<u8>, depth: u8) -> Option<()> {
    if depth == MAX_DEPTH {
        return None;
    }
    let (tag, content) = header(rest)?;
    let content = match content {
        Some(content) if tag & CONSTRUCTED == 0 => {
            write(out, tag, content);
            return Some(());
        }
        Some(mut inside) => {
            let mut content = Vec::with_capacity(inside.len());
            while !inside.is_empty() {
                element(&mut inside, &mut content, depth + 1)?;
            }
            content
        }
        None => {
            let mut content = Vec::new();
            loop {
                if let Some(behind) = rest.strip_prefix(&[0, 0]) {
                    *rest = behind;
                    break;
                }
                element(rest, &mut content, depth + 1)?;
            }
            content
        }
    };
    match tag {
        PIECES => write(out, OCTET_STRING, &joined(&content)?),
        tag => write(out, tag, &content),
    }
    Some(())
}

fn write(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let octets = length.to_be_bytes();
        let octets = &octets[octets.iter().take_while(|octet| **octet == 0).count()..];
        out.push(0x80 | octets.len() as u8);
        out.extend_from_slice(octets);
    }
    out.extend_from_slice(content);
}

/// The same with no length told that need not be, and OCTET STRINGs in pieces of this size.
#[cfg(test)]
pub(crate) fn indefinite(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut rest = bytes;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (tag, content) = header(&mut rest).expect("what is there is DER");
        let content = content.expect("DER tells every length");
        if tag & CONSTRUCTED != 0 {
            out.extend([tag, 0x80]);
            out.extend(indefinite(content, piece));
            out.extend([0, 0]);
        } else if matches!(tag, OCTET_STRING | 0x80) && content.len() > 64 {
            out.extend([if tag == 0x80 { 0xa0 } else { PIECES }, 0x80]);
            content.chunks(piece).for_each(|chunk| write(&mut out, OCTET_STRING, chunk));
            out.extend([0, 0]);
        } else {
            write(&mut out, tag, content);
        }
    }
    out
}
