//! A certificate that is gone keeps no more than its own listeners from an amphora that is new.

use std::{fs, thread, time::Duration};

use nix::sys::signal::{Signal, kill};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::{an_agent, api, ground::Serve};

#[test]
fn what_needs_no_certificate_is_served_while_one_is_gone() {
    let Some(mut serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["shop.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let file = serve.dir.path().join("data/certificates/p/shop.pem");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, certificate.pem() + &key.serialize_pem()).unwrap();
    let lb = api::create(&serve, "plain", ("10.250.0.1", 8081));
    let id = lb["id"].as_str().unwrap();
    let vip = format!("{}:80", lb["vip_address"].as_str().unwrap());
    let listener = json!({"listener": {
        "loadbalancer_id": id, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_tls_container_ref": "shop",
    }});
    let (status, answer) = api::request(&serve, "POST", "listeners", &listener);
    assert_eq!(status, 201, "{answer}");
    let is = |serve: &Serve, status: &str| (api::status(serve, id).as_deref() == Some(status)).then_some(());
    serve.eventually("ACTIVE", |serve| is(serve, "ACTIVE"));
    assert_eq!(serve.get(&vip).as_deref(), Some("one"));

    let moved = file.with_extension("moved");
    fs::rename(&file, &moved).unwrap();
    kill(an_agent(&serve), Signal::SIGKILL).unwrap();
    serve.eventually("ERROR", |serve| is(serve, "ERROR"));
    serve.eventually("what needs no certificate", |serve| serve.get(&vip));
    let (_, told) = api::request(&serve, "GET", &format!("loadbalancers/{id}/status"), &Value::Null);
    let reason = &told["statuses"]["loadbalancer"]["reason"];
    assert_eq!(reason.as_str(), Some("there is no certificate shop"), "{told}");

    fs::rename(&moved, &file).unwrap();
    serve.eventually("ACTIVE again", |serve| {
        thread::sleep(Duration::from_millis(50));
        is(serve, "ACTIVE")
    });
    assert_eq!(serve.get(&vip).as_deref(), Some("one"));
    api::request(&serve, "DELETE", &format!("loadbalancers/{id}?cascade=true"), &Value::Null);
    serve.eventually("its end", |serve| api::status(serve, id).is_none().then_some(()));
    serve.stop();
}
