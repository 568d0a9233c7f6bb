//! What goes wrong, or becomes right again.

use std::{net::IpAddr, time::Duration};

use super::{Node, Run, network::Message, preempt, put_right};
use crate::{
    config::{Instance, VirtualAddress},
    core::{Router, Transmit},
    fixture::GROUP,
    packet::Pseudo,
};

/// Longest intervals that a message may be on its way.
const OLDEST: u32 = 2;

impl Run {
    pub(super) fn fault(&mut self) {
        let node = self.random.index(self.nodes.len());
        let other = self.random.index(3);
        let fault = self.random.below(16);
        self.tell(|| format!("fault {fault} of {node}, {other}"));
        match fault {
            0 => self.network.loss = self.random.below(101),
            1 => self.network.doubles = self.random.below(101),
            2 => self.network.delay = self.random.within(OLDEST * self.longest),
            3 => self.network.cut[node][other] = true,
            4 => self.network.cut = [[false; 3]; 3],
            5 | 6 => self.crash_or_restart(node),
            14 | 15 => return self.forge(node),
            _ if self.nodes[node].crashed => return,
            7 => self.nodes[node].paused_until = Some(self.now + self.random.within(10 * self.longest)),
            // What sleeps cannot be told anything.
            _ if self.nodes[node].paused_until.is_some() => return,
            8 => {
                let fit = !self.nodes[node].router.is_fit();
                self.nodes[node].router.set_fit(self.now, fit);
            }
            9 => {
                self.nodes[node].stopped ^= true;
                if self.nodes[node].stopped {
                    self.nodes[node].router.stop(self.now);
                } else {
                    let held = self.nodes[node].held;
                    self.nodes[node].router.start(self.now, held);
                }
            }
            10 => {
                self.nodes[node].router.hand_over(self.now);
            }
            11 => self.nodes[node].router.resume(),
            _ => self.reconfigure(node),
        }
        self.nodes[node].told(self.now);
        self.settle(node);
    }

    /// No more faults. What is on its way arrives, and whoever has handed over is not told to resume. Says how long it
    /// takes until nothing old arrives any more.
    pub(super) fn heal(&mut self) -> Duration {
        self.tell(|| "healed".to_owned());
        self.network.heal(self.shortest / 20);
        if self.random.chance(20) {
            self.power_cut();
            return Duration::ZERO;
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].crashed && self.random.chance(50) {
                self.crash_or_restart(node);
                self.nodes[node].told(self.now);
                self.settle(node);
            }
            if self.nodes[node].paused_until.is_some() {
                self.wake(node);
            }
        }
        OLDEST * self.longest
    }

    /// All go down until nothing is on its way any more, and come back at once.
    fn power_cut(&mut self) {
        self.nodes.iter_mut().for_each(Node::crash);
        self.unheard = true;
        self.run(self.now + OLDEST * self.longest, &mut |_| {});
        self.tell(|| "all come back".to_owned());
        for node in 0..self.nodes.len() {
            self.crash_or_restart(node);
            self.nodes[node].told(self.now);
        }
        (0..self.nodes.len()).for_each(|node| self.settle(node));
    }

    /// A stranger says that it is master, or that it stops.
    fn forge(&mut self, to: usize) {
        let instance: Instance = self.nodes[to].router.instance().clone();
        let unicast = instance.unicast.is_some();
        let source = IpAddr::from([192, 0, 2, self.random.of(&[0, 250])]);
        let destination = if unicast { self.nodes[to].address } else { GROUP };
        let transmit =
            Transmit { priority: self.random.of(&[0, 1, 100, 254, 255, 255]), old_checksum: false };
        let octets = Router::new(instance, source, GROUP)
            .advertisement(transmit)
            .encode(Pseudo { source, destination });
        self.network.fly(self.now, to, Message { source, destination, octets });
    }

    fn crash_or_restart(&mut self, node: usize) {
        let now = self.now;
        self.unheard |= self.learned == Some(node);
        let node = &mut self.nodes[node];
        if node.crashed { node.restart(now) } else { node.crash() }
    }

    fn reconfigure(&mut self, node: usize) {
        let mut instance: Instance = self.nodes[node].router.instance().clone();
        match self.random.below(4) {
            0 => instance.priority = self.random.of(&[1, 90, 100, 200, 254, 255]),
            1 => self.other_interval(&mut instance),
            2 => instance.preempt = preempt(&mut self.random, self.longest),
            _ => {}
        }
        if instance.excluded.pop().is_none() {
            let net = "192.0.2.101/32".parse().unwrap();
            instance.excluded.push(VirtualAddress { net, interface: None });
        }
        put_right(&mut instance);
        let interval = self.of_interval(&instance);
        self.nodes[node].late = self.nodes[node].late.min(interval / 10);
        let address = self.nodes[node].address;
        self.tell(|| {
            let Instance { priority, interval, preempt, .. } = &instance;
            format!("{node} is now of {priority}, {interval:?}, {preempt:?}")
        });
        self.nodes[node].forget();
        self.nodes[node].router.reconfigure(self.now, instance, address);
    }
}
