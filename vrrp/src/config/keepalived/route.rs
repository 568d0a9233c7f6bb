//! What stands in `virtual_ipaddress`, `virtual_routes` and `virtual_rules`.

use std::net::IpAddr;

use amphora_model::Faults;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    lexer::Statement,
    value::{Reason, address, interface, metric, net, table},
};
use crate::{
    config::{RouteScope, Table, VirtualAddress, VirtualRoute, VirtualRule},
    packet::Family,
};

/// The words of a line, one after the other.
struct Words<'w>(std::slice::Iter<'w, String>);

impl<'w> Words<'w> {
    fn next(&mut self) -> Option<&'w str> {
        self.0.next().map(String::as_str)
    }

    /// The value of `option`, as `read` understands it, which may be given once.
    fn option<T>(
        &mut self,
        option: &str,
        place: &mut Option<T>,
        read: impl FnOnce(&str) -> Result<T, Reason>,
    ) -> Result<(), Reason> {
        let value = self.next().ok_or_else(|| format!("{option} needs a value"))?;
        match place.replace(read(value)?) {
            Some(_) => Err(format!("{option} is given twice")),
            None => Ok(()),
        }
    }
}

/// Reads a line by `read`.
fn line<T>(s: &Statement, faults: &Faults, read: impl FnOnce(Words<'_>) -> Result<T, Reason>) -> Option<T> {
    s.without_block(faults)?;
    read(Words(s.words.iter())).map_err(|reason| s.fault(faults, reason)).ok()
}

/// `10.0.0.1/24 dev eth1`.
pub(super) fn virtual_address(s: &Statement, faults: &Faults) -> Option<VirtualAddress> {
    line(s, faults, |mut words| {
        let net = net(words.next().unwrap_or_default())?;
        let mut device = None;
        while let Some(word) = words.next() {
            match word {
                "dev" => words.option("dev", &mut device, interface)?,
                other => return Err(format!("{other:?} is not supported here, only dev is")),
            }
        }
        Ok(VirtualAddress { net, interface: device })
    })
}

/// `10.0.0.0/8 via 192.0.2.1 dev eth1 src 192.0.2.100 table 1`, in any order.
pub(super) fn virtual_route(s: &Statement, faults: &Faults) -> Option<VirtualRoute> {
    line(s, faults, |mut words| {
        let (mut destination, mut gateway, mut source, mut device) = (None, None, None, None);
        let (mut of_table, mut of_scope, mut of_metric, mut onlink) = (None, None, None, false);
        while let Some(word) = words.next() {
            match word {
                "via" | "gw" | "gateway" => words.option("via", &mut gateway, address)?,
                "src" => words.option("src", &mut source, address)?,
                "dev" | "oif" => words.option("dev", &mut device, interface)?,
                "table" => words.option("table", &mut of_table, table)?,
                "scope" => words.option("scope", &mut of_scope, scope)?,
                "metric" | "priority" | "preference" => words.option("metric", &mut of_metric, metric)?,
                "onlink" => onlink = true,
                "to" => words.option("the destination", &mut destination, target)?,
                other if destination.is_some() => return Err(format!("{other:?} is not supported here")),
                other => destination = Some(target(other)?),
            }
        }
        let destination = destination.ok_or("needs a destination")?;
        Ok(VirtualRoute {
            destination: destination.net(gateway.or(source)),
            gateway,
            interface: device.ok_or("needs a dev")?,
            source,
            scope: of_scope.unwrap_or(RouteScope::Global),
            onlink,
            table: of_table.unwrap_or(Table::MAIN),
            metric: of_metric,
        })
    })
}

/// `from 10.0.0.1/32 table 1 priority 100`, in any order.
pub(super) fn virtual_rule(s: &Statement, faults: &Faults) -> Option<VirtualRule> {
    line(s, faults, |mut words| {
        let (mut source, mut of_table, mut priority) = (None, None, None);
        while let Some(word) = words.next() {
            match word {
                "from" => words.option("from", &mut source, target)?,
                "table" | "lookup" => words.option("table", &mut of_table, table)?,
                "priority" | "preference" | "order" => words.option("priority", &mut priority, metric)?,
                other => return Err(format!("{other:?} is not supported here")),
            }
        }
        Ok(VirtualRule {
            source: source.ok_or("needs a from")?.net(None),
            table: of_table.ok_or("needs a table")?,
            priority: Some(priority.ok_or("needs a priority")?),
        })
    })
}

fn scope(text: &str) -> Result<RouteScope, Reason> {
    match text {
        "global" | "0" => Ok(RouteScope::Global),
        "link" | "253" => Ok(RouteScope::Link),
        _ => Err(format!("{text:?} is not a supported scope: global or link")),
    }
}

/// What a route leads to, or a rule is for.
enum Target {
    /// Everything, of the family that the rest of the line is of.
    Any,
    Net(IpNet),
}

impl Target {
    /// The net, without the bits behind its prefix. The kernel ignores them or takes them amiss.
    fn net(self, other: Option<IpAddr>) -> IpNet {
        match (self, other.map(Family::of)) {
            (Self::Net(net), _) => net.trunc(),
            (Self::Any, Some(Family::V6)) => IpNet::V6(Ipv6Net::default()),
            (Self::Any, _) => IpNet::V4(Ipv4Net::default()),
        }
    }
}

fn target(text: &str) -> Result<Target, Reason> {
    match text {
        "default" | "any" | "all" => Ok(Target::Any),
        _ => net(text).map(Target::Net),
    }
}
