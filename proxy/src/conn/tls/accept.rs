//! The handshake with a client, from its first byte.

use std::{
    io, mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{InvalidMessage, server::Acceptor};
use tokio::net::TcpStream;

use super::{HandshakeError, Output, TlsStream};
use crate::{
    conn::{
        BufferPool,
        plain::{self, Then},
    },
    tls::ServerContext,
};

/// A client that shakes hands. Nothing is known of it before its hello has come, which takes as long as the client likes.
pub struct Accepting {
    context: Arc<ServerContext>,
    pool: BufferPool,
    state: State,
}

enum State {
    /// The hello is not there in full.
    Hello(TcpStream, Box<Acceptor>),
    /// It was answered.
    Answered(Box<TlsStream>),
    Done,
}

impl Accepting {
    /// With a client that is connected.
    pub fn new(socket: TcpStream, context: Arc<ServerContext>, pool: &BufferPool) -> Self {
        Self { context, pool: pool.clone(), state: State::Hello(socket, Box::default()) }
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// When it does not come about. An alert is on its way then, if it is due.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<TlsStream>, HandshakeError>> {
        loop {
            match &mut self.state {
                State::Hello(socket, _) => {
                    ready!(socket.poll_read_ready(cx))?;
                    let mut buffer = self.pool.get();
                    let n = match plain::read_ready(socket, buffer.spare()) {
                        Ok(0) => return Poll::Ready(Err(HandshakeError::Closed)),
                        Ok(n) => n,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        Err(error) => return Poll::Ready(Err(error.into())),
                    };
                    let mut bytes = &buffer.spare()[..n];
                    if self.hear(&mut bytes)? {
                        let State::Answered(stream) = &mut self.state else { continue };
                        stream.feed(bytes);
                    }
                }
                State::Answered(stream) => {
                    ready!(stream.poll_handshake(cx))?;
                    let State::Answered(stream) = mem::replace(&mut self.state, State::Done) else {
                        continue;
                    };
                    return Poll::Ready(Ok(stream));
                }
                State::Done => return Poll::Ready(Err(HandshakeError::Closed)),
            }
        }
    }

    /// Takes in a part of the hello; true when that was its end, with what comes behind it left in `bytes`.
    fn hear(&mut self, bytes: &mut &[u8]) -> Result<bool, HandshakeError> {
        while let State::Hello(socket, acceptor) = &mut self.state
            && !bytes.is_empty()
        {
            let heard = match acceptor.read_tls(bytes) {
                // More than any hello may have.
                Err(_) => {
                    return Err(
                        rustls::Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge).into()
                    );
                }
                Ok(_) => acceptor.accept(),
            };
            let refused = |error, alert: rustls::server::AcceptedAlert, socket: &TcpStream| {
                if is_too_old(&error) {
                    let _ = plain::write_ready(socket, &[io::IoSlice::new(&PROTOCOL_VERSION)], Then::More);
                } else if !is_not_tls(&error) {
                    say(alert, socket);
                }
                Err(HandshakeError::Tls(error))
            };
            match heard {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let config = self.context.config_for(&accepted);
                    match accepted.into_connection(config) {
                        Ok(session) => {
                            let State::Hello(socket, _) = mem::replace(&mut self.state, State::Done) else {
                                return Ok(false);
                            };
                            let stream = TlsStream::new(socket, session.into(), &self.pool);
                            self.state = State::Answered(Box::new(stream));
                            return Ok(true);
                        }
                        Err((error, alert)) => return refused(error, alert, socket),
                    }
                }
                Err((error, alert)) => return refused(error, alert, socket),
            }
        }
        Ok(false)
    }
}

/// A fatal alert (RFC 5246 section 7.2): `protocol_version`.
const PROTOCOL_VERSION: [u8; 7] = [21, 3, 1, 0, 2, 2, 70];

/// Whether a client knows TLS 1.1 at the most: what rustls misses first came with TLS 1.2. OpenSSL tells it the reason.
fn is_too_old(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::PeerIncompatible(rustls::PeerIncompatible::SignatureAlgorithmsExtensionRequired)
    )
}

/// Whether a client speaks something else, plain HTTP for instance: OpenSSL says nothing to it, and it would not
/// understand.
fn is_not_tls(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion
        )
    )
}

/// Sends the alert, as far as the kernel takes it now.
fn say(mut alert: rustls::server::AcceptedAlert, socket: &TcpStream) {
    let _ = alert.write_all(&mut Output { socket, then: Then::More });
}
