//! Certificates of a whole amphora: brought by the controller's program, named by the document, replaced under clients.

use std::{fs, net::SocketAddr, sync::Arc};

use amphora_tests::{
    Amphora, Backend, Certificates, Document, Listener, Pool, Proxy, TlsClient, eventually, in_time,
    kill_hard,
};
use rustls::version::TLS12;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::{JoinSet, spawn_blocking},
};
use tokio_rustls::{
    client::TlsStream,
    rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

type Stream = TlsStream<tokio::net::TcpStream>;

/// What the proxy shows a new client.
async fn shown(certificates: &Certificates, address: SocketAddr) -> CertificateDer<'static> {
    let stream = certificates.connect(address).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn get(stream: &mut Stream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\na") {
        let read = in_time("the answer comes", stream.read_buf(&mut answer)).await.unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_brought_named_replaced_and_forgotten() {
    let Some(mut amphora) = Amphora::start().await else { return };
    let certificates = Certificates::new();
    let member = Backend::named("a").await;
    let document = Document::of(Listener::https("web"), Pool::http().members([&member]));
    let address = document.address();
    let put = |id: &str, file: &str| {
        amphora.controller(&["certificate", "put", id, &certificates.file(file).display().to_string()])
    };

    let refusal = amphora.refusal(&document);
    assert!(refusal.contains("default_tls_container_ref: there is no certificate web"), "{refusal}");
    assert!(put("web", "server"));
    amphora.apply(&document);
    let first = shown(&certificates, address).await;
    let mut client = certificates.connect(address).await.unwrap();
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));

    // Another under the same id: new clients see it at once, who is connected stays.
    certificates.issue("server", &["shop.example"]);
    assert!(put("web", "server"));
    let second = shown(&certificates, address).await;
    assert_ne!(first, second);
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));
    assert_eq!(client.get_ref().1.peer_certificates().unwrap()[0], first);

    // What cannot take its place does not.
    assert!(!put("web", "ca"));
    assert!(!amphora.controller(&["certificate", "delete", "web"]));
    assert_eq!(shown(&certificates, address).await, second);

    // Who starts again has it still.
    amphora.kill_agent();
    amphora.start_agent().await;
    assert_eq!(shown(&certificates, address).await, second);
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));

    let mut plain = document.clone();
    plain.listeners[0] = plain.listeners[0]
        .clone()
        .with("protocol", "HTTP")
        .with("default_tls_container_ref", serde_json::Value::Null);
    amphora.apply(&plain);
    assert!(amphora.controller(&["certificate", "delete", "web"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_honoured_in_part_is_told_for_as_long_as_it_is_so() {
    let Some(amphora) = Amphora::start().await else { return };
    let certificates = Certificates::new();
    let member = Backend::named("a").await;
    let listener = Listener::https("web")
        .with("tls_versions", json!(["TLSv1.2"]))
        .with("tls_ciphers", "ECDHE-RSA-AES128-GCM-SHA256:NOSUCH");
    let document = Document::of(listener, Pool::http().members([&member]));
    let path = format!("loadbalancer.listeners[{}].tls_ciphers", document.listeners[0].id);
    let put = || {
        let file = certificates.file("server").display().to_string();
        assert!(amphora.controller(&["certificate", "put", "web", &file]));
    };
    let remarks = || amphora.told(&["status", "--json"])["remarks"].clone();
    let unknown = json!({"path": path, "text": "NOSUCH is not known"});
    let unusable = "those of TLSv1.2 are for RSA keys: who is shown web is not served";
    let client = Arc::new(certificates.client(&[&TLS12], &["http/1.1"]));
    let connected = async || TlsClient::connect(document.address(), &client, "shop.example").await;

    put();
    amphora.apply(&document);
    assert_eq!(remarks(), json!([unknown, {"path": path, "text": unusable}]));
    let refused = connected().await.err().unwrap().to_string();
    assert!(refused.contains("HandshakeFailure"), "{refused}");

    certificates.issue_rsa("server", &["shop.example"]);
    put();
    assert_eq!(remarks(), json!([unknown]));
    assert_eq!(connected().await.unwrap().get("/", "").await.unwrap().text(), "a");
    let mut known = document.clone();
    known.listeners[0] = known.listeners[0].clone().with("tls_ciphers", "ECDHE-RSA-AES128-GCM-SHA256");
    amphora.apply(&known);
    assert_eq!(remarks(), serde_json::Value::Null);
}

/// What a log would have of a key if it had any of it: its text, or its octets in hexadecimal or as numbers.
fn traces(pem: &str) -> Vec<String> {
    let (_, body) = pem.split_once("PRIVATE KEY-----\n").unwrap();
    let mut traces: Vec<String> = body
        .lines()
        .take_while(|line| !line.starts_with('-'))
        .map(|line| line[..line.len().min(20)].to_owned())
        .collect();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    // From the middle of the number that is the key.
    let octets = &key.secret_der()[44..56];
    let hexadecimal: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    traces.extend([hexadecimal.to_uppercase(), hexadecimal]);
    traces.push(format!("{octets:?}").trim_matches(['[', ']']).to_owned());
    traces
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_passwords_are_in_no_log_however_much_is_told() {
    let certificates = Certificates::new();
    let text = |id: &str| fs::read_to_string(certificates.file(id)).unwrap();
    let member = Backend::named("a").await;
    let mut keys = traces(&text("server"));
    let client = Arc::new(certificates.client(&[&TLS12], &["http/1.1"]));
    let document = Document::of(Listener::https("server"), Pool::http().members([&member]));

    // The proxy at its most talkative: it reads keys, reads others, and does not like some.
    let options = ["--certificates", &certificates.option(), "--log-level", "trace"];
    let mut proxy = Proxy::start_with(document.clone(), &options).await;
    let ask = async |address| {
        let mut client = TlsClient::connect(address, &client, "shop.example").await.unwrap();
        client.get("/", "").await.unwrap().text()
    };
    assert_eq!(ask(proxy.address()).await, "a");
    certificates.issue("server", &["shop.example"]);
    keys.extend(traces(&text("server")));
    proxy.change(|_| ()).await;
    assert_eq!(ask(proxy.address()).await, "a");
    let good = text("server");
    let (chain, key) = good.split_at(good.find("-----BEGIN PRIVATE").unwrap());
    certificates.issue("other", &["shop.example"]);
    keys.extend(traces(&text("other")));
    let others = text("other");
    let others = &others[others.find("-----BEGIN PRIVATE").unwrap()..];
    let bad = [
        format!("{chain}{others}"),
        format!("{chain}{}", key.replace('M', "N")),
        format!("{chain}{}", &key[..120]),
    ];
    for bad in &bad {
        certificates.put("server", bad);
        assert!(proxy.try_apply(&proxy.document.clone()).await.is_err());
    }
    // That all is told shows by who does not speak TLS.
    let mut plain = proxy.client().await;
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it is told", async || proxy.log().contains("DEBUG").then_some(())).await;
    let log = proxy.log();
    certificates.put("server", &good);

    // The agent, which gets them.
    let Some(amphora) = Amphora::start_with("[DEFAULT]\ndebug = true\n").await else { return };
    let put = |id: &str, file: &str, options: &[&str]| {
        amphora.controller(&[&["certificate", "put", id, file], options].concat())
    };
    let file = |id: &str| certificates.file(id).display().to_string();
    assert!(put("web", &file("server"), &[]));
    let (p12, password) = (file("p12"), file("password"));
    certificates.put("password", "a word that nobody knows\n");
    let arguments =
        ["pkcs12", "-export", "-in", &file("other"), "-out", &p12, "-passout", &format!("file:{password}")];
    let made = std::process::Command::new("openssl").args(arguments).status();
    assert!(made.unwrap().success());
    assert!(put("p12", &p12, &["--password-file", &password]));
    certificates.put("wrong", "another word\n");
    assert!(!put("p12", &p12, &["--password-file", &file("wrong")]));
    for bad in &bad {
        certificates.put("bad", bad);
        assert!(!put("web", &file("bad"), &[]));
    }
    let document = Document::of(Listener::https("p12"), Pool::http().members([&member]));
    amphora.apply(&document);
    assert_eq!(ask(document.address()).await, "a");
    assert!(put("p12", &file("server"), &[]));
    let told = amphora.log();
    assert!(told.contains("DEBUG") && told.contains("a certificate was put"), "{told}");

    keys.extend(["PRIVATE KEY", "a word that nobody knows", "another word"].map(str::to_owned));
    for (whose, log) in [("proxy", log), ("agent", told)] {
        let found: Vec<&String> = keys.iter().filter(|key| log.contains(key.as_str())).collect();
        assert!(found.is_empty(), "the {whose} tells {found:?}");
    }
}

/// The certificate that is stored under an id, when one is.
fn on_disk(amphora: &Amphora, id: &str) -> Option<CertificateDer<'static>> {
    let text = fs::read(amphora.certificate_file(id)).ok()?;
    Some(CertificateDer::from_pem_slice(&text).unwrap())
}

/// The hosts that the agent tells of an id.
fn told(amphora: &Amphora, id: &str) -> serde_json::Value {
    amphora.told(&["certificate", "show", id, "--json"])["certificate"]["certificates"][0]["names"].clone()
}

/// Does what nothing speaks against, though the agent may be busy with others.
fn insist(change: impl Fn() -> bool) {
    assert!((0..20).any(|_| change()), "a change that nothing speaks against was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_many_at_once_leave_proxy_disk_and_answers_alike() {
    let Some(amphora) = Amphora::start().await else { return };
    let (mut amphora, certificates) = (Arc::new(amphora), Certificates::new());
    let member = Backend::named("a").await;
    let alone = Document::of(Listener::https("web"), Pool::http().members([&member]));
    let mut with_other = alone.clone();
    with_other.listeners[0] = with_other.listeners[0].clone().with("sni_container_refs", json!(["other"]));
    let address = alone.address();
    let host = |n: usize| format!("version-{n}.example");
    let versions = (0..20).map(host);
    let files: Vec<String> = versions
        .map(|version| {
            certificates.issue(&version, &["shop.example", &version]);
            certificates.file(&version).display().to_string()
        })
        .collect();
    let issued: Vec<_> =
        files.iter().map(|file| CertificateDer::from_pem_slice(&fs::read(file).unwrap()).unwrap()).collect();
    for id in ["web", "other"] {
        assert!(amphora.controller(&["certificate", "put", id, &files[0]]));
    }
    amphora.apply(&with_other);

    let mut changes = JoinSet::new();
    for (n, file) in files.iter().enumerate() {
        let (amphora, file) = (amphora.clone(), file.clone());
        let document = if n % 2 == 0 { alone.clone() } else { with_other.clone() };
        changes.spawn_blocking(move || match n % 4 {
            0 | 1 => insist(|| amphora.controller(&["certificate", "put", "web", &file])),
            2 => {
                insist(|| amphora.controller(&["certificate", "put", "other", &file]));
                insist(|| amphora.try_apply(&document));
            }
            // It is refused while the document names it; the document is refused when it is gone.
            _ => {
                amphora.controller(&["certificate", "delete", "other"]);
                amphora.try_apply(&document);
            }
        });
    }
    // A key of one with the certificate of another would not get through a handshake.
    let mut finished = 0;
    while finished < files.len() {
        let stream = certificates.connect(address).await.unwrap();
        assert!(issued.contains(&stream.get_ref().1.peer_certificates().unwrap()[0]));
        while let Some(changed) = changes.try_join_next() {
            changed.unwrap();
            finished += 1;
        }
    }
    let last = shown(&certificates, address).await;
    let agree = async |amphora: &Arc<Amphora>| {
        assert_eq!(on_disk(amphora, "web").as_ref(), Some(&last));
        assert_eq!(shown(&certificates, address).await, last);
        let stored = amphora.stored();
        let names_other = stored.to_string().contains("\"other\"");
        assert!(!names_other || on_disk(amphora, "other").is_some());
        let amphora = amphora.clone();
        let told = spawn_blocking(move || told(&amphora, "web")).await.unwrap();
        let version = issued.iter().position(|one| *one == last).unwrap();
        assert_eq!(told, json!(["DNS:shop.example".to_owned(), format!("DNS:{}", host(version))]));
    };
    agree(&amphora).await;
    let files_left = fs::read_dir(amphora.certificate_file("web").parent().unwrap()).unwrap().count();
    assert!(files_left <= 2, "something is left half done");

    let exclusive = Arc::get_mut(&mut amphora).unwrap();
    exclusive.kill_agent();
    exclusive.start_agent().await;
    agree(&amphora).await;
    let before = amphora.info().await.unwrap();
    kill_hard(before.pid);
    eventually("another proxy serves", async || {
        let info = amphora.info().await.filter(|info| info.instance != before.instance)?;
        info.loadbalancer
    })
    .await;
    agree(&amphora).await;
}
