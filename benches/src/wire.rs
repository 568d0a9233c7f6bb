//! A socket, plain or with TLS over it, for blocking code and for loops over epoll alike.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, ServerName},
};

use crate::{Result, tls::NAME};

/// A connection whose bytes are those of the application.
#[derive(Debug)]
pub enum Wire<S> {
    /// As they are.
    Plain(S),
    /// Encrypted. Whoever has written keeps calling [`Wire::push`] when the socket takes bytes again.
    Tls(Box<(S, Connection)>),
}

impl<S: Read + Write> Wire<S> {
    /// The client's side, with the name that all certificates of the benchmarks are for.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn client(socket: S, tls: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let Some(tls) = tls else { return Ok(Self::Plain(socket)) };
        let session = ClientConnection::new(tls.clone(), ServerName::try_from(NAME)?)?;
        Ok(Self::Tls(Box::new((socket, session.into()))))
    }

    /// The server's side.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn server(socket: S, tls: Option<&Arc<ServerConfig>>) -> Result<Self> {
        let Some(tls) = tls else { return Ok(Self::Plain(socket)) };
        Ok(Self::Tls(Box::new((socket, ServerConnection::new(tls.clone())?.into()))))
    }

    /// The socket.
    pub fn socket(&self) -> &S {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.0,
        }
    }

    /// Whether a read of `n` bytes into a buffer of `room` says that the socket is empty. One of TLS ends with a record.
    pub fn is_drained(&self, n: usize, room: usize) -> bool {
        matches!(self, Self::Plain(_)) && n < room
    }

    /// What kind of handshake it was; `None` without TLS or before its end.
    pub fn handshake(&self) -> Option<HandshakeKind> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.1.handshake_kind(),
        }
    }

    /// The certificate that the other side has shown.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.1.peer_certificates()?.first(),
        }
    }

    /// Sends what TLS has to send, as far as the socket takes it.
    ///
    /// # Errors
    /// Those of the socket, but not that it is full or not connected yet.
    pub fn push(&mut self) -> io::Result<()> {
        let Self::Tls(tls) = self else { return Ok(()) };
        let (socket, session) = &mut **tls;
        while session.wants_write() {
            match session.write_tls(socket) {
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl<S: Read + Write> Read for Wire<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (socket, session) = match self {
            Self::Plain(socket) => return socket.read(buffer),
            Self::Tls(tls) => (&mut tls.0, &mut tls.1),
        };
        loop {
            match session.reader().read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // HTTP says where an answer ends: whoever closes without saying so in TLS has closed all the same.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            let came = session.read_tls(socket);
            if let Ok(n) = came
                && n > 0
            {
                let taken = session.process_new_packets().map_err(io::Error::other);
                // The other side learns why from the alert.
                Self::push(self)?;
                taken?;
                return self.read(buffer);
            }
            came?;
            // The end of the stream: the reader knows whether it was announced.
            session.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl<S: Read + Write> Write for Wire<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = match self {
            Self::Plain(socket) => return socket.write(bytes),
            Self::Tls(tls) => tls.1.writer().write(bytes)?,
        };
        self.push()?;
        if n == 0 && !bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(_) => self.push(),
        }
    }
}
