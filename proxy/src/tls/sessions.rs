//! Sessions with one member that may be resumed.

#![expect(
    clippy::disallowed_types,
    reason = "rustls shares a store between threads; it is held for some instructions"
)]

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
};
use rustls_pki_types::ServerName;

/// The most names that sessions are kept for: a member is asked for the name that the client has asked for.
const MAX_NAMES: usize = 4;

/// The most tickets of TLS 1.3 for one name: each is good for one connection, and servers send two.
const MAX_TICKETS: usize = 4;

/// The sessions of one member, the names that were used last.
pub(super) struct Sessions(Mutex<VecDeque<Sessioned>>);

struct Sessioned {
    name: ServerName<'static>,
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sessioned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, name: ServerName<'static>, change: impl FnOnce(&mut Sessioned)) {
        let mut all = self.lock();
        let found = all.iter().position(|one| one.name == name).and_then(|at| all.remove(at));
        let mut one =
            found.unwrap_or_else(|| Sessioned { name, group: None, tls12: None, tls13: VecDeque::new() });
        change(&mut one);
        if all.len() >= MAX_NAMES {
            all.pop_back();
        }
        all.push_front(one);
    }

    fn look<T>(&self, name: &ServerName<'_>, look: impl FnOnce(&mut Sessioned) -> Option<T>) -> Option<T> {
        look(self.lock().iter_mut().find(|one| one.name == *name)?)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.change(name, |one| one.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.look(name, |one| one.group)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.change(name, |one| one.tls12 = Some(value));
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.look(name, |one| one.tls12.clone())
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.look(name, |one| one.tls12.take());
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.change(name, |one| {
            if one.tls13.len() >= MAX_TICKETS {
                one.tls13.pop_front();
            }
            one.tls13.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.look(name, |one| one.tls13.pop_back())
    }
}
