//! Connections to members that carry the identity of one client, and serve it alone for as long as it is connected
//! (HAProxy's `CO_FL_PRIVATE`).

use std::{
    rc::{Rc, Weak},
    task::Context,
};

use crate::{
    conn::{Conn, MemberTls},
    local::{LocalMember, LocalPool},
};

/// How many a client may have (HAProxy `max-session-srv-conns`). Beyond this the oldest is closed, and the member asks
/// that client for its credentials again.
const MOST: usize = 5;

/// A client's own connections while no request is on them, the one used last at the end.
#[derive(Default)]
pub(in crate::session) struct OwnConnections(Vec<Own>);

struct Own {
    /// A member that no snapshot has any more is let go.
    member: Weak<LocalMember>,
    /// Where it was in its pool.
    index: usize,
    stream: Conn,
}

impl OwnConnections {
    /// The member of the pool that the client has a connection to, if it may be given requests: the handshake goes on
    /// where it began. The one used last, when there are several.
    #[inline]
    pub(super) fn member_of(&self, pool: &LocalPool) -> Option<usize> {
        if self.0.is_empty() {
            return None;
        }
        let place = |own: &Own| {
            let is_it = |member: &Rc<LocalMember>| std::ptr::eq(Rc::as_ptr(member), own.member.as_ptr());
            match pool.members.get(own.index) {
                Some(member) if is_it(member) => Some(own.index),
                _ => pool.members.iter().position(is_it),
            }
        };
        self.0.iter().rev().filter_map(place).find(|member| pool.plan.members[*member].is_usable())
    }

    /// Takes the connection to this member, spoken to in this way, that was used last, if the member has not closed it.
    pub(in crate::session) fn take(
        &mut self,
        member: &Rc<LocalMember>,
        tls: Option<MemberTls<'_>>,
    ) -> Option<Conn> {
        let is_it =
            |own: &Own| std::ptr::eq(own.member.as_ptr(), Rc::as_ptr(member)) && own.stream.is_for(tls);
        while let Some(at) = self.0.iter().rposition(is_it) {
            let mut own = self.0.remove(at);
            if own.stream.is_quiet() {
                return Some(own.stream);
            }
        }
        None
    }

    /// Keeps a connection for the next request of the client. `index` is the member's place in its pool.
    pub(super) fn keep(&mut self, member: &Rc<LocalMember>, index: usize, stream: Conn) {
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Own { member: Rc::downgrade(member), index, stream });
    }

    /// Closes those that the member has closed or written to, and those to members that are gone; wakes the task when a
    /// member does so.
    #[inline]
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) {
        if !self.0.is_empty() {
            self.0.retain_mut(|own| {
                let kept = own.member.upgrade().is_some_and(|member| !member.state.is_drained());
                kept && own.stream.poll_not_quiet(cx).is_pending()
            });
        }
    }
}
