//! Both sides prove that they have the key, and every message after that is theirs and in its place.
//!
//! Each side sends a nonce in its Hello. From the shared key and the two Hellos two keys are derived, one per direction,
//! so that nothing of another connection, of the other direction or of another version is worth anything here:
//!
//! ```text
//! K(direction) = HMAC-SHA256(key, "amphora-peers " || direction || 0 || connecting side's Hello || accepting side's Hello)
//! MAC(n)       = HMAC-SHA256(K(direction), n: u64 || message)        n counts the sender's messages from 0
//! ```
//!
//! The first message of each side is Auth; the side that connects proves itself first. A message that is
//! altered, repeated, left out or put elsewhere has the wrong MAC, and the connection ends. Entries are not
//! encrypted: a table's keys are hashes, members are known by their ids. Secrets of session tickets are, within their message:
//!
//! ```text
//! S(direction) = K(direction || " secrets"), of AES-256-GCM
//! nonce        n: 12 bytes                               n counts the sender's secret texts from 0
//! ```

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};

use super::wire::{MAC, WireError, write_frame};

/// The MACs of one connection, seen from one side.
#[derive(Debug)]
pub(super) struct Seal {
    send: (hmac::Key, u64),
    receive: (hmac::Key, u64),
    send_secrets: (LessSafeKey, u64),
    receive_secrets: (LessSafeKey, u64),
}

impl Seal {
    /// The seal of a connection; `connects` is whether this side made it. The Hellos are as they were sent.
    pub(super) fn new(key: &[u8], connects: bool, connecting: &[u8], accepting: &[u8]) -> Self {
        let derive = |direction: &str| {
            let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
            context.update(b"amphora-peers ");
            context.update(direction.as_bytes());
            context.update(&[0]);
            context.update(connecting);
            context.update(accepting);
            context.sign()
        };
        let mac = |direction| (hmac::Key::new(hmac::HMAC_SHA256, derive(direction).as_ref()), 0);
        let secrets = |direction| {
            let key = UnboundKey::new(&AES_256_GCM, derive(direction).as_ref());
            (LessSafeKey::new(key.expect("a digest of SHA-256 has the length of a key")), 0)
        };
        let (send, receive) = (mac("forth"), mac("back"));
        let (send_secrets, receive_secrets) = (secrets("forth secrets"), secrets("back secrets"));
        if connects {
            Self { send, receive, send_secrets, receive_secrets }
        } else {
            Self {
                send: receive,
                receive: send,
                send_secrets: receive_secrets,
                receive_secrets: send_secrets,
            }
        }
    }

    /// The next secret text, encrypted.
    pub(super) fn encrypt(&mut self, mut text: Vec<u8>) -> Box<[u8]> {
        let (key, count) = &mut self.send_secrets;
        let sealed = key.seal_in_place_append_tag(nonce(count), Aad::empty(), &mut text);
        sealed.expect("a text of some kilobytes can be encrypted");
        text.into()
    }

    /// The peer's next secret text; `None` when it is not that.
    pub(super) fn decrypt(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (key, count) = &mut self.receive_secrets;
        let mut text = sealed.to_vec();
        let length = key.open_in_place(nonce(count), Aad::empty(), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    /// Appends a frame with the next message, as `write` appends it, and its MAC.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let (key, count) = &mut self.send;
        write_frame(out, |out| {
            let at = out.len();
            write(out);
            let mut context = hmac::Context::with_key(key);
            context.update(&count.to_be_bytes());
            context.update(&out[at..]);
            out.extend(context.sign().as_ref());
        });
        *count += 1;
    }

    /// The next message in a frame; `None` when the MAC is not the peer's.
    ///
    /// # Errors
    /// When there is no room for a MAC.
    pub(super) fn read<'a>(&mut self, frame: &'a [u8]) -> Result<Option<&'a [u8]>, WireError> {
        let at = frame.len().checked_sub(MAC).ok_or(WireError::Malformed)?;
        let (message, mac) = frame.split_at(at);
        let (key, count) = &mut self.receive;
        let mut signed = Vec::with_capacity(8 + message.len());
        signed.extend(count.to_be_bytes());
        signed.extend(message);
        *count += 1;
        Ok(hmac::verify(key, &signed, mac).is_ok().then_some(message))
    }
}

fn nonce(count: &mut u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&count.to_be_bytes());
    *count += 1;
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{
        super::wire::{frame, framed},
        *,
    };

    fn pair(key: &[u8], other: &[u8]) -> (Seal, Seal) {
        (Seal::new(key, true, b"hello a", b"hello b"), Seal::new(other, false, b"hello a", b"hello b"))
    }

    fn sealed(seal: &mut Seal, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        seal.write(&mut out, |out| out.extend(text));
        let bytes = frame(&out).unwrap().unwrap().to_vec();
        assert_eq!(out.len(), framed(bytes.len()));
        bytes
    }

    #[test]
    fn messages_are_read_once_and_in_their_order() {
        let (mut a, mut b) = pair(b"key", b"key");
        let (one, two) = (sealed(&mut a, b"one"), sealed(&mut a, b"two"));
        assert_eq!(b.read(&one), Ok(Some(b"one".as_slice())));
        assert_eq!(b.read(&one), Ok(None), "again");
        let (mut a, mut b) = pair(b"key", b"key");
        assert_eq!(sealed(&mut a, b"one"), one);
        assert_eq!(b.read(&two), Ok(None), "too early");
    }

    #[test]
    fn secrets_are_read_by_the_peer_alone_once_and_in_their_order() {
        let (mut a, mut b) = pair(b"key", b"key");
        let sealed = [a.encrypt(b"one".to_vec()), a.encrypt(b"two".to_vec())];
        assert!(!sealed[0].windows(3).any(|part| part == b"one"));
        assert_eq!(b.decrypt(&sealed[0]).as_deref(), Some(&b"one"[..]));
        assert_eq!(b.decrypt(&sealed[1]).as_deref(), Some(&b"two"[..]));
        assert_eq!(b.decrypt(&sealed[1]), None, "again");
        let (mut own, _) = pair(b"key", b"key");
        assert_eq!(own.decrypt(&sealed[0]), None, "one's own");
        let (_, mut stranger) = pair(b"key", b"kez");
        assert_eq!(stranger.decrypt(&sealed[0]), None, "another key");
        let answer = b.encrypt(b"three".to_vec());
        assert_eq!(a.decrypt(&answer).as_deref(), Some(&b"three"[..]));
    }

    #[test]
    fn what_is_not_the_peers_is_not_read() {
        let message = |seal: &mut Seal| sealed(seal, b"message");
        let (mut a, mut b) = pair(b"key", b"kez");
        assert_eq!(b.read(&message(&mut a)), Ok(None), "another key");
        let (mut a, _) = pair(b"key", b"key");
        let sent = message(&mut a);
        assert_eq!(a.read(&sent), Ok(None), "one's own");
        for bit in 0..sent.len() * 8 {
            let (_, mut b) = pair(b"key", b"key");
            let mut altered = sent.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(b.read(&altered), Ok(None));
        }
        let mut elsewhere = Seal::new(b"key", false, b"hello a", b"hello c");
        assert_eq!(elsewhere.read(&sent), Ok(None), "of another connection");
        assert_eq!(elsewhere.read(&sent[..MAC - 1]), Err(WireError::Malformed));
    }
}
