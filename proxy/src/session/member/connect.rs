//! Making a connection to one member: TCP, the PROXY header, TLS, and HTTP/2 where both have it.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use rustls::{CertificateError, ClientConfig, Error};
use tokio::time::Instant;

use super::{Carrier, Reuse, Route, Wanted};
use crate::{
    conn::{Conn, HandshakeError, TlsStream},
    http2::{Joined, MemberStreams, NotOpened, Place},
    local::LocalMember,
    logs::calendar::Wall,
    net,
    session::{
        dispatch::ConnectFailure,
        tls::{count_completed, count_failed, told},
    },
    state::{Counter, Failed, HandshakeCounters, HandshakeFailure, PoolCounters},
};

/// A handshake with a member. One that is given up, because the client has left, is counted as well.
struct Shaking<'a> {
    counters: &'a HandshakeCounters,
    /// What counts connections over TLS.
    open: &'a Arc<Counter>,
    begun: Cell<bool>,
}

impl Shaking<'_> {
    /// It has come to its end, whichever; false when none was begun.
    fn end(&self) -> bool {
        self.begun.take()
    }
}

impl Drop for Shaking<'_> {
    fn drop(&mut self) {
        if self.end() {
            self.counters.failed[HandshakeFailure::Closed as usize].add(1);
        }
    }
}

impl Route<'_> {
    /// Gets a connection, or a stream of one, while the member may have sessions; says when, and whether it is one that others have
    /// opened.
    pub(super) async fn connect_in_time(
        &self,
        member: &Rc<LocalMember>,
        address: SocketAddr,
        reuse: Reuse,
    ) -> Result<(Carrier, Instant, bool), ConnectFailure> {
        let mut drain = member.watch_drain();
        let mut connecting = pin!(self.connect_to(member, address, reuse));
        poll_fn(|cx| match connecting.as_mut().poll(cx) {
            Poll::Pending if drain.is_over(cx) => Poll::Ready(Err(ConnectFailure::Drained)),
            polled => polled,
        })
        .await
    }

    async fn connect_to(
        &self,
        member: &Rc<LocalMember>,
        address: SocketAddr,
        reuse: Reuse,
    ) -> Result<(Carrier, Instant, bool), ConnectFailure> {
        let PoolCounters { handshakes, tls_connections, .. } = member.pool_counters();
        let shaking = Shaking { counters: handshakes, open: tls_connections, begun: Cell::default() };
        let got = match self.streams(member) {
            None => {
                let config = self.config(member);
                let making = self.make(member, address, config.as_ref(), &shaking);
                let made = tokio::time::timeout(self.timeout, making).await;
                made.map(|made| made.map(|(conn, at)| (Carrier::Conn(conn), at, false)))
            }
            Some(streams) => {
                // In a place of its own: clients of members that are spoken to plainly are given no room for it.
                let joining = Box::pin(self.join(member, address, &streams, reuse, &shaking));
                tokio::time::timeout(self.timeout, joining).await
            }
        };
        got.unwrap_or_else(|_| {
            let mut what = Failed::ConnectLate;
            if shaking.end() {
                shaking.counters.failed[HandshakeFailure::Late as usize].add(1);
                what = Failed::HandshakeLate;
            }
            member.state.failed(what, &self.pool.plan.member_options);
            Err(ConnectFailure::Timeout)
        })
    }

    /// The same of a member that may be spoken to in HTTP/2.
    async fn join(
        &self,
        member: &Rc<LocalMember>,
        address: SocketAddr,
        streams: &MemberStreams,
        reuse: Reuse,
        shaking: &Shaking<'_>,
    ) -> Result<(Carrier, Instant, bool), ConnectFailure> {
        let joined = streams.join(reuse.streams()).await.map_err(|not| match not {
            NotOpened { for_good: true } => ConnectFailure::OtherHost,
            NotOpened { for_good: false } => ConnectFailure::Error,
        });
        let (place, reused) = match joined? {
            Joined::Place(place) => {
                member.counters().reuses.add(1);
                (place, true)
            }
            Joined::Connect(connecting) => {
                let config = self.pool.plan.tls.as_ref().map(|context| member.tls_config(context));
                let (conn, at) = match self.make(member, address, config.as_ref(), shaking).await {
                    Ok(made) => made,
                    Err(failure) => {
                        let for_good = failure == ConnectFailure::OtherHost;
                        connecting.has_failed(NotOpened { for_good });
                        return Err(failure);
                    }
                };
                if conn.alpn() != Some(b"h2") {
                    connecting.is_http1();
                    return Ok((Carrier::Conn(conn), at, false));
                }
                (connecting.start(conn, self.buffers).await.map_err(|_| ConnectFailure::Error)?, false)
            }
        };
        if self.wanted == Wanted::Upgrade {
            return self.tunnel(member, address, place, reused, shaking).await;
        }
        Ok((Carrier::Stream(place), Instant::now(), reused))
    }

    /// What an upgrade is asked for on, of a member that speaks HTTP/2.
    async fn tunnel(
        &self,
        member: &Rc<LocalMember>,
        address: SocketAddr,
        place: Place,
        reused: bool,
        shaking: &Shaking<'_>,
    ) -> Result<(Carrier, Instant, bool), ConnectFailure> {
        place.settled().await;
        let http1 = self.pool.plan.tls.as_ref().and_then(|context| member.http1_config(context));
        match http1 {
            Some(config) if !place.takes_extended_connect() => {
                drop(place);
                let (conn, at) = self.make(member, address, Some(&config), shaking).await?;
                Ok((Carrier::Conn(conn), at, false))
            }
            _ => Ok((Carrier::Stream(place), Instant::now(), reused)),
        }
    }

    /// Makes a connection, and counts it; says when it was there. From when on it is TLS that is waited for, it is `shaking` hands.
    async fn make(
        &self,
        member: &LocalMember,
        address: SocketAddr,
        config: Option<&Arc<ClientConfig>>,
        shaking: &Shaking<'_>,
    ) -> Result<(Conn, Instant), ConnectFailure> {
        let counters = member.counters();
        counters.connects.add(1);
        let begun = Instant::now();
        let shaken = self.shake_hands(address, config, shaking).await;
        let handshakes = &member.pool_counters().handshakes;
        let has_begun = shaking.end();
        match shaken {
            Ok(stream) => {
                let opened = Instant::now();
                counters.connect_time_us.add(opened.duration_since(begun).as_micros() as u64);
                if let Conn::Tls(stream) = &stream {
                    count_completed(handshakes, stream.session());
                }
                Ok((stream, opened))
            }
            Err(error) => {
                tracing::debug!(%address, %error, "connect");
                let what = if has_begun {
                    count_failed(handshakes, &error);
                    Failed::Handshake(told(&error))
                } else {
                    Failed::Connect(errno(&error))
                };
                // What is the client's choice of a name says little of the member.
                match what {
                    Failed::Handshake(why) if self.sni().is_some() && why.may_be_by_name() => {
                        member.state.record.failures.add(Wall::now(), what);
                    }
                    _ => member.state.failed(what, &self.pool.plan.member_options),
                }
                Err(match error {
                    HandshakeError::Tls(Error::InvalidCertificate(CertificateError::NotValidForName)) => {
                        ConnectFailure::OtherHost
                    }
                    _ => ConnectFailure::Error,
                })
            }
        }
    }

    async fn shake_hands(
        &self,
        address: SocketAddr,
        config: Option<&Arc<ClientConfig>>,
        shaking: &Shaking<'_>,
    ) -> Result<Conn, HandshakeError> {
        let speaks_first = self.speaks_first || config.is_some() || !self.header.is_empty();
        let source = self.pool.plan.member_options.transparent.then_some(self.flow.source);
        let stream = net::socket_to(address, source, speaks_first)?.connect(address).await?;
        // It fits the empty send buffer of a new connection, so this does not wait.
        let mut at = 0;
        while at < self.header.len() {
            stream.writable().await?;
            match stream.try_write(&self.header[at..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => at += written?,
            }
        }
        let Some(tls) = self.tls(config) else { return Ok(stream.into()) };
        shaking.begun.set(true);
        let mut stream = Box::new(TlsStream::client(stream, tls, address.ip(), self.buffers, shaking.open)?);
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(Conn::Tls(stream))
    }
}

/// 0 where the system says nothing.
fn errno(error: &HandshakeError) -> u16 {
    let HandshakeError::Socket(error) = error else { return 0 };
    error.raw_os_error().and_then(|errno| u16::try_from(errno).ok()).unwrap_or(0)
}
