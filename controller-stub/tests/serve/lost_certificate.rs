//! A certificate that is gone, or bad, keeps no more than its own listeners from an amphora that is new, and nothing from one that runs.

use std::{fs, net::TcpStream, path::PathBuf, thread, time::Duration};

use nix::sys::signal::{Signal, kill};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::{an_agent, api, ground::Serve};

/// A load balancer with a listener for HTTP and one with a certificate.
struct Shop {
    id: String,
    vip: String,
    file: PathBuf,
    /// The certificate, and its key.
    pem: [String; 2],
}

impl Shop {
    fn open(serve: &Serve) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["shop.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let pem = [certificate.pem(), key.serialize_pem()];
        let file = serve.dir.path().join("data/certificates/p/shop.pem");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, pem.concat()).unwrap();
        let lb = api::create(serve, "plain", ("10.250.0.1", 8081));
        let [id, vip] = ["id", "vip_address"].map(|field| lb[field].as_str().unwrap().to_owned());
        let listener = json!({"listener": {
            "loadbalancer_id": id, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": "shop",
        }});
        let (status, answer) = api::request(serve, "POST", "listeners", &listener);
        assert_eq!(status, 201, "{answer}");
        let this = Self { id, vip, file, pem };
        serve.eventually("ACTIVE", |serve| this.is(serve, "ACTIVE"));
        this
    }

    fn is(&self, serve: &Serve, status: &str) -> Option<()> {
        (api::status(serve, &self.id).as_deref() == Some(status)).then_some(())
    }

    fn listens(&self, serve: &Serve, port: u16) -> bool {
        let address = format!("{}:{port}", self.vip).parse().unwrap();
        serve.host.inside(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok())
    }

    /// The certificate is good again, and whoever changes something need not wait for the next attempt.
    fn mend(&self, serve: &Serve) {
        fs::write(&self.file, self.pem.concat()).unwrap();
        let change = json!({"loadbalancer": {"name": "mended"}});
        api::request(serve, "PUT", &format!("loadbalancers/{}", self.id), &change);
        serve.eventually("ACTIVE again", |serve| self.is(serve, "ACTIVE"));
        assert!(self.listens(serve, 443));
    }

    /// A listener besides, and the answer of its member.
    fn another_listener(&self, serve: &Serve, port: u16) {
        let (_, pools) = api::request(serve, "GET", "pools", &Value::Null);
        let listener = json!({"listener": {
            "loadbalancer_id": self.id, "protocol": "HTTP", "protocol_port": port, "default_pool_id": pools["pools"][0]["id"],
        }});
        let (status, answer) = api::request(serve, "POST", "listeners", &listener);
        assert_eq!(status, 201, "{answer}");
        serve.eventually("the other listener", |serve| serve.get(&format!("{}:{port}", self.vip)));
    }
}

fn reason(serve: &Serve, id: &str) -> String {
    let (_, told) = api::request(serve, "GET", &format!("loadbalancers/{id}/status"), &Value::Null);
    told["statuses"]["loadbalancer"]["reason"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_bad_certificate_is_like_one_that_is_gone() {
    let Some(mut serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let shop = Shop::open(&serve);
    let other = KeyPair::generate().unwrap().serialize_pem();
    let [certificate, key] = &shop.pem;
    // From one that runs it takes nothing, and keeps nothing.
    fs::write(&shop.file, "garbage").unwrap();
    shop.another_listener(&serve, 81);
    serve.eventually("ERROR", |serve| shop.is(serve, "ERROR"));
    assert!(reason(&serve, &shop.id).starts_with("the certificate shop is invalid: "));
    assert!(shop.listens(&serve, 443), "it goes on with what it has");
    fs::remove_file(&shop.file).unwrap();
    shop.another_listener(&serve, 82);
    assert!(shop.listens(&serve, 443), "it goes on with what it has");
    shop.mend(&serve);
    // One that is told of another certificate, which is gone by then, stays as it was.
    let change = |references: &str| {
        let change = format!(
            "UPDATE load_balancer SET provisioning_status = 'PENDING_UPDATE', generation = generation + 1;
             UPDATE listener SET provisioning_status = 'PENDING_UPDATE', sni_container_refs = '{references}',
                 generation = (SELECT generation FROM load_balancer) WHERE protocol_port = 443;
             INSERT INTO work (kind, subject, created_at) VALUES ('LOAD_BALANCER', '{}', 0);",
            shop.id
        );
        serve.db().execute_batch(&change).unwrap();
        serve.wake();
    };
    change("[\"gone\"]");
    shop.another_listener(&serve, 83);
    serve.eventually("the reason", |serve| {
        (reason(serve, &shop.id) == "there is no certificate gone").then_some(())
    });
    assert!(shop.listens(&serve, 443), "it is as it was");
    serve.db().execute_batch("DELETE FROM work").unwrap();
    change("[]");
    shop.mend(&serve);

    for bad in ["", &key[..key.len() / 2], certificate, &format!("{certificate}{other}")] {
        fs::write(&shop.file, bad).unwrap();
        kill(an_agent(&serve), Signal::SIGKILL).unwrap();
        serve.eventually("ERROR", |serve| shop.is(serve, "ERROR"));
        serve.eventually("what needs no certificate", |serve| serve.get(&format!("{}:80", shop.vip)));
        assert!(!shop.listens(&serve, 443), "{bad}");
        assert!(reason(&serve, &shop.id).starts_with("the certificate shop is invalid: "), "{bad}");
        shop.mend(&serve);
    }
    serve.stop();
}

#[test]
fn the_other_one_of_a_pair_keeps_a_listener_whose_certificate_is_bad() {
    let Some(mut serve) = Serve::start_with("[controller_worker]\nloadbalancer_topology = ACTIVE_STANDBY\n")
    else {
        return;
    };
    serve.member("10.250.0.1:8081", "one");
    let shop = Shop::open(&serve);
    let before = serve.machines();
    fs::write(&shop.file, "garbage").unwrap();
    kill(an_agent(&serve), Signal::SIGKILL).unwrap();
    serve.eventually("ERROR", |serve| shop.is(serve, "ERROR"));
    serve.eventually("another one", |serve| {
        let now = serve.machines();
        (now.len() == 2 && now != before).then_some(())
    });
    // It is told of its new peer, and has lost nothing by that.
    shop.another_listener(&serve, 81);
    assert!(shop.listens(&serve, 443));
    shop.mend(&serve);
    serve.stop();
}

#[test]
fn what_needs_no_certificate_is_served_while_one_is_gone() {
    let Some(mut serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let Shop { id, vip, file, .. } = &Shop::open(&serve);
    let (vip, is) = (format!("{vip}:80"), |serve: &Serve, status: &str| {
        (api::status(serve, id).as_deref() == Some(status)).then_some(())
    });
    assert_eq!(serve.get(&vip).as_deref(), Some("one"));

    let moved = file.with_extension("moved");
    fs::rename(file, &moved).unwrap();
    kill(an_agent(&serve), Signal::SIGKILL).unwrap();
    serve.eventually("ERROR", |serve| is(serve, "ERROR"));
    serve.eventually("what needs no certificate", |serve| serve.get(&vip));
    assert_eq!(reason(&serve, id), "there is no certificate shop");

    fs::rename(&moved, file).unwrap();
    serve.eventually("ACTIVE again", |serve| {
        thread::sleep(Duration::from_millis(50));
        is(serve, "ACTIVE")
    });
    assert_eq!(serve.get(&vip).as_deref(), Some("one"));
    api::request(&serve, "DELETE", &format!("loadbalancers/{id}?cascade=true"), &Value::Null);
    serve.eventually("its end", |serve| api::status(serve, id).is_none().then_some(()));
    serve.stop();
}
