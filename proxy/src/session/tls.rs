//! TLS of clients: the handshake, before there is a session; and how handshakes are counted.

use std::{future::poll_fn, net::SocketAddr, rc::Rc, sync::Arc, task::Poll};

use rustls::{CertificateError, Connection, Error, HandshakeKind};
use tokio::{net::TcpStream, time::Instant};

use super::begin;
use crate::{
    conn::{Accepting, Conn, Deadline, HandshakeError, TlsStream},
    local::{LocalListener, Worker},
    state::{Handshake, HandshakeCounters, HandshakeFailure},
    tls::ServerContext,
};

/// Shakes hands with a client, within `timeout_client_data` of its coming as HAProxy, and begins its session when that is done:
/// a task of its own, so that a client that takes its time costs nothing of it. `held` is dropped when the connection has
/// ended.
pub(super) async fn serve<H: 'static>(
    worker: Rc<Worker>,
    listener: Rc<LocalListener>,
    context: Arc<ServerContext>,
    stream: TcpStream,
    client: SocketAddr,
    held: H,
) {
    let begun = Instant::now();
    let accepting = Accepting::new(stream, context, &worker.pools.buffers);
    let shaken = shake_hands(&listener, accepting).await;
    let counters = listener.state().counters.of(worker.index);
    match shaken {
        Some(Ok(stream)) => {
            count_completed(&counters.handshakes, stream.session());
            counters.connections_total.add(1);
            begin(worker, listener, Conn::Tls(stream), client, held);
        }
        Some(Err(error)) => {
            tracing::debug!(%client, %error, "handshake");
            count_failed(&counters.handshakes, &error);
            log_failed(&worker, &listener, client, begun, what_haproxy_says(&error));
        }
        None => {
            counters.handshakes.failed[HandshakeFailure::Late as usize].add(1);
            log_failed(&worker, &listener, client, begun, "Timeout during SSL handshake");
        }
    }
}

/// A line for a client with whom there was no session.
fn log_failed(worker: &Worker, listener: &LocalListener, client: SocketAddr, begun: Instant, why: &str) {
    if let Some(plan) = &listener.plan().log {
        worker.logs.write_error(plan, client, begun, why);
    }
}

/// HAProxy's conn_err_code_str.
fn what_haproxy_says(error: &HandshakeError) -> &'static str {
    match error {
        HandshakeError::Unheard => "Connection closed during SSL handshake",
        HandshakeError::Tls(Error::InvalidCertificate(_)) => "SSL client certificate not trusted",
        HandshakeError::Closed | HandshakeError::Socket(_) | HandshakeError::Tls(_) => {
            "SSL handshake failure"
        }
    }
}

/// `None` is too late. Who has connected before his listener goes may still begin, as he may still ask.
async fn shake_hands(
    listener: &LocalListener,
    mut accepting: Accepting,
) -> Option<Result<Box<TlsStream>, HandshakeError>> {
    let mut deadline = Deadline::never();
    deadline.set(Some(Instant::now() + listener.timeouts().client_data));
    poll_fn(|cx| {
        if let Poll::Ready(shaken) = accepting.poll(cx) {
            return Poll::Ready(Some(shaken));
        }
        deadline.poll_expired(cx).map(|()| None)
    })
    .await
}

/// Counts a handshake that was completed.
pub(super) fn count_completed(counters: &HandshakeCounters, session: &Connection) {
    counters.completed.add(1);
    if session.handshake_kind() == Some(HandshakeKind::Resumed) {
        counters.resumed.add(1);
    }
}

/// Counts one that was not.
pub(super) fn count_failed(counters: &HandshakeCounters, error: &HandshakeError) {
    counters.failed[reason(error) as usize].add(1);
}

fn reason(error: &HandshakeError) -> HandshakeFailure {
    use HandshakeFailure::*;
    match error {
        HandshakeError::Unheard | HandshakeError::Closed | HandshakeError::Socket(_) => Closed,
        HandshakeError::Tls(error) => match error {
            Error::AlertReceived(_) => Alert,
            Error::NoCertificatesPresented
            | Error::InvalidCertificate(_)
            | Error::InvalidCertRevocationList(_)
            | Error::UnsupportedNameType => Certificate,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Incompatible,
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidMessage(_)
            | Error::PeerMisbehaved(_)
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => Protocol,
            _ => Other,
        },
    }
}

/// Why a handshake with a member has failed, for who looks for the reason.
pub(super) fn told(error: &HandshakeError) -> Handshake {
    use CertificateError as Bad;
    match error {
        HandshakeError::Tls(Error::AlertReceived(alert)) => Handshake::Alert(u8::from(*alert)),
        HandshakeError::Tls(Error::InvalidCertificate(error)) => match error {
            Bad::Expired | Bad::ExpiredContext { .. } => Handshake::Expired,
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => Handshake::NotYetValid,
            Bad::Revoked => Handshake::Revoked,
            Bad::UnknownIssuer => Handshake::UnknownIssuer,
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Handshake::OtherName,
            _ => Handshake::Certificate,
        },
        error => match reason(error) {
            HandshakeFailure::Closed | HandshakeFailure::Late => Handshake::Closed,
            HandshakeFailure::Certificate => Handshake::Certificate,
            HandshakeFailure::Incompatible => Handshake::Incompatible,
            HandshakeFailure::Protocol => Handshake::Protocol,
            HandshakeFailure::Alert | HandshakeFailure::Other => Handshake::Other,
        },
    }
}
