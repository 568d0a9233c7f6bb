//! Another configuration for a router that runs.

use std::{net::IpAddr, time::Instant};

use super::{
    OWNER, Router,
    timers::{Wait, after},
};
use crate::{
    config::Instance,
    core::{Event, Reason, State, Timing},
    packet::Version,
};

impl Router {
    /// Becomes what `instance` says without leaving its state, unless that is another virtual router altogether: the
    /// interface, the family, the version and the VRID must be the same.
    ///
    /// What has not changed goes on: a backup's wait, the interval that it has learned, a delay before it preempts, the
    /// priority that an owner was left with. Only a backup that becomes the owner of the addresses is master at once, as if it
    /// had been started as one; keepalived has it wait like any other.
    pub fn reconfigure(&mut self, now: Instant, instance: Instance, source: IpAddr) {
        debug_assert_eq!(
            (instance.vrid, instance.family, instance.version(), &instance.interface),
            (self.instance.vrid, self.instance.family, self.instance.version(), &self.instance.interface),
        );
        if instance == self.instance && source == self.source {
            return;
        }
        let before = std::mem::replace(&mut self.instance, instance);
        self.own = Timing::of(self.instance.interval);
        self.addresses = self.instance.advertised();
        self.source = source;
        if self.instance.priority != before.priority {
            self.priority = self.instance.priority;
        }
        if self.instance.preempt != before.preempt {
            self.preempt_at = None;
        }
        self.events.push_back(Event::Reconfigured);
        match self.state {
            State::Master => {
                if self.timers.hand_over.is_none() {
                    self.advertise(now);
                    if self.instance.garp.refresh != before.garp.refresh {
                        self.timers.refresh = after(now, self.instance.garp.refresh);
                    }
                }
            }
            State::Backup if self.priority == OWNER && before.priority != OWNER && !self.handed_over => {
                self.become_master(now, Reason::Owner);
            }
            State::Backup => self.wait_on(now, &before),
            State::Initialize => {}
        }
    }

    /// Waits on, for as long as the new configuration says.
    fn wait_on(&mut self, now: Instant, before: &Instance) {
        let other_interval = self.instance.interval != before.interval;
        if other_interval && self.instance.version() == Version::V2 {
            // There it is not the master's alone: nothing is taken any more that has the one before.
            self.learned = None;
        }
        let Some(down) = self.timers.down else { return };
        // A master whose advertisements are not taken until it is reconfigured, too, is given the time for that; and
        // what was waited by an interval that nobody had does not count by another.
        let takes_others = self.addresses != before.advertised()
            || self.instance.auth != before.auth
            || self.instance.unicast != before.unicast;
        let anew = takes_others || (other_interval && self.learned.is_none());
        let since = match down.wait {
            Wait::Soon | Wait::Missed if anew => now,
            _ => down.since,
        };
        self.wait(since, down.wait);
    }
}
