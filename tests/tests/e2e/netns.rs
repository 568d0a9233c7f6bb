//! Network namespaces: the VIP in one, clients and members in others. As root only.

use std::net::SocketAddr;

use amphora_tests::{Backend, Client, Document, Listener, Member, Namespace, Pool, Proxy};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::oneshot};

const VIP: &str = "203.0.113.50";
const VIP6: &str = "2001:db8:50::50";

/// The amphora's namespace, with a client's on one side and a member's on the other.
struct Network {
    amphora: Namespace,
    client: Namespace,
    member: Namespace,
}

impl Network {
    fn create() -> Option<Self> {
        let (amphora, client) = (Namespace::create()?, Namespace::create()?);
        let member = Namespace::create()?;
        amphora.link("front", &client, "amphora");
        amphora.link("back", &member, "amphora");
        for (namespace, interface, addresses) in [
            (&amphora, "front", ["203.0.113.50/24", "2001:db8:50::50/64"]),
            (&client, "amphora", ["203.0.113.7/24", "2001:db8:50::7/64"]),
            (&amphora, "back", ["10.9.0.1/24", "2001:db8:9::1/64"]),
            (&member, "amphora", ["10.9.0.2/24", "2001:db8:9::2/64"]),
        ] {
            for address in addresses {
                let mut args = vec!["address", "add", address, "dev", interface];
                if address.contains(':') {
                    // Nobody else is on the link.
                    args.push("nodad");
                }
                namespace.ip(&args);
            }
        }
        client.ip(&["address", "add", "203.0.113.200/24", "dev", "amphora"]);
        Some(Self { amphora, client, member })
    }
}

/// Answers with the address that it was asked from, until the sender is dropped.
async fn serve_in(namespace: &Namespace) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    namespace.spawn(move || async move {
        let v4 = TcpListener::bind("10.9.0.2:8080").await.unwrap();
        let v6 = TcpListener::bind("[2001:db8:9::2]:8080").await.unwrap();
        ready.send(()).unwrap();
        let serve = async |listener: TcpListener| loop {
            let (mut stream, from) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await;
            let body = from.ip().to_string();
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        };
        tokio::select! {
            () = serve(v4) => {}
            () = serve(v6) => {}
            _ = stopped => {}
        }
    });
    tokio::task::spawn_blocking(move || is_ready.recv().unwrap()).await.unwrap();
    stop
}

#[tokio::test]
async fn a_vip_in_a_namespace_serves_members_in_another() {
    let Some(network) = Network::create() else { return };
    let _serving = serve_in(&network.member).await;
    let pool = Pool::http()
        .member(Member::at("10.9.0.2:8080".parse().unwrap()))
        .member(Member::at("[2001:db8:9::2]:8080".parse().unwrap()));
    let listener = Listener::http()
        .port(80)
        .to(&pool)
        .with("allowed_cidrs", json!(["203.0.113.0/25", "2001:db8:50::/64"]));
    let document = Document::at(VIP.parse().unwrap())
        .with("additional_vips", json!([{ "ip_address": VIP6 }]))
        .listener(listener)
        .pool(&pool);
    let mut proxy = Proxy::start_with(document, &["--netns", network.amphora.name()]).await;

    let addresses = [format!("{VIP}:80"), format!("[{VIP6}]:80")].map(|a| a.parse::<SocketAddr>().unwrap());
    let answers = network
        .client
        .run(move || async move {
            let mut answers = Vec::new();
            for address in addresses {
                for _ in 0..4 {
                    answers.push(Client::connect(address).await.get("/").await.text());
                }
            }
            // One that is not allowed, by the address that it really comes from.
            let mut denied = Client::connect_from("203.0.113.200".parse().unwrap(), addresses[0]).await;
            assert!(denied.ends_within(std::time::Duration::from_secs(10)).await);
            answers
        })
        .await;
    // Both members served, each over its own family, and saw the amphora.
    for own in ["10.9.0.1", "2001:db8:9::1"] {
        assert_eq!(answers.iter().filter(|answer| *answer == own).count(), 4, "{answers:?}");
    }
    assert_eq!(proxy.listener().await.denied_connections, 1);
    // Nothing of it is to be seen outside.
    assert!(proxy.runs());
    let document = proxy.document.clone().with("name", "renamed");
    assert!(proxy.apply(&document).await.changed);
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_told() {
    let member = Backend::named("a").await;
    let document = Document::http([&member]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document.to_json().to_string()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let output = Proxy::command()
        .args(["--netns", "amphora-test-none", "--control-socket"])
        .arg(directory.path().join("control"))
        .arg("--load-balancer")
        .arg(file.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("amphora-test-none"), "{output:?}");
}
