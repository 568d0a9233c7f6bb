//! Files of which nothing before is kept: counters, ports, rules, and what waits to be taken up.

use std::io;

use super::{Store, remove_if_there};

/// The counters that heartbeats reported.
pub(super) const COUNTERS: &str = "stats_counters.json";

/// The ports that are plugged.
const INTERFACES: &str = "interfaces.json";

/// What may come in by which interface.
const FILTER: &str = "filter.json";

/// A VRRP configuration that was uploaded and not taken up yet.
const VRRP_UPLOAD: &str = "vrrp.uploaded.conf";

/// All of them.
pub(super) const ALL: [&str; 4] = [COUNTERS, INTERFACES, FILTER, VRRP_UPLOAD];

impl Store {
    /// The counters that heartbeats reported so far.
    ///
    /// # Errors
    /// When they are there but cannot be read.
    pub fn read_counters(&self) -> io::Result<Option<Vec<u8>>> {
        self.read_file(COUNTERS)
    }

    /// Replaces the counters. They are not synced to the disk: the proxy's counters die with the machine as well.
    ///
    /// # Errors
    /// When a step fails; the ones before are kept.
    pub fn write_counters(&self, counters: &[u8]) -> io::Result<()> {
        self.changed(COUNTERS, || self.replace(COUNTERS, counters, false))
    }

    /// The ports that are plugged.
    ///
    /// # Errors
    /// When they are there but cannot be read.
    pub fn read_interfaces(&self) -> io::Result<Option<Vec<u8>>> {
        self.read_file(INTERFACES)
    }

    /// Replaces the ports that are plugged.
    ///
    /// # Errors
    /// When a step fails; the ones before are kept.
    pub fn write_interfaces(&self, interfaces: &[u8]) -> io::Result<()> {
        self.changed(INTERFACES, || {
            self.replace(INTERFACES, interfaces, true)?;
            Ok(self.sync()?)
        })
    }

    /// What may come in by which interface.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read_filter(&self) -> io::Result<Option<Vec<u8>>> {
        self.read_file(FILTER)
    }

    /// Replaces what may come in by which interface.
    ///
    /// # Errors
    /// When a step fails; what was before is kept.
    pub fn write_filter(&self, filter: &[u8]) -> io::Result<()> {
        self.changed(FILTER, || {
            self.replace(FILTER, filter, true)?;
            Ok(self.sync()?)
        })
    }

    /// The VRRP configuration that was uploaded last, whether it was taken up or not.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read_vrrp_upload(&self) -> io::Result<Option<Vec<u8>>> {
        self.read_file(VRRP_UPLOAD)
    }

    /// Replaces it; with `None` it is there no more.
    ///
    /// # Errors
    /// When a step fails; the one before is kept.
    pub fn write_vrrp_upload(&self, text: Option<&[u8]>) -> io::Result<()> {
        self.changed(VRRP_UPLOAD, || {
            match text {
                Some(text) => self.replace(VRRP_UPLOAD, text, true)?,
                None => remove_if_there(&self.path(VRRP_UPLOAD))?,
            }
            Ok(self.sync()?)
        })
    }
}
