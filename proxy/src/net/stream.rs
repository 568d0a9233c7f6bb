//! The seam between plain connections and encrypted ones.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A connection to a client or a member, plain or encrypted.
///
/// What the proxy does with a connection is generic over this; only [`as_plain_tcp`](Self::as_plain_tcp) tells the
/// kinds apart, because the kernel can move bytes between two plain connections without the proxy seeing them.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// The socket, when what is read from and written to it is the connection's payload: bytes may then be moved
    /// with splice(2). `None` when anything (a TLS session, bytes read ahead) sits between socket and payload.
    fn as_plain_tcp(&self) -> Option<&TcpStream>;
}

impl Stream for TcpStream {
    #[inline]
    fn as_plain_tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}
