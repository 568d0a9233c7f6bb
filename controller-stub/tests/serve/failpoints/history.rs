//! What tenants and operators ask for by the API, one after another, whatever becomes of `serve` meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use amphora_controller::{
    certs::Authority,
    serve::{config::Config, network::Networks},
};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{
    api::try_request,
    ground::{Serve, Way},
};

const CONFIGURATION: &str =
    "[house_keeping]\nspare_amphora_pool_size = 1\n[networks]\nmembers = 10.240.0.0/24\n";

const HERE: (&str, u16) = ("10.250.0.1", 8081);
const THERE: (&str, u16) = ("10.240.0.1", 8082);

/// One history, and what is known of it.
pub(super) struct History {
    serve: Serve,
    /// How long it took, after it was ended, from the start until all was so again.
    pub(super) again: Option<Duration>,
    /// Of load balancers by name: id, VIP.
    there: BTreeMap<&'static str, (String, String)>,
    /// Load balancers that are gone, or may be.
    gone: Vec<(String, bool)>,
    /// The members of the first pool: what was answered last, and what was asked for and not answered.
    members: Vec<Vec<(&'static str, u16)>>,
    pool: Option<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

impl History {
    /// `serve` that is started, and ends at a point.
    pub(super) fn new(point: Option<&str>) -> Option<Self> {
        Self::with(CONFIGURATION, point)
    }

    /// The same, whose authority is exchanged all the time: it ends sooner than an exchange is to begin.
    pub(super) fn exchanging(point: Option<&str>) -> Option<Self> {
        let exchanges = "[certificates]\nca_validity_time = 3600\n\
            [house_keeping]\ncert_expiry_buffer = 7200\ncert_interval = 1\n";
        Self::with(&format!("{CONFIGURATION}{exchanges}"), point)
    }

    fn with(configuration: &str, point: Option<&str>) -> Option<Self> {
        let way = Way {
            configuration: configuration.to_owned(),
            failpoint: point.map(str::to_owned),
            ..Way::default()
        };
        let serve = Serve::launch(way)?;
        Some(Self {
            serve,
            again: None,
            there: BTreeMap::new(),
            gone: Vec::new(),
            members: Vec::new(),
            pool: None,
        })
    }

    pub(super) fn log(&self) -> String {
        self.serve.log()
    }

    /// All of it.
    pub(super) fn run(mut self) -> Self {
        self.wait("the start", |this| this.serve.log().contains("serving").then_some(()));
        self.serve.member("10.250.0.1:8081", "here");
        self.serve.member("10.240.0.1:8082", "there");
        self.serve.neighbours_stay();
        self.keep_certificate();
        self.create("first", None, json!([listener("HTTP", 80, HERE)]));
        let pool = self.only("pools", "first");
        self.pool = Some(pool.clone());
        self.members = vec![vec![HERE]];
        let profile = self.make(
            "flavorprofile",
            "flavorprofiles",
            json!({"name": "pair", "provider_name": "amphora", "flavor_data": "{\"loadbalancer_topology\": \"ACTIVE_STANDBY\"}"}),
        );
        let flavor = self.make("flavor", "flavors", json!({"name": "pair", "flavor_profile_id": profile}));
        let mut secure = listener("TERMINATED_HTTPS", 443, HERE);
        secure["default_tls_container_ref"] = json!("certificate");
        self.create("second", Some(flavor), json!([listener("HTTP", 80, HERE), secure]));
        self.settle();
        // In another network, for which there has to be another port.
        self.replace_members(&pool, vec![THERE]);
        self.settle();
        self.replace_members(&pool, vec![HERE, THERE]);
        let id = self.there["second"].0.clone();
        self.ask("PUT", &format!("loadbalancers/{id}/failover"), &Value::Null);
        let first = self.there["first"].0.clone();
        let amphora = self.amphora_of(&first);
        self.ask("PUT", &format!("octavia/amphorae/{amphora}/config"), &Value::Null);
        self.settle();
        let amphora = self.amphora_of(&first);
        self.ask("PUT", &format!("octavia/amphorae/{amphora}/failover"), &Value::Null);
        self.ask("PUT", &format!("loadbalancers/{first}"), &json!({"loadbalancer": {"description": "x"}}));
        self.settle();
        // The port goes when nobody needs it.
        self.replace_members(&pool, vec![HERE]);
        self.settle();
        let idle = "SELECT count(*) FROM port WHERE amphora_id IS NOT NULL AND ip_address LIKE '10.240.%'";
        assert_eq!(count(&self.serve.db(), idle), 0);
        for name in ["second", "first"] {
            self.delete(name);
        }
        self.settle();
        self
    }

    /// An exchange of the authority, from the start until the first one is trusted no more.
    pub(super) fn exchange(mut self) -> Self {
        self.wait("the start", |this| this.serve.log().contains("serving").then_some(()));
        self.serve.member("10.250.0.1:8081", "here");
        let authority = |this: &Self, name: &str| {
            fs::read_to_string(this.serve.dir.path().join("data/authority").join(name)).unwrap_or_default()
        };
        let first = authority(&self, "ca.pem");
        self.create("first", None, json!([listener("HTTP", 80, HERE)]));
        self.wait("another authority", |this| {
            let gone = ["ca.pem", "previous.pem"].iter().all(|name| authority(this, name) != first);
            gone.then_some(())
        });
        // Agents are spoken to, once more.
        let id = self.there["first"].0.clone();
        self.ask("PUT", &format!("loadbalancers/{id}"), &json!({"loadbalancer": {"description": "x"}}));
        self.settle();
        self.delete("first");
        self.settle();
        self
    }

    /// Waits for something; `serve` that has ended meanwhile is started again.
    fn wait<T>(&mut self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            self.revive();
            if Instant::now() > deadline {
                // Which says what there is.
                return self.serve.eventually(what, |_| found(self));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts it again when it has ended. True when it had.
    fn revive(&mut self) -> bool {
        if !self.serve.has_ended() {
            return false;
        }
        assert!(self.again.is_none(), "it ended a second time:\n{}", self.serve.log());
        let begin = Instant::now();
        self.serve.restart();
        self.again = Some(Duration::ZERO);
        self.settle();
        self.again = Some(begin.elapsed());
        true
    }

    /// Waits until nothing is to be done, and looks whether all is as it was answered.
    fn settle(&mut self) {
        self.wait("nothing PENDING", |this| {
            let db = this.serve.db();
            (undone(&db) == 0).then_some(())
        });
        let db = self.serve.db();
        self.wait("no machine without a row, and no row without a machine", |this| {
            (this.serve.machines() == machines(&db)).then_some(())
        });
        let ports = count(&db, "SELECT count(*) FROM port WHERE amphora_id IS NOT NULL");
        assert_eq!(self.serve.links(), ports, "links of ports");
        for (name, (id, vip)) in self.there.clone() {
            let found = self.get(&format!("loadbalancers/{id}"));
            assert_eq!(found.0, 200, "{name} was answered and is lost");
            assert_eq!(found.1["loadbalancer"]["provisioning_status"], "ACTIVE", "{name}");
            self.wait("traffic", |this| this.serve.get(&format!("{vip}:80")));
        }
        for (id, certain) in self.gone.clone() {
            let status = self.get(&format!("loadbalancers/{id}")).0;
            assert!(status == 404 || !certain, "{id} was deleted and is there");
        }
        if let Some(pool) = self.pool.clone().filter(|_| self.there.contains_key("first")) {
            let (_, answer) = self.get(&format!("pools/{pool}/members"));
            let found: BTreeSet<i64> = answer["members"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m["protocol_port"].as_i64().unwrap())
                .collect();
            let ports =
                |members: &Vec<(&str, u16)>| members.iter().map(|(_, port)| i64::from(*port)).collect();
            let allowed: Vec<BTreeSet<i64>> = self.members.iter().map(ports).collect();
            assert!(allowed.contains(&found), "members {found:?}, not one of {allowed:?}");
        }
    }

    fn get(&mut self, path: &str) -> (u16, Value) {
        self.ask("GET", path, &Value::Null)
    }

    /// What may be asked again when there was no answer.
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some((status, answer)) = try_request(&self.serve, method, path, body) {
                assert!(status < 500, "{method} {path}: {answer}");
                return (status, answer);
            }
            self.wait("its end", |this| {
                let again = this.again.is_some();
                (again || try_request(&this.serve, "GET", "providers", &Value::Null).is_some()).then_some(())
            });
            assert!(Instant::now() < deadline, "no answer: {method} {path}");
        }
    }

    /// Makes something that has a name; returns its id.
    fn make(&mut self, one: &str, many: &str, body: Value) -> String {
        self.made(one, many, &body)["id"].as_str().unwrap().to_owned()
    }

    fn made(&mut self, one: &str, many: &str, body: &Value) -> Value {
        loop {
            if let Some((status, answer)) = try_request(&self.serve, "POST", many, &json!({one: body})) {
                assert_eq!(status, 201, "{answer}");
                return answer[one].clone();
            }
            // Nobody has been told whether it is there.
            let path = format!("{many}?name={}", body["name"].as_str().unwrap());
            let (_, answer) = self.get(&path);
            if let Some(found) = answer[many].as_array().and_then(|all| all.first()) {
                return found.clone();
            }
        }
    }

    fn create(&mut self, name: &'static str, flavor: Option<String>, listeners: Value) {
        let subnet = networks().all()[0].subnets[0].id.to_string();
        let mut body = json!({"name": name, "vip_subnet_id": subnet, "listeners": listeners});
        if let Some(flavor) = flavor {
            body["flavor_id"] = json!(flavor);
        }
        let made = self.made("loadbalancer", "loadbalancers", &body);
        self.there.insert(name, (text(&made["id"]), text(&made["vip_address"])));
    }

    fn delete(&mut self, name: &str) {
        let (id, _) = self.there.remove(name).unwrap();
        self.gone.push((id.clone(), false));
        let (status, answer) = self.ask("DELETE", &format!("loadbalancers/{id}?cascade=true"), &Value::Null);
        assert!([204, 404].contains(&status), "{answer}");
        self.gone.last_mut().unwrap().1 = true;
    }

    fn replace_members(&mut self, pool: &str, members: Vec<(&'static str, u16)>) {
        self.members.push(members.clone());
        let networks = networks();
        let body: Vec<Value> = members
            .iter()
            .map(|(address, port)| {
                let place = usize::from(address.starts_with("10.240."));
                let subnet = networks.all()[place].subnets[0].id.to_string();
                json!({"address": address, "protocol_port": port, "subnet_id": subnet})
            })
            .collect();
        let (status, answer) = self.ask("PUT", &format!("pools/{pool}/members"), &json!({"members": body}));
        assert_eq!(status, 202, "{answer}");
        self.members = vec![members];
    }

    /// The id of the only one of a load balancer.
    fn only(&mut self, many: &str, name: &str) -> String {
        let (_, answer) = self.get(&format!("{many}?name={name}"));
        text(&answer[many][0]["id"])
    }

    fn amphora_of(&mut self, load_balancer: &str) -> String {
        let (_, answer) = self.get(&format!("octavia/amphorae?loadbalancer_id={load_balancer}"));
        text(&answer["amphorae"][0]["id"])
    }

    /// What listeners refer to as `certificate`.
    fn keep_certificate(&self) {
        let issued = Authority::make(time::Duration::DAY)
            .and_then(|authority| authority.server("www", ["www.example.com"], time::Duration::DAY))
            .unwrap();
        let dir = self.serve.dir.path().join("data/certificates");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("certificate.pem"), issued.both()).unwrap();
    }
}

fn networks() -> Networks {
    let text = "[networks]\nlb = 10.250.0.0/24\nmembers = 10.240.0.0/24\n";
    Networks::new(Config::parse(text).unwrap().networks)
}

/// A listener with a pool and a member. The pool of the first has the name by which it is found.
fn listener(protocol: &str, port: u16, member: (&str, u16)) -> Value {
    let name = if protocol == "HTTP" { "first" } else { "other" };
    json!({
        "name": protocol, "protocol": protocol, "protocol_port": port,
        "default_pool": {
            "name": name, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN",
            "members": [{"address": member.0, "protocol_port": member.1}],
        },
    })
}

fn count(db: &Connection, query: &str) -> usize {
    usize::try_from(db.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap()
}

/// How many rows are not as they are to be, or wait for work.
fn undone(db: &Connection) -> usize {
    let tables = ["load_balancer", "listener", "pool", "member", "health_monitor", "l7policy", "l7rule"];
    let undone = tables.map(|table| {
        count(db, &format!("SELECT count(*) FROM {table} WHERE provisioning_status <> 'ACTIVE'"))
    });
    // One spare of the sort of load balancers without a flavor, and of each that there is.
    let spares = ["SINGLE", "ACTIVE_STANDBY"].map(|topology| {
        let of = |table: &str, rest: &str| {
            count(db, &format!("SELECT count(*) FROM {table} WHERE topology = '{topology}' {rest}"))
        };
        let wanted = usize::from(topology == "SINGLE" || of("load_balancer", "") > 0);
        wanted.abs_diff(of("amphora", "AND load_balancer_id IS NULL AND status = 'READY'"))
    });
    undone.iter().chain(&spares).sum::<usize>()
        + count(db, "SELECT count(*) FROM work")
        + count(db, "SELECT count(*) FROM amphora WHERE status NOT IN ('ALLOCATED', 'READY')")
}

/// The machines of rows, as those that are there are called.
fn machines(db: &Connection) -> Vec<String> {
    let mut query = db.prepare("SELECT compute_id FROM amphora").unwrap();
    let names = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let mut names: Vec<String> =
        names.map(|name| name.unwrap().rsplit('-').next().unwrap().to_owned()).collect();
    names.sort();
    names
}
