//! What a request needs while it is served and an idle connection does not: recycled by the worker, so that a
//! request allocates nothing once the worker is warm.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
    rc::Rc,
    sync::Arc,
};

use crate::{
    http::{RequestHead, ResponseHead},
    l7,
    limits::rate::Charge,
    logs::Draft,
};

/// How many a worker keeps. A worker serves few requests at once that are not waiting for a member.
const KEEP: usize = 64;

/// The most bytes of a head's text that are kept with it.
const KEEP_TEXT: usize = 8 * 1024;

/// A worker's recycled [`Work`].
#[derive(Default)]
#[allow(clippy::vec_box, reason = "it is lent by itself, and moved as a pointer")]
pub(crate) struct Scratch(Rc<RefCell<Vec<Box<Work>>>>);

/// Parsed heads and the head that is being written.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    /// The text of a request that came decoded.
    pub(crate) text: Vec<u8>,
    pub(crate) out: Vec<u8>,
    pub(crate) l7: l7::Scratch,
    /// What is to be logged of the request.
    pub(crate) log: Draft,
    /// Whose its bytes are, where they are counted.
    pub(crate) charge: Option<Rc<Charge>>,
    /// What is to be remembered until its response has come.
    pub(crate) extras: Option<Box<Extras>>,
}

/// What few requests have to be remembered for them.
pub(crate) struct Extras {
    /// The value of `Set-Cookie` that keeps the client with the pool.
    pub(crate) pool_cookie: Option<Arc<[u8]>>,
    /// What policies change in the response.
    pub(crate) response: Option<l7::LateEdits>,
}

impl Extras {
    /// `None` when there is nothing to remember.
    pub(crate) fn of(pool_cookie: Option<Arc<[u8]>>, response: Option<l7::LateEdits>) -> Option<Box<Self>> {
        (pool_cookie.is_some() || response.is_some()).then(|| Box::new(Self { pool_cookie, response }))
    }
}

/// A [`Work`] that goes back to its worker when dropped.
pub(crate) struct Borrowed {
    work: Option<Box<Work>>,
    #[allow(clippy::vec_box, reason = "see Scratch")]
    home: Rc<RefCell<Vec<Box<Work>>>>,
}

impl Scratch {
    pub(crate) fn get(&self) -> Borrowed {
        let work = self.0.borrow_mut().pop().unwrap_or_default();
        Borrowed { work: Some(work), home: Rc::clone(&self.0) }
    }
}

impl Deref for Borrowed {
    type Target = Work;

    fn deref(&self) -> &Work {
        self.work.as_ref().expect("taken only by drop")
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Work {
        self.work.as_mut().expect("taken only by drop")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let mut home = self.home.borrow_mut();
        if home.len() < KEEP
            && let Some(mut work) = self.work.take()
        {
            for text in [&mut work.out, &mut work.text] {
                text.clear();
                text.shrink_to(KEEP_TEXT);
            }
            if work.charge.is_some() {
                work.charge = None;
            }
            if work.extras.is_some() {
                work.extras = None;
            }
            home.push(work);
        }
    }
}
