//! Which member to try, and which after it failed: HAProxy's `retries 3` with `option redispatch`, without I/O.

use std::time::Duration;

/// Attempts after the first (HAProxy `retries 3`, as Octavia renders it).
pub(crate) const RETRIES: usize = 3;
/// A member that refused is not asked again sooner than this, or than `timeout connect` if that is shorter.
pub(crate) const TURNAROUND: Duration = Duration::from_secs(1);

/// How a connection attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectFailure {
    /// At once: refused, unreachable.
    Error,
    /// `timeout connect` has passed.
    Timeout,
    /// The member's certificate is for other hosts than the one that the client has asked for: HAProxy's `CO_ER_SSL_MISMATCH_SNI`.
    OtherHost,
    /// The time is over in which the member may finish what it has.
    Drained,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try the same member again, after a pause.
    Same(Duration),
    /// Let the algorithm choose another one.
    Other,
    /// 503.
    GiveUp,
}

/// The attempts of one request or connection.
#[derive(Debug)]
pub(crate) struct Dispatch {
    failures: usize,
    tried: [usize; RETRIES + 1],
    free_choice: bool,
}

impl Dispatch {
    /// `free_choice` holds when nothing ties the session to its member: no persistence, round robin, and more
    /// than one member that is up. HAProxy then goes straight to another member.
    pub(crate) fn new(free_choice: bool) -> Self {
        Self { failures: 0, tried: [usize::MAX; RETRIES + 1], free_choice }
    }

    /// Records that the attempt at `member` failed.
    pub(crate) fn failed(
        &mut self,
        member: usize,
        failure: ConnectFailure,
        connect_timeout: Duration,
    ) -> Next {
        // What the client has asked for is not to be had of this pool: neither time nor another member would change that.
        if self.failures == RETRIES || failure == ConnectFailure::OtherHost {
            return Next::GiveUp;
        }
        self.tried[self.failures] = member;
        self.failures += 1;
        if self.free_choice || self.failures == RETRIES || failure == ConnectFailure::Drained {
            Next::Other
        } else {
            match failure {
                ConnectFailure::Timeout => Next::Same(Duration::ZERO),
                _ => Next::Same(TURNAROUND.min(connect_timeout)),
            }
        }
    }

    /// Whether an attempt at this member has failed.
    pub(crate) fn has_tried(&self, member: usize) -> bool {
        self.tried[..self.failures].contains(&member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECT: Duration = Duration::from_secs(5);

    #[test]
    fn a_tied_session_retries_its_member_and_is_redispatched_last() {
        let mut dispatch = Dispatch::new(false);
        assert_eq!(dispatch.failed(4, ConnectFailure::Error, CONNECT), Next::Same(TURNAROUND));
        assert_eq!(dispatch.failed(4, ConnectFailure::Timeout, CONNECT), Next::Same(Duration::ZERO));
        assert_eq!(dispatch.failed(4, ConnectFailure::Error, CONNECT), Next::Other);
        assert!(dispatch.has_tried(4) && !dispatch.has_tried(5));
        assert_eq!(dispatch.failed(5, ConnectFailure::Error, CONNECT), Next::GiveUp);
    }

    #[test]
    fn a_free_session_goes_to_another_member_each_time() {
        let mut dispatch = Dispatch::new(true);
        for member in 0..RETRIES {
            assert_eq!(dispatch.failed(member, ConnectFailure::Error, CONNECT), Next::Other);
        }
        assert_eq!(dispatch.failed(3, ConnectFailure::Error, CONNECT), Next::GiveUp);
    }

    #[test]
    fn a_member_whose_time_is_over_is_not_tried_again() {
        for mut dispatch in [Dispatch::new(false), Dispatch::new(true)] {
            assert_eq!(dispatch.failed(4, ConnectFailure::Drained, CONNECT), Next::Other);
            assert!(dispatch.has_tried(4));
        }
    }

    #[test]
    fn a_member_that_is_for_other_hosts_is_the_last_to_be_tried() {
        for mut dispatch in [Dispatch::new(false), Dispatch::new(true)] {
            assert_ne!(dispatch.failed(0, ConnectFailure::Error, CONNECT), Next::GiveUp);
            assert_eq!(dispatch.failed(1, ConnectFailure::OtherHost, CONNECT), Next::GiveUp);
        }
    }

    #[test]
    fn the_pause_is_never_longer_than_the_connect_timeout() {
        let mut dispatch = Dispatch::new(false);
        let short = Duration::from_millis(200);
        assert_eq!(dispatch.failed(0, ConnectFailure::Error, short), Next::Same(short));
    }
}
