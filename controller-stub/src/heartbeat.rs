//! Heartbeats as an amphora sends them: zlib-compressed JSON, then 64 hex characters of HMAC-SHA256 over the
//! compressed bytes (Octavia `status_message.py`).

use std::io::Read;

use aws_lc_rs::hmac;
use flate2::read::ZlibDecoder;
use serde_json::Value;

/// Length of the signature at a packet's end: a hex digest of 32 bytes.
const SIGNATURE: usize = 64;

/// The longest JSON that a packet may unfold to. A UDP packet holds 64 KiB, zlib a thousand times that.
const MAX_JSON: u64 = 4 << 20;

/// Verifies a packet and returns its JSON.
///
/// # Errors
/// The reason why it must not be believed.
pub(crate) fn open(key: &[u8], packet: &[u8]) -> Result<Value, &'static str> {
    let at = packet.len().checked_sub(SIGNATURE).ok_or("too short for a heartbeat")?;
    let (compressed, hex) = packet.split_at(at);
    let signature = from_hex(hex).ok_or("does not end in a signature")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::verify(&key, compressed, &signature).map_err(|_| "signed with another key")?;
    let mut json = Vec::new();
    let read = ZlibDecoder::new(compressed).take(MAX_JSON + 1).read_to_end(&mut json);
    if read.map_err(|_| "signed, but not zlib")? as u64 > MAX_JSON {
        return Err("signed, but unfolds to more than 4 MiB");
    }
    serde_json::from_slice(&json).map_err(|_| "signed, but not JSON")
}

fn from_hex(hex: &[u8]) -> Option<Vec<u8>> {
    let nibble = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    hex.chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
pub(crate) fn seal(key: &[u8], json: &Value) -> Vec<u8> {
    use std::io::Write;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(json.to_string().as_bytes()).expect("writes to memory");
    let mut packet = zlib.finish().expect("writes to memory");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &packet);
    packet.extend(tag.as_ref().iter().flat_map(|b| format!("{b:02x}").into_bytes()));
    packet
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_key_signed_is_opened() {
        let beat = json!({"id": "a", "seq": 1});
        let packet = seal(b"insecure", &beat);
        assert_eq!(open(b"insecure", &packet), Ok(beat));
        assert_eq!(open(b"other", &packet), Err("signed with another key"));
        for at in 0..packet.len() {
            let mut bad = packet.clone();
            bad[at] ^= 1;
            assert!(open(b"insecure", &bad).is_err(), "byte {at}");
            assert!(open(b"insecure", &packet[..at]).is_err(), "length {at}");
        }
    }

    #[test]
    fn a_packet_that_unfolds_without_end_is_refused() {
        let bomb = Value::String("x".repeat(5 << 20));
        assert!(open(b"k", &seal(b"k", &bomb)).is_err_and(|e| e.contains("4 MiB")));
    }
}
