//! The handshake with a client, from its first byte.

use std::{
    io::{self, Write},
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    AlertDescription, InvalidMessage, PeerMisbehaved, ProtocolVersion,
    server::{AcceptedAlert, Acceptor},
};
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
                        Ok(0) => return Poll::Ready(Err(HandshakeError::Unheard)),
                        Ok(n) => n,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        Err(error) => return Poll::Ready(Err(error.into())),
                    };
                    let mut bytes = &buffer.spare()[..n];
                    if self.hear(&mut bytes)? {
                        let State::Answered(stream) = &mut self.state else { continue };
                        // What came with the hello, in its record or behind it, is with rustls already.
                        stream.process();
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
                    let error = rustls::Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);
                    return Err(refuse(error, None, socket));
                }
                Ok(_) => acceptor.accept(),
            };
            match heard {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let config = self.context.config_for(&accepted);
                    let fallback = self.context.is_fallback(&accepted);
                    match accepted.into_connection(config) {
                        Ok(session)
                            if fallback && session.protocol_version() == Some(ProtocolVersion::TLSv1_2) =>
                        {
                            let error = PeerMisbehaved::AttemptedDowngradeToTls12WhenTls13IsSupported;
                            return Err(refuse(error.into(), None, socket));
                        }
                        Ok(session) => {
                            let State::Hello(socket, _) = mem::replace(&mut self.state, State::Done) else {
                                return Ok(false);
                            };
                            let stream = TlsStream::new(socket, session.into(), &self.pool);
                            self.state = State::Answered(Box::new(stream));
                            return Ok(true);
                        }
                        Err((error, alert)) => return Err(refuse(error, Some(alert), socket)),
                    }
                }
                Err((error, alert)) => return Err(refuse(error, Some(alert), socket)),
            }
        }
        Ok(false)
    }
}

/// Tells the client why not, as far as the kernel takes it now, with rustls' alert where it has one.
fn refuse(error: rustls::Error, alert: Option<AcceptedAlert>, socket: &TcpStream) -> HandshakeError {
    let mut output = Output { socket, then: Then::More };
    if is_too_old(&error) {
        let _ = output.write(&fatal(AlertDescription::ProtocolVersion));
    } else if !is_not_tls(&error) {
        let said = alert.and_then(|mut alert| alert.write(&mut output).ok()).unwrap_or(0);
        if said == 0
            && let Some(description) = unsaid(&error)
        {
            let _ = output.write(&fatal(description));
        }
    }
    plain::discard(socket, plain::MOST_UNREAD);
    error.into()
}

/// A fatal alert before there are keys (RFC 5246 section 7.2).
fn fatal(description: AlertDescription) -> [u8; 7] {
    [21, 3, 1, 0, 2, 2, description.into()]
}

/// The same in a handshake of TLS 1.2: `unexpected_message`.
pub(super) const UNEXPECTED: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];

/// What a client is to be told of an error that rustls returns without an alert, as RFC 8446 section 6.2 wants it: a message
/// that is no hello, another kind of record in the middle of one, empty records without end, a hello without end.
fn unsaid(error: &rustls::Error) -> Option<AlertDescription> {
    use rustls::Error::*;
    match error {
        PeerMisbehaved(self::PeerMisbehaved::AttemptedDowngradeToTls12WhenTls13IsSupported) => {
            Some(AlertDescription::InappropriateFallback)
        }
        InappropriateMessage { .. } | InappropriateHandshakeMessage { .. } | PeerMisbehaved(_) => {
            Some(AlertDescription::UnexpectedMessage)
        }
        // As OpenSSL tells it.
        InvalidMessage(self::InvalidMessage::HandshakePayloadTooLarge) => {
            Some(AlertDescription::IllegalParameter)
        }
        InvalidMessage(_) => Some(AlertDescription::DecodeError),
        _ => None,
    }
}

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
