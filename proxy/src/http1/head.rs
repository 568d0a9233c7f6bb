//! What the heads of requests and responses have in common on the wire.

use super::fields;
use crate::http::{Fields, Head, MAX_HEAD, Reject};

/// What stands in front of the fields.
pub(super) trait FirstLine {
    /// It alone is longer than a head may be.
    const TOO_LONG: Reject;

    /// Reads the line at the start of `bytes` and says where the next begins; `None` when it is not complete.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Reject>;

    /// What must hold once the fields are there.
    fn check(&self, _fields: &Fields, _bytes: &[u8]) -> Result<(), Reject> {
        Ok(())
    }
}

/// Parses the head at the start of `buf` into `head`; its length once it is complete.
#[inline]
pub(super) fn parse<L: FirstLine>(head: &mut Head<L>, buf: &[u8]) -> Result<Option<usize>, Reject> {
    if head.complete || head.parsed > buf.len() {
        head.reset();
    }
    let bytes = &buf[..buf.len().min(MAX_HEAD)];
    match parse_bounded(head, bytes) {
        Ok(true) => {
            head.complete = true;
            Ok(Some(head.parsed))
        }
        Ok(false) if bytes.len() < MAX_HEAD => Ok(None),
        result => {
            let line = head.parsed == 0;
            head.reset();
            Err(match result {
                Err(reject) => reject,
                Ok(_) if line => L::TOO_LONG,
                Ok(_) => Reject::HeadTooLarge,
            })
        }
    }
}

#[inline]
fn parse_bounded<L: FirstLine>(head: &mut Head<L>, bytes: &[u8]) -> Result<bool, Reject> {
    if head.parsed == 0 {
        head.fields.clear();
        let Some(end) = head.line.read(bytes)? else { return Ok(false) };
        head.parsed = end;
    }
    let mut at = head.parsed;
    let done = fields::parse(&mut head.fields, bytes, &mut at);
    head.parsed = at;
    if done? { head.line.check(&head.fields, bytes).map(|()| true) } else { Ok(false) }
}
