//! The Huffman code of strings (RFC 7541 section 5.2 and appendix B).

use super::Error;

/// The length of each byte's code, and at last that of EOS, in bits (RFC 7541 appendix B). The code is canonical: codes of one
/// length follow each other in the order of what they stand for, and shorter ones come before longer ones, so that this says
/// it all.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

/// What [`LENGTHS`] has at its end.
const EOS: u16 = 256;

/// The longest code.
const LONGEST: usize = 30;

/// Codes up to this length, those of nearly all bytes of heads, are found at once.
const SHORT: usize = 10;

/// What the decoder looks up.
struct Tables {
    /// By the next [`SHORT`] bits: the byte, and the length of its code in the high byte; 0 where the code is longer.
    short: [u16; 1 << SHORT],
    /// By length: behind the last code of that length, as a number of 32 bits whose first are the code.
    limit: [u64; LONGEST + 1],
    /// By length: where its first code stands among all, and that code.
    first: [(u16, u32); LONGEST + 1],
    /// What codes stand for, in their order.
    order: [u16; 257],
}

const TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut tables = Tables {
        short: [0; 1 << SHORT],
        limit: [0; LONGEST + 1],
        first: [(0, 0); LONGEST + 1],
        order: [0; 257],
    };
    let mut code = 0u32;
    let mut at = 0;
    let mut length = 1;
    while length <= LONGEST {
        code <<= 1;
        tables.first[length] = (at as u16, code);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                tables.order[at] = symbol as u16;
                at += 1;
                if length <= SHORT {
                    let mut entry = (code as usize) << (SHORT - length);
                    let end = (code as usize + 1) << (SHORT - length);
                    while entry < end {
                        tables.short[entry] = (length as u16) << 8 | symbol as u16;
                        entry += 1;
                    }
                }
                code += 1;
            }
            symbol += 1;
        }
        tables.limit[length] = (code as u64) << (32 - length);
        length += 1;
    }
    tables
}

/// Appends what `coded` stands for.
///
/// # Errors
/// When EOS is in it, or its end is no padding: less than eight bits, all of them ones.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    // Codes have five bits at least.
    out.reserve(coded.len() * 8 / 5 + 1);
    let mut bits = 0u64;
    let mut have = 0usize;
    let mut rest = coded;
    loop {
        // As many bits as there is room for, from the top.
        if let Some((chunk, behind)) = rest.split_first_chunk::<4>().filter(|_| have <= 32) {
            bits |= u64::from(u32::from_be_bytes(*chunk)) << (32 - have);
            have += 32;
            rest = behind;
        } else {
            while have <= 56
                && let [byte, behind @ ..] = rest
            {
                bits |= u64::from(*byte) << (56 - have);
                have += 8;
                rest = behind;
            }
        }
        while have >= SHORT {
            let entry = TABLES.short[(bits >> (64 - SHORT)) as usize];
            if entry == 0 {
                break;
            }
            out.push(entry as u8);
            let length = usize::from(entry >> 8);
            bits <<= length;
            have -= length;
        }
        if have >= LONGEST || rest.is_empty() {
            let Some((symbol, length)) = next(bits, have) else {
                if rest.is_empty() {
                    break;
                }
                continue;
            };
            if symbol == EOS {
                return Err(Error::Huffman);
            }
            out.push(symbol as u8);
            bits <<= length;
            have -= length;
        }
    }
    let padding = if have == 0 { 0 } else { bits >> (64 - have) };
    if have >= 8 || padding != (1 << have) - 1 {
        return Err(Error::Huffman);
    }
    Ok(())
}

/// What the first code of `have` bits stands for, and its length, if all of it is there.
fn next(bits: u64, have: usize) -> Option<(u16, usize)> {
    let top = bits >> 32;
    let length = (1..=LONGEST.min(have)).find(|&length| top < TABLES.limit[length])?;
    let (at, first) = TABLES.first[length];
    let code = (top >> (32 - length)) as u32;
    Some((TABLES.order[usize::from(at) + (code - first) as usize], length))
}

/// Appends `text` in the code.
#[cfg(test)]
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let code_of = |symbol: usize| {
        let length = usize::from(LENGTHS[symbol]);
        let (at, first) = TABLES.first[length];
        let among = TABLES.order[usize::from(at)..].iter().position(|&other| usize::from(other) == symbol);
        (first + among.expect("each symbol has a code") as u32, length)
    };
    let (mut bits, mut have) = (0u64, 0);
    for &byte in text {
        let (code, length) = code_of(usize::from(byte));
        bits = bits << length | u64::from(code);
        have += length;
        while have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    if have > 0 {
        out.push((bits << (8 - have)) as u8 | (0xff >> have));
    }
}
