//! How workers wake who watches the members: without a lock, and once for however many have something to tell.

use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
};

/// By default nobody is woken; what was raised is found by looking.
#[derive(Debug, Default)]
pub struct Alarm {
    raised: AtomicBool,
    waker: Option<UnixStream>,
}

impl Alarm {
    /// One by which somebody can be woken: who waits for a byte on what comes with it.
    ///
    /// # Errors
    /// When there are no descriptors to be had.
    pub fn new() -> io::Result<(Self, UnixStream)> {
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok((Self { raised: AtomicBool::new(false), waker: Some(waker) }, woken))
    }

    /// There is something to look at.
    pub fn raise(&self) {
        if !self.raised.swap(true, Ordering::AcqRel)
            && let Some(waker) = &self.waker
        {
            // Where there is no room for another byte, one is there that wakes as well.
            let _ = (&*waker).write(&[1]);
        }
    }

    /// Whether it was raised since this was asked last.
    pub fn take(&self) -> bool {
        self.raised.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read as _;

    use super::*;

    #[test]
    fn it_is_raised_until_it_is_taken_and_wakes_once() {
        let (alarm, mut woken) = Alarm::new().unwrap();
        let mut byte = [0];
        assert!(!alarm.take() && woken.read(&mut byte).is_err());
        for _ in 0..2 {
            alarm.raise();
            alarm.raise();
            assert!(woken.read(&mut byte).is_ok() && woken.read(&mut byte).is_err());
            assert!(alarm.take() && !alarm.take());
        }
    }
}
