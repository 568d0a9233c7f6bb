//! One pick of a member, by each algorithm, in small and large pools.

use std::{hint::black_box, net::Ipv4Addr};

use amphora_benches::{document, rng::Rng};
use amphora_model::{LbAlgorithm, MemberId};
use amphora_proxy::balance::{Balance, Balancer, Flow, MembersView};
use divan::{Bencher, counter::ItemsCount};

const SIZES: [usize; 2] = [10, 1000];
const FLOWS: usize = 4096;

fn main() {
    divan::main();
}

/// Members of weights 1 to 8, all up, with a load that `idle` sets.
struct Members {
    idle: bool,
    size: usize,
}

impl MembersView for Members {
    fn len(&self) -> usize {
        self.size
    }

    fn id(&self, member: usize) -> MemberId {
        MemberId(document::id(document::kind::MEMBER, member as u64))
    }

    fn weight(&self, member: usize) -> u16 {
        1 + (member % 8) as u16
    }

    fn backup(&self, _: usize) -> bool {
        false
    }

    fn usable(&self, _: usize) -> bool {
        true
    }

    fn load(&self, member: usize) -> u32 {
        if self.idle { 0 } else { 1 + (member * 7 % 13) as u32 }
    }

    fn epoch(&self) -> u64 {
        0
    }
}

/// Picks for clients in turn; with few of them each is seen again and again.
fn picks(bencher: Bencher<'_, '_>, algorithm: LbAlgorithm, members: &Members, clients: usize) {
    let mut rng = Rng::new(1);
    let flows: Vec<Flow> = (0..clients)
        .map(|_| {
            let bits = rng.bits();
            Flow { source: Ipv4Addr::from(bits as u32).into(), source_port: (bits >> 32) as u16 }
        })
        .collect();
    let mut balance = Balance::new(algorithm, 1);
    let mut flow = flows.iter().cycle();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        let flow = flow.next().expect("a cycle does not end");
        balance.pick(members, black_box(flow), |_| false)
    });
}

#[divan::bench(args = SIZES)]
fn round_robin(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, LbAlgorithm::RoundRobin, &Members { size, idle: false }, FLOWS);
}

#[divan::bench(args = SIZES)]
fn least_connections_idle(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, LbAlgorithm::LeastConnections, &Members { size, idle: true }, FLOWS);
}

#[divan::bench(args = SIZES)]
fn least_connections_busy(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, LbAlgorithm::LeastConnections, &Members { size, idle: false }, FLOWS);
}

#[divan::bench(args = SIZES)]
fn source_ip_few_clients(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, LbAlgorithm::SourceIp, &Members { size, idle: false }, 16);
}

#[divan::bench(args = SIZES)]
fn source_ip_many_clients(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, LbAlgorithm::SourceIp, &Members { size, idle: false }, 1 << 20);
}

#[divan::bench(args = SIZES)]
fn source_ip_port(bencher: Bencher<'_, '_>, size: usize) {
    picks(bencher, LbAlgorithm::SourceIpPort, &Members { size, idle: false }, 1 << 20);
}
