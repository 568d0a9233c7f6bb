//! Flow logs: a line for each request or connection, in the words and to the byte of HAProxy 2.6, since what reads them has
//! read HAProxy's so far.
//!
//! A listener's format is parsed once, where the load balancer is compiled; a session fills in a record along the way,
//! and at its end both become a line in its worker's queue, which leaves for syslog in batches. None of it waits: a syslog that
//! is slow or gone costs lines, which are counted, and no client anything.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`mod@format`] | `log-format`, parsed |
//! | [`field`] | the variables and samples that it can name |
//! | [`template`] | what of its lines is always the same |
//! | [`record`] | what a session or a request leaves |
//! | [`termination`] | how it ended, in letters |
//! | [`mod@line`] | both together as text |
//! | `text` | what of it fits, and how it is written |
//! | [`calendar`] | dates |
//! | [`queue`] | lines that wait |
//! | [`outlet`] | a worker's way to syslog |
//! | `flow` | what the process, a worker and a listener have of it |

pub mod calendar;
mod escape;
pub mod field;
mod flow;
pub mod format;
pub mod line;
pub mod outlet;
pub mod queue;
pub mod record;
pub mod template;
pub mod termination;
mod text;

pub(crate) use self::flow::{FlowLogs, Share};
pub(crate) use self::record::Draft;
pub use self::{
    field::Protocol,
    flow::{LogPlan, Syslog},
    format::{Format, FormatError},
    line::Frontend,
    outlet::Counters as LogCounters,
    record::Record,
};
