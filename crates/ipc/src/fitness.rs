//! What the data plane and the VRRP daemon tell each other: a unix stream socket beside the control socket. The peer sends
//! octets, and is answered one for all of a kind that it has sent meanwhile:
//!
//! | asked | answered |
//! | --- | --- |
//! | [`QUIESCE`] | [`QUIET`] when no client is left, else [`BUSY`]; from the first one on no new client is let in, and the present ones are let go after the response under way |
//! | [`RESUME`] | as any other; new clients are let in again |
//! | [`ASK`], or any other | [`FIT`] or [`UNFIT`] |
//!
//! A peer that gets no answer in time takes the proxy for hung; one whose connection closes takes it for dead. A proxy that
//! carries no load balancer, or one that is switched off, is fit: no other could do better. New clients are let in
//! again, too, when the connection that kept them out closes.

use std::path::{Path, PathBuf};

/// Asks how the data plane is.
pub const ASK: u8 = b'?';
/// The answer of a data plane that serves.
pub const FIT: u8 = b'+';
/// The answer of one that has lost a worker.
pub const UNFIT: u8 = b'-';
/// Asks to let clients go, because the VIP is about to move.
pub const QUIESCE: u8 = b'q';
/// Asks to let them in again.
pub const RESUME: u8 = b'r';
/// The answer to [`QUIESCE`] when no client is left.
pub const QUIET: u8 = b'd';
/// The answer to [`QUIESCE`] when some are.
pub const BUSY: u8 = b'b';

/// Where the socket is that belongs to a control socket: the same name with `.fitness` behind it.
pub fn socket_beside(control_socket: &Path) -> PathBuf {
    let mut path = control_socket.as_os_str().to_owned();
    path.push(".fitness");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_beside_the_control_socket() {
        assert_eq!(socket_beside(Path::new("/run/a/proxy.sock")), Path::new("/run/a/proxy.sock.fitness"));
    }
}
