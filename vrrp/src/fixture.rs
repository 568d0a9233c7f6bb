//! What tests of several modules start from.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use crate::{
    config::{Garp, Instance, InterfaceName, Preempt, VirtualAddress},
    packet::{Auth, Family, Interval},
};

/// The multicast group of IPv4.
pub(crate) const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));
/// The address of the virtual router.
pub(crate) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100));

/// A virtual router with priority 100 that preempts, over multicast.
pub(crate) fn instance(interval: Interval, auth: Auth) -> Instance {
    Instance {
        name: "test".to_owned(),
        interface: InterfaceName::new("eth1").expect("a name"),
        vrid: 7,
        family: Family::V4,
        priority: 100,
        interval,
        preempt: Preempt::After(Duration::ZERO),
        initially_master: false,
        accept: true,
        auth,
        unicast: None,
        garp: Garp::default(),
        addresses: vec![VirtualAddress { net: VIP.into(), interface: None }],
        excluded: vec![],
        routes: vec![],
        rules: vec![],
        track_interfaces: vec![],
        track: None,
    }
}

/// Version 2 with a password, each second.
pub(crate) fn v2() -> Instance {
    instance(Interval::Seconds(1), Auth::Password(*b"secret\0\0"))
}

/// Version 3, each second.
pub(crate) fn v3() -> Instance {
    instance(Interval::Centiseconds(100), Auth::None)
}
