#![allow(clippy::unwrap_used)]

use super::*;
use crate::serve::db;

const ROWS: &str = "
    INSERT INTO load_balancer (id, project_id, provisioning_status, topology, compute_driver, provider, vip_address, vip_port_id,
        vip_subnet_id, vip_network_id, created_at, generation)
        VALUES ('lb', 'p', 'PENDING_UPDATE', 'SINGLE', 'namespaces', 'amphora', '192.0.2.1', 'port', 's', 'n', 0, 3);
    INSERT INTO pool (id, project_id, load_balancer_id, provisioning_status, protocol, lb_algorithm, created_at, generation) VALUES
        ('old', 'p', 'lb', 'PENDING_DELETE', 'HTTP', 'ROUND_ROBIN', 0, 2), ('new', 'p', 'lb', 'PENDING_CREATE', 'HTTP', 'ROUND_ROBIN', 0, 3);
    INSERT INTO listener (id, project_id, load_balancer_id, provisioning_status, protocol, protocol_port, default_pool_id,
        timeout_client_data, timeout_member_connect, timeout_member_data, timeout_tcp_inspect, created_at, generation)
        VALUES ('listener', 'p', 'lb', 'PENDING_UPDATE', 'HTTP', 80, 'old', 1, 1, 1, 1, 0, 2);
    INSERT INTO work (kind, subject, created_at) VALUES ('LOAD_BALANCER', 'lb', 0);";

fn statuses(connection: &Connection) -> Vec<(String, String)> {
    let mut query = connection
        .prepare(
            "SELECT id, provisioning_status FROM load_balancer UNION SELECT id, provisioning_status FROM listener
             UNION SELECT id, provisioning_status FROM pool",
        )
        .unwrap();
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

fn of(statuses: &[(&str, &str)]) -> Vec<(String, String)> {
    statuses.iter().map(|(id, status)| ((*id).to_owned(), (*status).to_owned())).collect()
}

#[test]
fn what_came_after_the_generation_that_is_live_stays_pending() {
    let (_dir, mut connection) = db::scratch();
    connection.execute_batch(ROWS).unwrap();
    let t = connection.transaction().unwrap();
    assert!(finish(&t, "lb", 2, None, 7).unwrap());
    t.commit().unwrap();
    let expected = [("lb", "PENDING_UPDATE"), ("listener", "ACTIVE"), ("new", "PENDING_CREATE")];
    assert_eq!(statuses(&connection), of(&expected));
    assert!(queue::find(&connection, Kind::LoadBalancer, "lb").unwrap().is_some());
    assert!(finish(&connection, "lb", 3, None, 7).unwrap());
    assert_eq!(statuses(&connection), of(&[("lb", "ACTIVE"), ("listener", "ACTIVE"), ("new", "ACTIVE")]));
    assert_eq!(queue::find(&connection, Kind::LoadBalancer, "lb").unwrap(), None);
}

#[test]
fn who_loses_an_amphora_at_the_last_moment_is_not_done() {
    let (_dir, connection) = db::scratch();
    connection.execute_batch(ROWS).unwrap();
    connection
        .execute_batch(
            "INSERT INTO amphora (id, load_balancer_id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration, created_at)
                VALUES ('one', 'lb', 'ALLOCATED', 'namespaces', 'm', '127.0.0.1', 1, 0, 0)",
        )
        .unwrap();
    let before = statuses(&connection);
    assert!(silent(&connection, "one", 7).unwrap());
    // What it was found at is its generation still.
    assert!(!finish(&connection, "lb", 3, None, 7).unwrap());
    assert_eq!(statuses(&connection), before);
    assert!(queue::find(&connection, Kind::LoadBalancer, "lb").unwrap().is_some());
    removed(&connection, None, "one").unwrap();
    assert!(finish(&connection, "lb", 3, None, 7).unwrap());
}

#[test]
fn what_fails_again_and_again_is_in_error_with_the_reason_and_is_tried_on() {
    let (_dir, connection) = db::scratch();
    connection.execute_batch(ROWS).unwrap();
    for attempt in 1..=3 {
        assert!(statuses(&connection).iter().all(|(_, status)| status != "ERROR"), "{attempt}");
        failed(&connection, "lb", "no room", 0, 0.0).unwrap();
    }
    let expected = [("lb", "ERROR"), ("listener", "ERROR"), ("new", "ERROR"), ("old", "PENDING_DELETE")];
    assert_eq!(statuses(&connection), of(&expected));
    let work = queue::find(&connection, Kind::LoadBalancer, "lb").unwrap().unwrap();
    assert_eq!((work.attempts, work.reason.as_deref()), (3, Some("no room")));
    let told: i64 = connection
        .query_row("SELECT count(*) FROM event WHERE new = 'ERROR' AND reason = 'no room'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(told, 3);
    assert!(finish(&connection, "lb", 3, None, 7).unwrap());
    assert_eq!(statuses(&connection), of(&[("lb", "ACTIVE"), ("listener", "ACTIVE"), ("new", "ACTIVE")]));
}

#[test]
fn another_reason_is_told_and_the_same_one_is_not_told_again() {
    let (_dir, connection) = db::scratch();
    connection.execute_batch(ROWS).unwrap();
    connection
        .execute_batch(
            "INSERT INTO amphora (id, load_balancer_id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration, created_at)
                VALUES ('one', 'lb', 'BOOTING', 'namespaces', 'm', '127.0.0.1', 1, 0, 0)",
        )
        .unwrap();
    let told = || {
        let mut query = connection
            .prepare(
                "SELECT old || ' ' || new || COALESCE(' ' || reason, '') FROM event
                 WHERE object_id = 'lb' AND attribute = 'provisioning_status' ORDER BY id",
            )
            .unwrap();
        let rows = query.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
        rows.filter_map(Result::unwrap).collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for (reasons, is_told) in [
        (&["no room"; 2][..], None),
        (&["no room", "no room"], Some("PENDING_UPDATE ERROR no room")),
        (
            &["amphora 6f0c-1a at 127.0.0.1:20001 ended", "amphora 7f9e-b2 at 127.0.0.2:19 ended"],
            Some("ERROR ERROR amphora 6f0c-1a at 127.0.0.1:20001 ended"),
        ),
        (&["no room"], Some("ERROR ERROR no room")),
    ] {
        for reason in reasons {
            // As when a machine does not come up.
            retire(&connection, "one", 0).unwrap();
            failed(&connection, "lb", reason, 0, 0.0).unwrap();
        }
        expected.extend(is_told);
        assert_eq!(told(), expected);
    }
    // What was asked for anew is tried anew.
    connection.execute_batch("UPDATE work SET attempts = 0").unwrap();
    retire(&connection, "one", 0).unwrap();
    expected.push("ERROR PENDING_UPDATE");
    assert_eq!(told(), expected);
}

#[test]
fn what_nobody_works_on_is_found() {
    let (_dir, connection) = db::scratch();
    connection.execute_batch(ROWS).unwrap();
    connection
        .execute_batch(
            "DELETE FROM work; UPDATE load_balancer SET provisioning_status = 'ACTIVE';
             INSERT INTO work (kind, subject, created_at) VALUES ('AMPHORA_DELETE', 'gone', 0), ('LOAD_BALANCER', 'gone', 0);",
        )
        .unwrap();
    assert_eq!(adopt(&connection, 5).unwrap(), 1);
    let due = queue::due(&connection, 5, 10).unwrap();
    assert_eq!(
        due.iter().map(|work| (work.kind, work.subject.as_str())).collect::<Vec<_>>(),
        [(Kind::LoadBalancer, "lb")]
    );
    assert_eq!(adopt(&connection, 6).unwrap(), 0);
}

/// Spares `a`, ready, and `b`, which is being made; of pairs `c`.
const SPARES: &str = "
    INSERT INTO amphora (id, status, topology, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration, created_at) VALUES
        ('a', 'READY', 'SINGLE', 'namespaces', 'a', '127.0.0.1', 1, 0, 1),
        ('b', 'BOOTING', 'SINGLE', 'namespaces', 'b', '127.0.0.1', 2, 0, 2),
        ('c', 'READY', 'ACTIVE_STANDBY', 'namespaces', 'c', '127.0.0.1', 3, 0, 3);";

#[test]
fn there_are_to_be_spares_of_what_load_balancers_are() {
    let (_dir, connection) = db::scratch();
    connection.execute_batch(SPARES).unwrap();
    let common = || ("namespaces".to_owned(), Topology::Single, None);
    let pool = |size| {
        let Pool { lacking, surplus } = Pool::read(&connection, size, common()).unwrap();
        let lacking: Vec<_> =
            lacking.into_iter().map(|((_, topology, _), count)| (topology, count)).collect();
        (lacking, surplus.join(" "))
    };
    assert_eq!(pool(3), (vec![(Topology::Single, 1)], "c".to_owned()));
    assert_eq!(pool(2), (vec![], "c".to_owned()));
    assert_eq!(pool(1), (vec![], "b c".to_owned()), "those that are ready stay");
    assert_eq!(pool(0), (vec![], "b a c".to_owned()));
    connection.execute_batch("UPDATE amphora SET status = 'PENDING_DELETE' WHERE id = 'b'").unwrap();
    assert_eq!(pool(1), (vec![], "c".to_owned()));
    assert_eq!(pool(2), (vec![], "c".to_owned()), "what goes is replaced when it is gone");
    connection.execute_batch(ROWS).unwrap();
    connection.execute_batch("UPDATE load_balancer SET topology = 'ACTIVE_STANDBY'").unwrap();
    assert_eq!(pool(2), (vec![(Topology::ActiveStandby, 1)], String::new()));
}

#[test]
fn a_spare_is_taken_by_who_can_use_it_and_newer_than_the_failover() {
    let (_dir, connection) = db::scratch();
    let networks = Networks::new(crate::serve::config::Config::parse("").unwrap().networks);
    let subnet = networks.all()[0].subnets[0].id.to_string();
    connection.execute_batch(ROWS).unwrap();
    connection.execute("UPDATE load_balancer SET vip_subnet_id = ?1", [subnet]).unwrap();
    connection.execute_batch(SPARES).unwrap();
    queue::enqueue(&connection, Kind::LoadBalancerFailover, "lb", 100).unwrap();
    let lb = load_balancer(&connection, "lb").unwrap().unwrap();
    queue::enqueue(&connection, Kind::AmphoraDelete, "a", 5).unwrap();
    assert!(!take(&connection, &networks, &lb, 50).unwrap(), "one that is to go is none");
    queue::done(&connection, Kind::AmphoraDelete, "a").unwrap();
    connection.execute_batch("UPDATE amphora SET compute_flavor = 'big' WHERE id = 'a'").unwrap();
    assert!(!take(&connection, &networks, &lb, 50).unwrap(), "of another size");
    connection
        .execute_batch(
            "INSERT INTO flavor_profile VALUES ('p', 'p', 'amphora', '{\"compute_flavor\": \"big\"}');
             INSERT INTO flavor (id, name, flavor_profile_id) VALUES ('f', 'f', 'p'); UPDATE load_balancer SET flavor_id = 'f'",
        )
        .unwrap();
    let lb = load_balancer(&connection, "lb").unwrap().unwrap();
    assert!(take(&connection, &networks, &lb, 50).unwrap());
    assert!(!take(&connection, &networks, &lb, 50).unwrap());
    let lb = load_balancer(&connection, "lb").unwrap().unwrap();
    let [one] = &lb.amphorae[..] else { panic!("{lb:?}") };
    assert_eq!((one.id.as_str(), one.status, one.made), ("a", AmphoraStatus::Allocated, 100));
    assert_eq!(one.ports.len(), 1);
}

#[test]
fn monitors_policies_and_rules_are_online_once_they_are_live() {
    let (_dir, connection) = db::scratch();
    connection.execute_batch(ROWS).unwrap();
    connection
        .execute_batch(
            "INSERT INTO health_monitor (id, project_id, pool_id, provisioning_status, type, delay, timeout, max_retries, created_at, generation)
                VALUES ('monitor', 'p', 'new', 'PENDING_CREATE', 'TCP', 5, 3, 2, 0, 3);
             INSERT INTO l7policy (id, project_id, listener_id, provisioning_status, action, position, admin_state_up, created_at, generation)
                VALUES ('on', 'p', 'listener', 'PENDING_CREATE', 'REJECT', 1, 1, 0, 3), ('off', 'p', 'listener', 'PENDING_CREATE', 'REJECT', 2, 0, 0, 3);
             INSERT INTO l7rule (id, project_id, l7policy_id, provisioning_status, type, compare_type, value, created_at, generation)
                VALUES ('rule', 'p', 'on', 'PENDING_CREATE', 'PATH', 'STARTS_WITH', '/', 0, 3);",
        )
        .unwrap();
    let told = |connection: &Connection| -> Vec<(String, String)> {
        let mut query = connection
            .prepare(
                "SELECT id, operating_status FROM health_monitor UNION SELECT id, operating_status FROM l7policy
                 UNION SELECT id, operating_status FROM l7rule",
            )
            .unwrap();
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let none = ["monitor", "off", "on", "rule"].map(|id| (id, "OFFLINE"));
    assert!(finish(&connection, "lb", 2, None, 7).unwrap());
    assert_eq!(told(&connection), of(&none));
    assert!(finish(&connection, "lb", 3, None, 7).unwrap());
    let expected = [("monitor", "ONLINE"), ("off", "OFFLINE"), ("on", "ONLINE"), ("rule", "ONLINE")];
    assert_eq!(told(&connection), of(&expected));
    let at: i64 = connection.query_row("SELECT updated_at FROM l7rule", [], |row| row.get(0)).unwrap();
    assert_eq!(at, 7);
}

#[test]
fn a_machine_has_an_address_of_the_management_network_and_all_its_ports() {
    let (_dir, connection) = db::scratch();
    let config =
        crate::serve::config::Config::parse("[compute]\nmanagement_network = 10.9.0.0/29\n").unwrap();
    let new = |id: &str, driver: &str| New {
        id: id.to_owned(),
        driver: driver.to_owned(),
        flavor: Some("cpus=2".to_owned()),
        machine: format!("m-{id}"),
        agent_ports: (20_000, 20_001),
        management: config.compute.management.subnets[0].clone(),
        expires: 0,
    };
    for id in ["a", "b", "c", "d", "e"] {
        spare(&connection, Topology::Single, &new(id, "qemu"), 1).unwrap();
    }
    let full = spare(&connection, Topology::Single, &new("f", "qemu"), 1).unwrap_err().to_string();
    assert_eq!(full, "no address of [compute] management_network 10.9.0.0/29 is free");
    spare(&connection, Topology::Single, &new("g", "namespaces"), 1).unwrap();
    connection.execute_batch("DELETE FROM amphora WHERE id = 'c'").unwrap();
    spare(&connection, Topology::Single, &new("f", "qemu"), 1).unwrap();
    // Its port stays: nobody else has it.
    move_agent(&connection, "f", (20_000, 20_001)).unwrap();
    let of = |id: &str| amphora(&connection, id).unwrap().unwrap();
    assert_eq!(
        ["a", "b", "f"].map(|id| of(id).agent.to_string()),
        ["10.9.0.2:9443", "10.9.0.3:9443", "10.9.0.4:9443"]
    );
    assert!(of("g").agent.ip().is_loopback());
    assert_eq!(of("a").flavor.as_deref(), Some("cpus=2"));
}

#[test]
fn a_network_that_the_configuration_has_not_for_a_while_is_not_lost() {
    let (_dir, connection) = db::scratch();
    let of = |text: &str| Networks::new(crate::serve::config::Config::parse(text).unwrap().networks);
    let all = of("[networks]\na = 192.0.2.0/24\nb = 10.1.0.0/24\n");
    let (without, [vips, members]) = (of("[networks]\na = 192.0.2.0/24\n"), all.all()) else { panic!() };
    connection.execute_batch(ROWS).unwrap();
    connection
        .execute_batch(&format!(
            "DELETE FROM work; UPDATE load_balancer SET provisioning_status = 'ACTIVE';
             INSERT INTO amphora (id, load_balancer_id, status, topology, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration,
                 applied_generation, created_at) VALUES ('a', 'lb', 'ALLOCATED', 'SINGLE', 'namespaces', 'm', '127.0.0.1', 1, 0, 3, 0);
             INSERT INTO member (id, project_id, pool_id, provisioning_status, address, protocol_port, subnet_id, created_at, generation)
                 VALUES ('m', 'p', 'new', 'ACTIVE', '10.1.0.9', 80, '{}', 0, 1);",
            members.subnets[0].id
        ))
        .unwrap();
    let lb = || load_balancer(&connection, "lb").unwrap().unwrap();
    // It was made without that network, and gets it as soon as there is one.
    let plug = |networks| {
        let ids = lacking(&connection, networks).unwrap();
        plug_what_lacks(&connection, networks, &ids, 1).unwrap()
    };
    assert_eq!(plug(&without), 0);
    assert_eq!(plug(&all), 1);
    assert_eq!(
        (lb().amphorae[0].applied, lb().amphorae[0].ports[0].network.clone()),
        (0, members.id.to_string())
    );
    assert_eq!(queue::of(&connection, "lb").unwrap().len(), 1);
    assert_eq!(plug(&all), 0);
    // What it has stays through a start without it; where no member is any more it goes.
    let idle = |networks: &Networks| idle_ports(&connection, networks, &lb()).unwrap().len();
    assert_eq!((idle(&all), idle(&without)), (0, 0));
    connection.execute("UPDATE member SET subnet_id = ?1", [vips.subnets[0].id.to_string()]).unwrap();
    assert_eq!((idle(&all), idle(&without)), (1, 1));
}

#[test]
fn a_port_that_a_tenant_has_made_outlives_the_load_balancer() {
    let (_dir, connection) = db::scratch();
    connection.execute_batch(ROWS).unwrap();
    connection
        .execute_batch(
            "INSERT INTO port (id, network_id, subnet_id, ip_address, mac_address, device_owner, device_id, load_balancer_id, created_at) VALUES
                 ('own', 'n', 's', '192.0.2.1', 'm', 'Octavia', 'lb-lb', 'lb', 0), ('tenant', 'n', 's', '192.0.2.2', 'n', '', 'lb-lb', 'lb', 0);",
        )
        .unwrap();
    delete(&connection, "lb").unwrap();
    let mut query = connection.prepare("SELECT id, device_id FROM port").unwrap();
    let left: Vec<(String, String)> =
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    assert_eq!(left, [("tenant".to_owned(), String::new())]);
}

#[test]
fn one_that_is_not_heard_goes_at_once_whatever_has_failed_before() {
    let (_dir, connection) = db::scratch();
    connection.execute_batch(ROWS).unwrap();
    connection
        .execute_batch(
            "INSERT INTO amphora (id, load_balancer_id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration, created_at) VALUES
                ('one', 'lb', 'ALLOCATED', 'namespaces', 'm', '127.0.0.1', 1, 0, 0), ('spare', NULL, 'READY', 'namespaces', 'n', '127.0.0.1', 2, 0, 0);",
        )
        .unwrap();
    failed(&connection, "lb", "no room", 1000, 0.0).unwrap();
    assert_eq!(queue::due(&connection, 1000, 9).unwrap(), []);
    for expected in [true, false] {
        assert_eq!(silent(&connection, "one", 1000).unwrap(), expected);
        assert_eq!(silent(&connection, "spare", 1000).unwrap(), expected);
    }
    let status: String =
        connection.query_row("SELECT status FROM amphora WHERE id = 'one'", [], |row| row.get(0)).unwrap();
    assert_eq!(status, "PENDING_DELETE", "it is stopped before there is another");
    let due: Vec<_> =
        queue::due(&connection, 1000, 9).unwrap().into_iter().map(|work| work.subject).collect();
    assert_eq!(due, ["lb", "spare"]);
}

/// Addresses of amphora `one` of a load balancer with a VIP of IPv4, by where members are: subnets of a network by number. The third of `vips`
/// stands for none, and an address of IPv6. Then those that are idle without the first member.
fn links(topology: &str, additional: bool, members: &[(&str, usize)]) -> (Vec<String>, Vec<String>) {
    let (_dir, connection) = db::scratch();
    let text = "[networks]\nvips = 192.0.2.0/24, 2001:db8::/64, 198.51.100.0/24\nmembers = 10.1.0.0/24, 2001:db8:1::/64, 10.2.0.0/24\n";
    let networks = Networks::new(crate::serve::config::Config::parse(text).unwrap().networks);
    let subnet = |network: &str, at: usize| {
        let found = networks.all().iter().find(|one| one.name == network).unwrap();
        found.subnets[at].id.to_string()
    };
    connection.execute_batch(ROWS).unwrap();
    let vips =
        serde_json::json!([{"ip_address": "2001:db8::9", "subnet_id": subnet("vips", 1), "port_id": "x"}]);
    connection
        .execute(
            "UPDATE load_balancer SET provisioning_status = 'ACTIVE', topology = ?1, vip_subnet_id = ?2, additional_vips = ?3",
            [topology, &subnet("vips", 0), &if additional { vips.to_string() } else { "[]".to_owned() }],
        )
        .unwrap();
    connection
        .execute_batch(
            "INSERT INTO amphora (id, load_balancer_id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration, created_at)
                VALUES ('one', 'lb', 'ALLOCATED', 'namespaces', 'm', '127.0.0.1', 1, 0, 0)",
        )
        .unwrap();
    let found = || load_balancer(&connection, "lb").unwrap().unwrap();
    join(&connection, &networks, &found(), "one", 0).unwrap();
    for (at, (network, number)) in members.iter().enumerate() {
        connection
            .execute(
                "INSERT INTO member (id, project_id, pool_id, provisioning_status, address, protocol_port, subnet_id, created_at, generation)
                 VALUES (?1, 'p', 'new', 'ACTIVE', ?1, 80, ?2, 0, 3)",
                [format!("m{at}"), subnet(network, *number)],
            )
            .unwrap();
        if *network == "vips" && *number == 2 {
            let text = "UPDATE member SET address = '2001:db8::7', subnet_id = NULL WHERE id = ?1";
            connection.execute(text, [format!("m{at}")]).unwrap();
        }
    }
    reach_members(&connection, &networks, &found(), 0).unwrap();
    assert!(!lacks_ports(&connection, &networks, &found()).unwrap());
    let lb = found();
    let ports = lb.amphorae[0].ports.iter().map(|port| port.address.to_string()).collect();
    connection.execute("DELETE FROM member WHERE id = 'm0'", []).unwrap();
    let idle = idle_ports(&connection, &networks, &found()).unwrap();
    (ports, idle.into_iter().map(|(_, port)| port.address.to_string()).collect())
}

#[test]
fn an_amphora_has_an_address_of_each_family_that_members_of_a_network_have() {
    let of = |topology, additional, members: &[(&str, usize)]| {
        let (ports, idle) = links(topology, additional, members);
        (ports.join(" "), idle.join(" "))
    };
    let told = |ports: &str, idle: &str| (ports.to_owned(), idle.to_owned());
    // The port of the VIP is the first; where the first member is, nobody is any more in the end.
    let both = of("SINGLE", false, &[("members", 1), ("members", 0)]);
    assert!(both.0.contains(" 10.1.0.2") && both.0.contains(" 2001:db8:1::2"), "{both:?}");
    assert_eq!(both.1, "2001:db8:1::2");
    let (ports, idle) = links("SINGLE", false, &[("members", 0), ("members", 2)]);
    assert_eq!((ports.len(), idle.len()), (2, 0), "of one family there is one, wherever it is: {ports:?}");
    assert_eq!(of("SINGLE", false, &[("vips", 0)]), told("192.0.2.2", ""));
    assert_eq!(of("SINGLE", false, &[("vips", 1)]), told("192.0.2.2 2001:db8::2", "2001:db8::2"));
    // The backup of a pair has no VIP, and looks at members as well.
    assert_eq!(of("SINGLE", true, &[("vips", 1)]), told("192.0.2.2", ""));
    assert_eq!(of("ACTIVE_STANDBY", true, &[("vips", 1)]), told("192.0.2.2 2001:db8::2", "2001:db8::2"));
    assert_eq!(of("ACTIVE_STANDBY", true, &[("vips", 2)]), told("192.0.2.2 2001:db8::2", "2001:db8::2"));
    assert_eq!(
        of("ACTIVE_STANDBY", false, &[("vips", 2)]),
        told("192.0.2.2", ""),
        "there is no way to it at all"
    );
    assert_eq!(of("SINGLE", true, &[("vips", 2)]), told("192.0.2.2", ""));
}
