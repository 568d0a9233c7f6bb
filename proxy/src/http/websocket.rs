//! The opening handshake of WebSocket (RFC 6455 section 4), as far as the proxy takes part in it for a client whose version of
//! HTTP has another one (RFC 8441).

use aws_lc_rs::{digest, rand};

use super::fill::WEBSOCKET_KEY_LEN;

/// What a server puts behind the key (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A new `Sec-WebSocket-Key`; `None` when the system has no random bytes.
pub(crate) fn key() -> Option<[u8; WEBSOCKET_KEY_LEN]> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).ok()?;
    let mut key = [0; WEBSOCKET_KEY_LEN];
    base64(&bytes, &mut key);
    Some(key)
}

/// The `Sec-WebSocket-Accept` that belongs to `key`.
pub(crate) fn accept(key: &[u8; WEBSOCKET_KEY_LEN]) -> [u8; 28] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    let mut accept = [0; 28];
    base64(context.finish().as_ref(), &mut accept);
    accept
}

/// Whether `accept` is the `Sec-WebSocket-Accept` that belongs to `key`.
pub(crate) fn accepts(key: &[u8; WEBSOCKET_KEY_LEN], accept: &[u8]) -> bool {
    accept == self::accept(key)
}

/// Writes `bytes` in base64 (RFC 4648 section 4); `out` is as long as that.
fn base64(bytes: &[u8], out: &mut [u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (group, out) in bytes.chunks(3).zip(out.chunks_mut(4)) {
        let bits =
            group.iter().enumerate().fold(0, |bits, (i, &byte)| bits | u32::from(byte) << (16 - 8 * i));
        for (i, place) in out.iter_mut().enumerate() {
            *place = if i <= group.len() { ALPHABET[(bits >> (18 - 6 * i) & 63) as usize] } else { b'=' };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_handshake_is_that_of_the_standard() {
        let key = b"dGhlIHNhbXBsZSBub25jZQ==";
        assert!(accepts(key, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!accepts(key, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo"));
        assert!(!accepts(key, b""));
        let mut out = [0; WEBSOCKET_KEY_LEN];
        base64(b"the sample nonce", &mut out);
        assert_eq!(&out, key);
        assert_ne!(super::key().unwrap(), super::key().unwrap());
    }
}
