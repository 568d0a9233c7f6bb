//! One request at one member: the head and the body towards it, the response back, both at once where the peers
//! want it so (an early response, `100 Continue`).

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use amphora_model::ListenerTimeouts;
use tokio::time::Instant;

use super::{
    body::{BodyRelay, RelayError, Sink},
    downstream::Downstream,
    upstream::Upstream,
};
use crate::{
    conn::{Conn, Then},
    http::ResponseHead,
    limits::rate::Charge,
    local::Worker,
    state::{Failed, ListenerCounters, Unfit},
};

/// Why an exchange did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The member closed or failed before the first byte of a response.
    Unanswered,
    /// The same, and it is certain that it has not acted on the request (RFC 9113 section 8.7).
    NotProcessed,
    /// It did so behind the first byte of a head: 502.
    CutHead,
    /// What the member sent is not a response: 502.
    BadResponse,
    /// What the member sent is none for this client, or it has nothing for it: 502.
    Unfit(Unfit),
    /// The member took too long to begin its response: 504.
    MemberLate,
    /// The client closed or failed.
    ClientGone,
    /// The client took too long to send its body: 408.
    ClientLate,
    /// The client's body is malformed: 400.
    BadBody,
    /// The member closed or failed after the response had begun, and all that is left is to close.
    Cut,
    /// The same, since the member took too long.
    CutLate,
    /// The same, since what the member sent is no body.
    CutBad,
    /// The member drains and its time is over: before its response has begun 503, where nobody else can be asked, and later all that is
    /// left is to close.
    Drained,
}

impl Failure {
    /// What of it is the member's doing.
    pub(super) fn of_member(self) -> Option<Failed> {
        match self {
            Self::Unanswered => Some(Failed::Unanswered),
            Self::CutHead => Some(Failed::CutHead),
            Self::BadResponse => Some(Failed::BadResponse),
            Self::Unfit(why) => Some(Failed::Unfit(why)),
            Self::MemberLate => Some(Failed::Late),
            Self::Cut => Some(Failed::Cut),
            Self::CutLate => Some(Failed::CutLate),
            Self::CutBad => Some(Failed::CutBad),
            // It has said so, and asks for another try.
            Self::NotProcessed | Self::ClientGone | Self::ClientLate | Self::BadBody | Self::Drained => None,
        }
    }
}

/// A request under way.
pub(super) struct Exchange<'a, 'd> {
    pub(super) downstream: &'a mut Downstream<'d>,
    pub(super) upstream: &'a mut Upstream,
    pub(super) worker: &'a Worker,
    pub(super) upload: BodyRelay,
    pub(super) timeouts: &'a ListenerTimeouts,
    pub(super) counters: &'a ListenerCounters,
    /// Whose the bytes are, where they are counted.
    pub(super) charge: Option<Rc<Charge>>,
    /// The member does not read any more; what is left of the request is not sent.
    pub(super) upload_broken: bool,
    /// The client may never send its body: it has asked whether to, and is told no.
    pub(super) body_declined: bool,
    /// The client's connection ends with the response.
    pub(super) closes: bool,
    /// What the rest of the request has come to, of one whose response is complete.
    pub(super) rest: Option<Failure>,
    /// The member has not taken all of the request, and what it has not taken was read and passed over.
    pub(super) passed_over: bool,
}

impl Exchange<'_, '_> {
    /// Whether all of the request has been sent.
    pub(super) fn is_sent(&self) -> bool {
        self.upload.is_done() && !self.upload_broken
    }

    /// So much has come of the client that no member gets.
    fn came(&self, bytes: u64) {
        self.counters.bytes_in.add(bytes);
        self.charge(bytes);
    }

    /// So much has gone to the client.
    #[inline]
    pub(super) fn went(&self, bytes: u64) {
        self.counters.bytes_out.add(bytes);
        self.charge(bytes);
    }

    /// The next request is judged by it, also while this one is under way.
    #[inline]
    fn charge(&self, bytes: u64) {
        if let Some(charge) = &self.charge
            && bytes > 0
        {
            charge.add(bytes, self.worker.since(Instant::now()));
        }
    }

    /// Whether the client's connection outlives a member that takes no more of the request: the rest is read and passed over.
    fn passes_over(&self) -> bool {
        let by_member = matches!(self.rest, None | Some(Failure::Cut));
        self.upload_broken && by_member && !self.closes && !self.downstream.is_stream()
    }

    /// Reads what has come of the request that the member does not take; true when anything has.
    fn poll_pass_over(&mut self, cx: &mut Context<'_>) -> bool {
        let mut passed = 0;
        match self.upload.poll_discard(cx, self.downstream.source(), &mut passed) {
            Poll::Ready(Ok(())) => self.passed_over = true,
            Poll::Ready(Err(RelayError::Malformed)) => {
                tracing::debug!("malformed body behind an early response");
                self.counters.request_errors.add(1);
                self.rest = Some(Failure::BadBody);
            }
            Poll::Ready(Err(_)) => self.rest = Some(Failure::ClientGone),
            Poll::Pending => {}
        }
        self.came(passed);
        passed > 0
    }

    /// Sends `head[*sent..]` and the body, and waits for the head of a response; says how long that is. Only what is
    /// sent is `progress`: interim responses buy the member no time.
    pub(super) async fn response_head(
        &mut self,
        head: &[u8],
        sent: &mut usize,
        response: &mut ResponseHead,
        progress: &mut Progress,
    ) -> Result<usize, Failure> {
        response.reset();
        let mut unparsed = match self.upstream {
            Upstream::Http1(connection) => !connection.inlet.is_empty(),
            Upstream::Http2(_) => false,
        };
        poll_fn(|cx| {
            if self.poll_send(cx, head, sent)? {
                progress.made();
            }
            match &mut *self.upstream {
                Upstream::Http1(connection) => loop {
                    if unparsed {
                        unparsed = false;
                        match response.parse(connection.inlet.filled()) {
                            Ok(Some(length)) => return Poll::Ready(Ok(length)),
                            Ok(None) => {}
                            Err(reason) => {
                                tracing::debug!(%reason, "bad response");
                                return Poll::Ready(Err(Failure::BadResponse));
                            }
                        }
                    }
                    match connection.inlet.poll_fill(cx, &mut connection.stream) {
                        Poll::Ready(Ok(n)) if n > 0 => {
                            connection.slot.member().counters().bytes_out.add(n as u64);
                            unparsed = true;
                        }
                        Poll::Ready(_) if connection.inlet.is_empty() => {
                            return Poll::Ready(Err(Failure::Unanswered));
                        }
                        Poll::Ready(_) => return Poll::Ready(Err(Failure::CutHead)),
                        Poll::Pending => break,
                    }
                },
                Upstream::Http2(stream) => {
                    if let Poll::Ready(read) = stream.poll_head(cx, response) {
                        if let Ok(length) = read {
                            self.upstream.counters().bytes_out.add(length as u64);
                        }
                        return Poll::Ready(read);
                    }
                }
            }
            if self.is_drained(cx) {
                return Poll::Ready(Err(Failure::Drained));
            }
            let all_sent = *sent == head.len() && self.upload.is_done();
            if (all_sent || self.upload_broken) && self.downstream.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            let client_owes = *sent == head.len()
                && !self.upload_broken
                && !self.upload.is_done()
                && !self.upload.waits_for_destination();
            let (patience, late) = if client_owes {
                (self.timeouts.client_data, Failure::ClientLate)
            } else {
                (self.timeouts.member_data, Failure::MemberLate)
            };
            self.poll_late(cx, progress, patience).map(|()| Err(late))
        })
        .await
    }

    /// Sends the response's head `head` and relays its body, and what is left of the request's: a member that has
    /// answered early still gets all of it, unless it stops reading. It is `now`. Says when it was done.
    pub(super) async fn relay(
        &mut self,
        head: &[u8],
        download: &mut BodyRelay,
        now: Instant,
    ) -> Result<Instant, Failure> {
        let mut sent = 0;
        let mut answered = false;
        let mut progress = Progress::new(now);
        poll_fn(|cx| {
            if !self.upload.is_done() {
                let was_broken = self.upload_broken;
                match self.poll_send(cx, &[], &mut 0) {
                    // One of HTTP/2 may well say that it needs no more (RFC 9113 section 8.1).
                    Ok(_) if self.upload_broken && !was_broken && !self.upstream.is_stream() => {
                        self.rest = Some(Failure::Cut);
                    }
                    Ok(true) => progress.made(),
                    Ok(false) => {}
                    // The client has got what it asked for, and leaves.
                    Err(failure) if answered => {
                        self.rest = Some(failure);
                        self.upload_broken = true;
                    }
                    Err(Failure::BadBody) => {
                        // The response has begun, so nothing but the response may be said any more. It is
                        // completed, and then the connection is closed.
                        tracing::debug!("malformed body behind an early response");
                        self.counters.request_errors.add(1);
                        self.rest = Some(Failure::BadBody);
                        self.upload_broken = true;
                    }
                    Err(failure) => return Poll::Ready(Err(failure)),
                }
            }
            if self.passes_over() && !self.passed_over && self.poll_pass_over(cx) {
                progress.made();
            }
            while !answered {
                if sent < head.len() {
                    match ready_or_break(self.poll_send_response(cx, &head[sent..], download))? {
                        Some(n) => {
                            sent += n;
                            progress.made();
                        }
                        None => break,
                    }
                    continue;
                }
                let before = download.moved();
                let polled =
                    download.poll(cx, self.upstream.source(), self.downstream.sink(), &self.worker.pools);
                let moved = download.moved() - before;
                if moved > 0 {
                    self.went(moved);
                    self.upstream.counters().bytes_out.add(moved);
                    progress.made();
                }
                match polled {
                    Poll::Ready(Ok(())) => answered = true,
                    Poll::Ready(Err(RelayError::Destination)) => {
                        return Poll::Ready(Err(Failure::ClientGone));
                    }
                    Poll::Ready(Err(RelayError::Source)) => return Poll::Ready(Err(Failure::Cut)),
                    Poll::Ready(Err(RelayError::Malformed)) => return Poll::Ready(Err(Failure::CutBad)),
                    Poll::Pending => break,
                }
            }
            if answered {
                let declined = self.body_declined && self.upload.moved() == 0;
                let given_up = self.upload_broken && !self.passes_over();
                if self.is_sent() || self.passed_over || given_up || declined {
                    return Poll::Ready(Ok(progress.last()));
                }
                if self.is_drained(cx) {
                    self.rest = Some(Failure::Drained);
                    return Poll::Ready(Ok(progress.last()));
                }
                let member_owes = self.upload.waits_for_destination() && !self.upload_broken;
                let (patience, late) = if member_owes {
                    (self.timeouts.member_data, Failure::CutLate)
                } else {
                    (self.timeouts.client_data, Failure::ClientLate)
                };
                return self.poll_late(cx, &mut progress, patience).map(|()| {
                    self.rest = Some(late);
                    Ok(progress.last())
                });
            }
            if self.is_drained(cx) {
                return Poll::Ready(Err(Failure::Drained));
            }
            if (self.upload.is_done() || self.upload_broken) && self.downstream.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            let client_owes = sent < head.len() || download.waits_for_destination();
            let (patience, late) = if client_owes {
                (self.timeouts.client_data, Failure::ClientLate)
            } else {
                (self.timeouts.member_data, Failure::CutLate)
            };
            self.poll_late(cx, &mut progress, patience).map(|()| Err(late))
        })
        .await
    }

    /// Sends what can be sent of the request now; true when anything was. A member that stops reading is no
    /// failure yet: its response may say why.
    fn poll_send(&mut self, cx: &mut Context<'_>, head: &[u8], sent: &mut usize) -> Result<bool, Failure> {
        let any = self.poll_send_some(cx, head, sent);
        if let Some(charge) = &self.charge {
            charge.sent(self.upload.moved(), self.worker.since(Instant::now()));
        }
        any
    }

    fn poll_send_some(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        sent: &mut usize,
    ) -> Result<bool, Failure> {
        let mut any = false;
        while !self.upload_broken {
            if *sent < head.len() {
                let claimed = self.upload.claim(cx, self.downstream.source());
                let (body, _) = claimed.map_err(|error| match error {
                    RelayError::Malformed => Failure::BadBody,
                    _ => Failure::ClientGone,
                })?;
                let Sink::Http1(stream) = self.upstream.sink() else { break };
                match poll_write_some(cx, stream, &head[*sent..], body, Then::More) {
                    Poll::Ready(Ok(n)) => {
                        let of_head = n.min(head.len() - *sent);
                        *sent += of_head;
                        if n > of_head {
                            self.upload.wrote(self.downstream.source(), n - of_head);
                            self.counters.bytes_in.add((n - of_head) as u64);
                        }
                        self.upstream.counters().bytes_in.add(n as u64);
                        any = true;
                    }
                    Poll::Ready(Err(_)) => self.upload_broken = true,
                    Poll::Pending => break,
                }
                continue;
            }
            if self.upload.is_done() {
                break;
            }
            let before = self.upload.moved();
            let pools = &self.worker.pools;
            let polled = self.upload.poll(cx, self.downstream.source(), self.upstream.sink(), pools);
            let moved = self.upload.moved() - before;
            if moved > 0 {
                any = true;
                self.counters.bytes_in.add(moved);
                self.upstream.counters().bytes_in.add(moved);
            }
            match polled {
                Poll::Ready(Ok(())) | Poll::Pending => break,
                Poll::Ready(Err(RelayError::Destination)) => self.upload_broken = true,
                Poll::Ready(Err(RelayError::Source)) => return Err(Failure::ClientGone),
                Poll::Ready(Err(RelayError::Malformed)) => return Err(Failure::BadBody),
            }
        }
        Ok(any)
    }

    /// Sends the rest of the response's head together with what is there of its body.
    fn poll_send_response(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        download: &mut BodyRelay,
    ) -> Poll<Result<usize, Failure>> {
        // What has come with the head is known to be good, or this was not the response.
        let claimed = download.claim(cx, self.upstream.source());
        let (body, all) = claimed.map_err(|error| match error {
            RelayError::Malformed => Failure::CutBad,
            _ => Failure::Cut,
        })?;
        let last = self.closes && self.upload.is_done() && !self.upload_broken && all;
        let then = if last { Then::End } else { Then::More };
        let Sink::Http1(stream) = self.downstream.sink() else { return Poll::Ready(Ok(head.len())) };
        let written = ready!(poll_write_some(cx, stream, head, body, then));
        let n = written.map_err(|_| Failure::ClientGone)?;
        let of_head = n.min(head.len());
        if n > of_head {
            download.wrote(self.upstream.source(), n - of_head);
        }
        self.went(n as u64);
        Poll::Ready(Ok(of_head))
    }

    /// Whether the member drains and its time is over; otherwise the task is woken when it may be.
    #[inline]
    fn is_drained(&mut self, cx: &Context<'_>) -> bool {
        self.downstream.watch_drain(cx);
        self.upstream.member().state.is_drained()
    }

    fn poll_late(&mut self, cx: &mut Context<'_>, progress: &mut Progress, patience: Duration) -> Poll<()> {
        self.downstream.poll_deadline(cx, progress.wait() + patience)
    }
}

/// When something last moved. The clock is read only when something has been waited for: what happens in one go
/// happens at one moment.
#[derive(Debug)]
pub(super) struct Progress {
    last: Instant,
    /// Something was waited for since.
    waited: bool,
    /// Something has moved since.
    moved: bool,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, waited: false, moved: false }
    }

    pub(super) fn made(&mut self) {
        self.moved = true;
    }

    fn last(&mut self) -> Instant {
        if self.waited && self.moved {
            self.last = Instant::now();
        }
        self.moved = false;
        self.last
    }

    /// The same, by someone who waits from here on.
    fn wait(&mut self) -> Instant {
        let last = self.last();
        self.waited = true;
        last
    }
}

fn ready_or_break<T>(poll: Poll<Result<T, Failure>>) -> Result<Option<T>, Failure> {
    match poll {
        Poll::Ready(result) => result.map(Some),
        Poll::Pending => Ok(None),
    }
}

/// Writes the first of two slices, and as much of the second as goes with it.
fn poll_write_some(
    cx: &mut Context<'_>,
    stream: &mut Conn,
    first: &[u8],
    second: &[u8],
    then: Then,
) -> Poll<io::Result<usize>> {
    match ready!(stream.poll_write_two(cx, first, second, then)) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(written),
    }
}
