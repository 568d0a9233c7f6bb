//! Networks of the configuration, and who has which address of them. Addresses are rows: given in the transaction that needs
//! them, and free again with the row of what has them.

pub mod bridges;
pub mod links;

use std::{collections::HashSet, net::IpAddr};

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::config::{Network, Subnet, networks::id};

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum NoAddress {
    /// There is no such network.
    #[error("network {0} could not be found")]
    NoNetwork(String),
    /// There is no such subnet.
    #[error("subnet {0} could not be found")]
    NoSubnet(String),
    /// It is not one of the subnet's.
    #[error("{0} is not an address that a host in {1} may have")]
    NotWithin(IpAddr, String),
    /// Somebody has it.
    #[error("{0} is in use already")]
    InUse(IpAddr),
    /// Everybody has one.
    #[error("no address of {0} is free")]
    Exhausted(String),
    /// The database's.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

/// An address that is given to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its id, as Neutron's.
    pub id: String,
    /// Its network.
    pub network_id: String,
    /// Its subnet.
    pub subnet_id: String,
    /// The address.
    pub address: IpAddr,
    /// Of the interface that has it.
    pub mac_address: String,
}

/// For what an address is.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// As Neutron's ports have it.
    pub name: &'a str,
    /// Whose it is.
    pub project: &'a str,
    /// `Octavia` of VIPs, `compute:nova` of amphorae.
    pub device_owner: &'a str,
    /// As Neutron's ports have it.
    pub device: &'a str,
    /// With which load balancer it goes.
    pub load_balancer: Option<&'a str>,
    /// With which amphora it goes.
    pub amphora: Option<&'a str>,
}

/// All networks of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Those of a configuration.
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// All of them.
    pub fn all(&self) -> &[Network] {
        &self.0
    }

    /// The network of an id.
    ///
    /// # Errors
    /// [`NoAddress::NoNetwork`].
    pub fn network(&self, id: &str) -> Result<&Network, NoAddress> {
        let found = self.0.iter().find(|network| same(&network.id, id));
        found.ok_or_else(|| NoAddress::NoNetwork(id.to_owned()))
    }

    /// The subnet of an id, with its network.
    ///
    /// # Errors
    /// [`NoAddress::NoSubnet`].
    pub fn subnet(&self, id: &str) -> Result<(&Network, &Subnet), NoAddress> {
        let mut all =
            self.0.iter().flat_map(|network| network.subnets.iter().map(move |subnet| (network, subnet)));
        all.find(|(_, subnet)| same(&subnet.id, id)).ok_or_else(|| NoAddress::NoSubnet(id.to_owned()))
    }

    /// A line for each subnet in which something has an address, and which is neither of these networks' nor of `another`: a name or a prefix
    /// that the configuration had before. What is there runs on, and can be neither changed nor replaced.
    ///
    /// # Errors
    /// The database's.
    pub fn missed(&self, connection: &Connection, another: &Network) -> rusqlite::Result<Vec<String>> {
        let known =
            |id: &str| self.subnet(id).is_ok() || another.subnets.iter().any(|subnet| same(&subnet.id, id));
        let query = "SELECT subnet_id, min(ip_address), count(*) FROM port GROUP BY subnet_id ORDER BY 2";
        let mut query = connection.prepare(query)?;
        let subnets = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let subnets = subnets.collect::<rusqlite::Result<Vec<(String, String, i64)>>>()?;
        let missed = subnets.into_iter().filter(|(subnet, ..)| !known(subnet));
        let line = |(subnet, address, ports)| {
            format!(
                "[networks] has no more, by name and prefix, the subnet of {address} ({subnet}), where addresses are in use, {ports} in all: \
                 what has them can be neither changed nor replaced"
            )
        };
        Ok(missed.map(line).collect())
    }

    /// The least address that would be given, but for those of members.
    ///
    /// # Errors
    /// The database's.
    pub fn unused(&self, connection: &Connection, subnet: &Subnet) -> rusqlite::Result<Option<IpAddr>> {
        unused(connection, subnet, &taken(connection, subnet)?)
    }

    /// Gives an address of a subnet: `wanted`, which may be any of it, or the least of its allocation pools that is free.
    ///
    /// # Errors
    /// Why there is none.
    pub fn allocate(
        &self,
        connection: &Connection,
        subnet: &str,
        wanted: Option<IpAddr>,
        owner: &Owner<'_>,
        now: i64,
    ) -> Result<Port, NoAddress> {
        let (network, subnet) = self.subnet(subnet)?;
        let subnet_id = subnet.id.to_string();
        let address = match wanted {
            Some(address) if !subnet.has_host(address) => {
                return Err(NoAddress::NotWithin(address, subnet.cidr()));
            }
            Some(address)
                if address == subnet.gateway() || holder(connection, &subnet_id, address)?.is_some() =>
            {
                return Err(NoAddress::InUse(address));
            }
            Some(address) => address,
            None => free(connection, subnet)?.ok_or_else(|| NoAddress::Exhausted(subnet.handed_out()))?,
        };
        let port = Port {
            id: Uuid::new_v4().to_string(),
            network_id: network.id.to_string(),
            mac_address: mac(&subnet_id, address),
            subnet_id,
            address,
        };
        connection
            .prepare_cached(
                "INSERT INTO port (id, network_id, subnet_id, ip_address, mac_address, name, project_id, device_owner, device_id,
                 load_balancer_id, amphora_id, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(params![
                port.id,
                port.network_id,
                port.subnet_id,
                address.to_string(),
                port.mac_address,
                owner.name,
                owner.project,
                owner.device_owner,
                owner.device,
                owner.load_balancer,
                owner.amphora,
                now,
            ])?;
        Ok(port)
    }
}

/// The id of the port that has an address.
fn holder(connection: &Connection, subnet: &str, address: IpAddr) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT id FROM port WHERE subnet_id = ?1 AND ip_address = ?2")?
        .query_row(params![subnet, address.to_string()], |row| row.get(0))
        .optional()
}

/// The least address of the allocation pools that nobody has; members of anything at all keep nobody from an address when there is no
/// other.
fn free(connection: &Connection, subnet: &Subnet) -> rusqlite::Result<Option<IpAddr>> {
    let taken = taken(connection, subnet)?;
    Ok(unused(connection, subnet, &taken)?.or_else(|| subnet.free(&taken)))
}

/// The least that neither a port nor a member has. Where a member is said to be there is a host, of which nobody knows more.
fn unused(
    connection: &Connection,
    subnet: &Subnet,
    taken: &HashSet<IpAddr>,
) -> rusqlite::Result<Option<IpAddr>> {
    let mut query = connection
        .prepare_cached("SELECT address FROM member UNION SELECT monitor_address FROM member WHERE monitor_address IS NOT NULL")?;
    let members = query.query_map([], |row| row.get::<_, String>(0))?;
    let members = members.map(|text| Ok(text?.parse().ok())).filter_map(Result::transpose);
    let members = members.filter(|address| !matches!(address, Ok(address) if !subnet.has_host(*address)));
    let avoided = members.chain(taken.iter().copied().map(Ok)).collect::<rusqlite::Result<_>>()?;
    Ok(subnet.free(&avoided))
}

/// Those that ports have.
fn taken(connection: &Connection, subnet: &Subnet) -> rusqlite::Result<HashSet<IpAddr>> {
    let mut query = connection.prepare_cached("SELECT ip_address FROM port WHERE subnet_id = ?1")?;
    let taken = query.query_map([subnet.id.to_string()], |row| row.get::<_, String>(0))?;
    taken.map(|text| Ok(text?.parse().ok())).filter_map(Result::transpose).collect()
}

/// A MAC address for whoever has an address: the same each time, and of those that nobody sells (the second bit of the first byte).
pub fn mac(subnet: &str, address: IpAddr) -> String {
    let bytes = id(&["mac", subnet, &address.to_string()]).into_bytes();
    let [a, b, c, d, e, ..] = bytes;
    format!("fa:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}

fn same(id: &Uuid, text: &str) -> bool {
    Uuid::parse_str(text).is_ok_and(|other| other == *id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::serve::{config::Config, db};

    const OWNER: Owner<'static> =
        Owner { name: "", project: "", device_owner: "", device: "", load_balancer: None, amphora: None };

    fn networks(text: &str) -> Networks {
        Networks::new(Config::parse(text).unwrap().networks)
    }

    #[test]
    fn members_keep_their_addresses_while_there_are_others() {
        let (_dir, connection) = db::scratch();
        let networks = networks("[networks]\na = 192.0.2.0/29, 2001:db8::/64\n");
        let [v4, v6] = &networks.all()[0].subnets[..] else { panic!() };
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        let member = |address: &str, monitored: Option<&str>| {
            connection
                .execute(
                    "INSERT INTO member (id, project_id, pool_id, provisioning_status, address, protocol_port, monitor_address, created_at,
                     generation) VALUES (?1, '', 'p', 'ACTIVE', ?1, 80, ?2, 0, 1)",
                    params![address, monitored],
                )
                .unwrap();
        };
        member("192.0.2.2", None);
        member("192.0.2.4", Some("192.0.2.5"));
        member("2001:db8::2", None);
        member("198.51.100.7", None);
        let give = |subnet: &Subnet| {
            let port = networks.allocate(&connection, &subnet.id.to_string(), None, &OWNER, 0);
            port.map(|port| port.address.to_string()).map_err(|e| e.to_string())
        };
        assert_eq!(give(v6).unwrap(), "2001:db8::3");
        let given: Vec<_> = (0..5).map(|_| give(v4).unwrap()).collect();
        assert_eq!(given, ["192.0.2.3", "192.0.2.6", "192.0.2.2", "192.0.2.4", "192.0.2.5"]);
        assert_eq!(give(v4).unwrap_err(), "no address of 192.0.2.0/29 is free");
    }

    #[test]
    fn what_is_in_a_subnet_that_the_configuration_has_no_more_is_told_of() {
        let (_dir, connection) = db::scratch();
        let before = networks(
            "[networks]\na = 192.0.2.0/29, 2001:db8::/64\nb = 198.51.100.0/24\nc = 203.0.113.0/24\n",
        );
        let [a, b, c] = before.all() else { panic!() };
        for subnet in [&a.subnets[0], &a.subnets[1], &b.subnets[0], &b.subnets[0], &c.subnets[0]] {
            before.allocate(&connection, &subnet.id.to_string(), None, &OWNER, 0).unwrap();
        }
        assert!(before.missed(&connection, a).unwrap().is_empty());
        let after = networks("[networks]\na = 192.0.2.0/29\nbee = 198.51.100.0/24\n");
        let told = after.missed(&connection, c).unwrap();
        let expected = [
            format!("the subnet of 198.51.100.2 ({}), where addresses are in use, 2 in all", b.subnets[0].id),
            format!("the subnet of 2001:db8::2 ({}), where addresses are in use, 1 in all", a.subnets[1].id),
        ];
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().zip(&expected).all(|(line, expected)| line.contains(expected)), "{told:?}");
    }

    #[test]
    fn no_address_is_given_twice() {
        let (_dir, connection) = db::scratch();
        let networks = networks("[networks]\na = 192.0.2.0/29, 2001:db8::/64\n");
        let [v4, v6] = &networks.all()[0].subnets[..] else { panic!() };
        let give = |subnet: &Subnet, wanted: Option<&str>| {
            let wanted = wanted.map(|text| text.parse().unwrap());
            networks
                .allocate(&connection, &subnet.id.to_string(), wanted, &OWNER, 0)
                .map(|port| port.address.to_string())
                .map_err(|e| e.to_string())
        };
        assert_eq!(give(v4, Some("192.0.2.3")).unwrap(), "192.0.2.3");
        assert_eq!(give(v4, Some("192.0.2.3")).unwrap_err(), "192.0.2.3 is in use already");
        assert_eq!(give(v4, Some("192.0.2.1")).unwrap_err(), "192.0.2.1 is in use already");
        assert!(give(v4, Some("192.0.2.7")).unwrap_err().contains("not an address"));
        assert_eq!(
            (give(v4, None).unwrap(), give(v4, None).unwrap()),
            ("192.0.2.2".to_owned(), "192.0.2.4".to_owned())
        );
        assert_eq!(
            (give(v4, None).unwrap(), give(v4, None).unwrap()),
            ("192.0.2.5".to_owned(), "192.0.2.6".to_owned())
        );
        assert_eq!(give(v4, None).unwrap_err(), "no address of 192.0.2.0/29 is free");
        connection.execute("DELETE FROM port WHERE ip_address = '192.0.2.4'", []).unwrap();
        assert_eq!(give(v4, None).unwrap(), "192.0.2.4");
        assert_eq!(give(v6, None).unwrap(), "2001:db8::2");
        let macs: i64 = connection
            .query_row("SELECT count(DISTINCT mac_address) FROM port", [], |row| row.get(0))
            .unwrap();
        assert_eq!(macs, 6);
    }
}
