//! What the process and each of its workers have for flow logs.

use std::{
    cell::RefCell,
    fs, io,
    net::SocketAddr,
    path::Path,
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::time::Instant;

use super::{
    calendar::{Calendar, Wall},
    format::{Format, FormatError},
    line::{self, Frontend, Host},
    outlet::{self, Counters, Outlet, Socket},
    record::Record,
    template::Template,
};
use crate::{state::PerWorker, sys};

/// The program that lines say they are from: what reads them looks for HAProxy's.
const TAG: &str = "haproxy";
/// `local0` (RFC 3164, section 4.1.1).
const LOCAL0: u32 = 16;
/// What HAProxy logs traffic at.
const INFO: u32 = 6;

/// The way to syslog, to be shared out to workers. Made at the start, while sockets may still be made.
#[derive(Debug)]
pub struct Syslog {
    sockets: Vec<Socket>,
    pub(crate) counters: Arc<PerWorker<Counters>>,
    host: Arc<Host>,
    numbers: Arc<AtomicU32>,
}

impl Syslog {
    /// To the datagram socket at `path`, whether or not there is one yet, for so many workers.
    ///
    /// # Errors
    /// As socket(2).
    pub fn new(path: &Path, workers: usize) -> io::Result<Self> {
        // The time zone is read now, while it can be.
        sys::local_offset(0);
        #[expect(clippy::disallowed_methods, reason = "procfs, at the start")]
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self {
            sockets: outlet::sockets(path, workers)?,
            counters: Arc::new(PerWorker::new(workers)),
            host: Arc::new(Host { name: name.trim_end().into(), process: process::id() }),
            numbers: Arc::default(),
        })
    }

    /// What each worker gets of it, in their order.
    pub(crate) fn shares(self) -> impl Iterator<Item = Share> {
        let Self { sockets, counters, host, numbers } = self;
        sockets.into_iter().enumerate().map(move |(worker, socket)| Share {
            worker,
            socket,
            counters: Arc::clone(&counters),
            host: Arc::clone(&host),
            numbers: Arc::clone(&numbers),
        })
    }
}

/// A worker's share of [`Syslog`].
#[derive(Debug)]
pub(crate) struct Share {
    worker: usize,
    socket: Socket,
    counters: Arc<PerWorker<Counters>>,
    host: Arc<Host>,
    numbers: Arc<AtomicU32>,
}

/// How a listener's flow log is written.
#[derive(Debug)]
pub struct LogPlan {
    format: Format,
    template: Template,
    /// The number of the next line (`%lc`).
    lines: AtomicU32,
    /// `<134>`.
    priority: Box<str>,
}

impl LogPlan {
    /// `facility` is the number behind `local`, 0 to 7.
    ///
    /// # Errors
    /// Those of the format.
    pub fn new(format: &str, facility: u8, frontend: Frontend) -> Result<Self, FormatError> {
        let format = Format::parse(format, frontend.protocol)?;
        let priority = format!("<{}>", (LOCAL0 + u32::from(facility)) * 8 + INFO).into();
        let template = Template::new(&format, frontend);
        Ok(Self { format, template, lines: AtomicU32::new(0), priority })
    }

    /// `https` where the listener terminates TLS, else `http`.
    pub fn scheme(&self) -> &'static str {
        if self.template.frontend().tls { "https" } else { "http" }
    }

    /// What its lines are made of.
    pub fn format(&self) -> &Format {
        &self.format
    }
}

/// A worker's flow logs.
pub(crate) struct FlowLogs {
    outlet: Outlet,
    calendar: RefCell<Calendar>,
    host: Arc<Host>,
    numbers: Arc<AtomicU32>,
    /// `haproxy[4711]: `.
    tag: Box<str>,
}

impl FlowLogs {
    /// To be called on the worker's runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub(crate) fn new(share: Share) -> io::Result<Self> {
        let Share { worker, socket, counters, host, numbers } = share;
        Ok(Self {
            outlet: Outlet::new(socket, counters, worker)?,
            calendar: RefCell::new(Calendar::new(sys::local_offset)),
            tag: format!("{TAG}[{}]: ", host.process).into(),
            host,
            numbers,
        })
    }

    /// Lets lines leave; see [`Outlet::run`].
    pub(crate) async fn run(&self) {
        self.outlet.run().await;
    }

    /// The worker ends; see [`Outlet::finish`].
    pub(crate) fn finish(&self) {
        self.outlet.finish();
    }

    /// The number of a session or request that begins (`%rt`).
    pub(crate) fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Logs what has come to its end.
    pub(crate) fn write(&self, plan: &LogPlan, record: &mut Record) {
        if plan.format.needs().numbers {
            record.line_number = plan.lines.fetch_add(1, Ordering::Relaxed);
        }
        self.outlet.line(|out| {
            let now = Wall::now();
            let calendar = &mut *self.calendar.borrow_mut();
            self.head(out, plan, now, calendar);
            // It has ended just now.
            line::write(out, &plan.template, record, &self.host, now, calendar);
        });
    }

    /// Logs a connection that has come to nothing before there was a session, in HAProxy's words and not in the format's: with
    /// the client, when it was accepted, the listener and the number of the bind, of which it has one.
    pub(crate) fn write_error(&self, plan: &LogPlan, client: SocketAddr, accepted: Instant, why: &str) {
        self.outlet.line(|out| {
            let now = Wall::now();
            let calendar = &mut *self.calendar.borrow_mut();
            self.head(out, plan, now, calendar);
            let frontend = plan.template.frontend();
            line::write_error(out, client, now.before(accepted.elapsed()), frontend, why, calendar);
        });
    }

    /// Priority, date and program.
    fn head(&self, out: &mut Vec<u8>, plan: &LogPlan, now: Wall, calendar: &mut Calendar) {
        out.extend_from_slice(plan.priority.as_bytes());
        out.extend_from_slice(&calendar.rfc3164(now));
        out.extend_from_slice(self.tag.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{os::unix::net::UnixDatagram, time::Duration};

    use super::{super::Protocol, *};

    #[tokio::test]
    async fn a_line_has_haproxys_head_and_no_more_bytes_than_it_may() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let syslog = Syslog::new(&path, 1).unwrap();
        let counters = Arc::clone(&syslog.counters);
        let logs = FlowLogs::new(syslog.shares().next().unwrap()).unwrap();
        let id = "11111111-2222-3333-4444-555555555555".parse().unwrap();
        let frontend = Frontend::new(id, Protocol::Http, false);
        let plan = LogPlan::new("%lc %f %r", 3, frontend).unwrap();
        let mut record = Record::new(plan.format().needs(), "192.0.2.1:5".parse().unwrap(), Instant::now());
        logs.write(&plan, &mut record);
        record.keep_request(b"GET", &[b'/'; 2000], b"HTTP/1.1");
        logs.write(&plan, &mut record);
        logs.finish();
        assert_eq!((counters.sum(|c| &c.sent), counters.sum(|c| &c.dropped)), (2, 0));
        let receive = || {
            let mut line = vec![0; 4096];
            let n = server.recv(&mut line).unwrap();
            String::from_utf8(line[..n].to_vec()).unwrap()
        };
        let line = receive();
        let (head, text) = line.split_at(line.find("haproxy[").unwrap());
        // `<158>Mmm dd hh:mm:ss `
        assert_eq!((&head[..5], head.len()), ("<158>", 21));
        assert_eq!(text, format!("haproxy[{}]: 0 {id} <BADREQ>\n", process::id()));
        let line = receive();
        assert_eq!(line.len(), line::MAX_LINE + 1);
        assert!(line.contains(&format!("]: 1 {id} GET ///")) && line.ends_with("//\n"));
    }
}
