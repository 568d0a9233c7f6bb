//! What a router does: one at a time, with a clock and whoever it hears made up.

#![allow(clippy::unwrap_used)]

mod admit;
mod beyond;
mod reconfigure;
mod rfc;
mod told;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use super::{Event, Reason, Router, State, Transmit};
use crate::{
    config::{Garp, Instance, Preempt, Unicast, VirtualAddress},
    fixture::{GROUP, VIP, instance, v2, v3},
    packet::{Auth, Envelope, Interval, Pseudo, Refusal},
};

const SECOND: Duration = Duration::from_secs(1);
const ME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const LOWER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const HIGHER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));

/// A router with a clock.
struct Bench {
    router: Router,
    now: Instant,
}

impl Bench {
    fn new(instance: Instance) -> Self {
        Self { router: Router::new(instance, ME, GROUP), now: Instant::now() }
    }

    fn started(instance: Instance) -> Self {
        let mut bench = Self::new(instance);
        bench.router.start(bench.now, false);
        bench
    }

    /// A backup that has become master, with nothing left to do.
    fn master(instance: Instance) -> Self {
        let mut bench = Self::started(instance);
        bench.expire();
        assert_eq!(bench.router.state(), State::Master);
        bench.take();
        bench
    }

    fn backup(instance: Instance) -> Self {
        let mut bench = Self::started(instance);
        assert_eq!(bench.router.state(), State::Backup);
        bench.take();
        bench
    }

    /// Lets time pass until the next timeout, and says how long that was.
    fn expire(&mut self) -> Duration {
        let at = self.router.poll_timeout().expect("a timer runs");
        let waited = at - self.now;
        self.now = at;
        self.router.handle_timeout(at);
        waited
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.router.handle_timeout(self.now);
    }

    fn hear(&mut self, source: IpAddr, priority: u8) -> Result<(), Refusal> {
        let instance = self.router.instance().clone();
        self.hear_from(&instance, source, priority)
    }

    /// As a router configured so would say it.
    fn hear_from(&mut self, instance: &Instance, source: IpAddr, priority: u8) -> Result<(), Refusal> {
        let destination = if instance.unicast.is_some() { ME } else { GROUP };
        let sender = Router::new(instance.clone(), source, GROUP);
        let message = sender
            .advertisement(Transmit { priority, old_checksum: false })
            .encode(Pseudo { source, destination });
        let envelope = Envelope { source, destination, ttl: Some(255) };
        self.router.handle_packet(self.now, &envelope, &message)
    }

    /// Priorities sent and events, all that there are.
    fn take(&mut self) -> (Vec<u8>, Vec<Event>) {
        let sent = std::iter::from_fn(|| self.router.poll_transmit()).map(|sent| sent.priority).collect();
        (sent, std::iter::from_fn(|| self.router.poll_event()).collect())
    }
}

fn changed(from: State, to: State, reason: Reason) -> Event {
    Event::Changed { from, to, reason }
}

fn with(instance: Instance, change: impl FnOnce(&mut Instance)) -> Instance {
    let mut instance = instance;
    change(&mut instance);
    instance
}

fn unicast(mut instance: Instance, peers: &[IpAddr]) -> Instance {
    instance.unicast = Some(Unicast { source: ME, peers: peers.to_vec(), check_source: false });
    instance
}
