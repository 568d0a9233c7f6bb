//! What the demo knows and shows: the state of the members, what is being done, and what was found true or not.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use amphora_agent::vrrp::Role;

use super::pair::Ledger;
use crate::style::{Colour, Style};

/// The newest lines that a view can show.
const KEPT: usize = 200;

/// Shared by the scenario, which writes, and the view, which reads.
#[derive(Clone, Debug)]
pub(super) struct Board {
    inner: Arc<Mutex<Inner>>,
}

/// See [`Board`].
#[derive(Debug)]
pub(super) struct Inner {
    start: Instant,
    /// Lines go to standard output as they come; else a view draws them.
    plain: bool,
    style: Style,
    /// Where it all is, for the view's first line.
    pub(super) place: String,
    /// What is being done now.
    pub(super) doing: String,
    /// The story so far.
    pub(super) lines: Vec<Line>,
    /// Operating status by name of the member, as the amphora says.
    pub(super) members: BTreeMap<String, String>,
    /// Checks that held.
    pub(super) held: u32,
    /// Checks that did not, in words.
    pub(super) failed: Vec<String>,
    /// Heartbeats that verified.
    pub(super) heartbeats: u64,
    /// Packets on the heartbeat port that did not.
    pub(super) forged: u64,
    /// The amphorae of the pair by name, while there is one.
    pub(super) pair: BTreeMap<&'static str, Peer>,
    /// What the pair's client counts.
    pub(super) pair_client: Ledger,
    /// Nobody reads standard output any more.
    pub(super) unread: bool,
}

/// An amphora of the pair, as its agent says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Peer {
    /// What it is in VRRP; `None` when it does not say, or has no virtual router.
    pub(super) role: Option<Role>,
    /// The process of its VRRP daemon.
    pub(super) vrrp: Option<u32>,
    /// All of it works, and every member is ONLINE.
    pub(super) healthy: bool,
}

impl Peer {
    /// Its role in words.
    pub(super) fn role_name(&self) -> &'static str {
        match self.role {
            Some(Role::Master) => "MASTER",
            Some(Role::Backup) => "BACKUP",
            Some(Role::Init) => "INIT",
            Some(Role::Mixed) => "MIXED",
            None if self.vrrp.is_some() => "no VRRP yet",
            None => "no answer",
        }
    }
}

/// A line of the story.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Since the demo began.
    pub(super) at: Duration,
    pub(super) mark: Mark,
    pub(super) text: String,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A new step.
    Step,
    /// Something happened.
    Note,
    /// A check held.
    Held,
    /// A check did not hold.
    Failed,
}

impl Mark {
    /// Its sign and colour.
    pub(super) fn sign(self) -> (&'static str, Colour) {
        match self {
            Self::Step => ("==", Colour::Bold),
            Self::Note => ("  ", Colour::Dim),
            Self::Held => ("ok", Colour::Green),
            Self::Failed => ("NO", Colour::Red),
        }
    }
}

impl Board {
    /// `plain`: each line goes to standard output at once.
    pub(super) fn new(plain: bool, style: Style) -> Self {
        let inner = Inner {
            start: Instant::now(),
            plain,
            style,
            place: String::new(),
            doing: String::new(),
            lines: Vec::new(),
            members: BTreeMap::new(),
            held: 0,
            failed: Vec::new(),
            heartbeats: 0,
            forged: 0,
            pair: BTreeMap::new(),
            pair_client: Ledger::default(),
            unread: false,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Everything on it.
    pub(super) fn read(&self) -> MutexGuard<'_, Inner> {
        // Writers only assign and push: what a poisoned lock guards is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new step begins.
    pub(super) fn step(&self, text: &str) {
        self.line(Mark::Step, text);
    }

    /// Something happened.
    pub(super) fn note(&self, text: impl AsRef<str>) {
        self.line(Mark::Note, text.as_ref());
    }

    /// Something that was promised, and whether it is true.
    pub(super) fn check(&self, holds: bool, text: impl AsRef<str>) {
        let text = text.as_ref();
        {
            let mut inner = self.read();
            if holds {
                inner.held += 1;
            } else {
                inner.failed.push(text.to_owned());
            }
        }
        self.line(if holds { Mark::Held } else { Mark::Failed }, text);
    }

    fn line(&self, mark: Mark, text: &str) {
        let mut inner = self.read();
        let line = Line { at: inner.start.elapsed(), mark, text: text.to_owned() };
        if mark == Mark::Step {
            text.clone_into(&mut inner.doing);
        }
        if inner.plain {
            // The demo ends when it next waits for something, in order.
            if let Err(error) = writeln!(io::stdout(), "{}", line.show(inner.style)) {
                inner.unread |= error.kind() == io::ErrorKind::BrokenPipe;
            }
        }
        inner.lines.push(line);
        if inner.lines.len() > 2 * KEPT {
            inner.lines.drain(..KEPT);
        }
    }
}

impl Line {
    /// As text.
    pub(super) fn show(&self, style: Style) -> String {
        let (sign, colour) = self.mark.sign();
        let at = format!("{:6.1}s", self.at.as_secs_f64());
        let text: &dyn std::fmt::Display =
            if self.mark == Mark::Step { &style.paint(Colour::Bold, &self.text) } else { &self.text };
        format!("{} {} {text}", style.paint(Colour::Dim, at), style.paint(colour, sign))
    }
}
