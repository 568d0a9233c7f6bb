//! How much of bodies is in memory at a time, of all clients together: what is more is refused, so that memory is bounded whoever comes.

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::fault::Fault;

/// Bytes of one unit.
const UNIT: usize = 1 << 10;

/// Units of requests' bodies: 64 MiB.
static REQUESTS: Semaphore = Semaphore::const_new(64 << 10);

/// Units of answers that are not sent yet: 64 MiB.
static ANSWERS: Semaphore = Semaphore::const_new(64 << 10);

/// What is held of the room, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Held(Option<SemaphorePermit<'static>>);

impl Held {
    /// Takes room for `bytes` of a request in all.
    ///
    /// # Errors
    /// There is none: 503.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        self.take(&REQUESTS, bytes)
    }

    fn take(&mut self, room: &'static Semaphore, bytes: usize) -> Result<(), Fault> {
        let has = self.0.as_ref().map_or(0, SemaphorePermit::num_permits);
        let lacks = bytes.div_ceil(UNIT).saturating_sub(has);
        let more = u32::try_from(lacks).ok().and_then(|lacks| room.try_acquire_many(lacks).ok());
        let more = more.ok_or_else(|| {
            Fault::new(503, "The bodies of all requests are too large together. Please try again.")
        })?;
        match &mut self.0 {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// An answer's body, which holds its room until it is sent.
///
/// # Errors
/// There is none: 503.
pub(super) fn answer(body: String) -> Result<Bytes, Fault> {
    struct Body(String, #[expect(dead_code, reason = "held")] Held);

    impl AsRef<[u8]> for Body {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }

    // What is small is bounded by the number of connections.
    if body.len() <= UNIT {
        return Ok(body.into());
    }
    let mut held = Held::default();
    held.take(&ANSWERS, body.len())?;
    Ok(Bytes::from_owner(Body(body, held)))
}
