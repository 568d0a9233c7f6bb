//! The stream of events, through a server.

use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use super::{
    identity::HASH,
    served::{Client, PATIENCE, Served},
    *,
};

/// The values of an attribute in the data of events.
fn all(text: &str, name: &str) -> Vec<String> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let data = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
    data.map(|data| data[name].as_str().map_or_else(|| data[name].to_string(), str::to_owned)).collect()
}

#[tokio::test]
async fn what_changes_is_told_as_it_does_and_once() {
    let served = Served::new("").await;
    served.balancer("a", "p").await;
    let mut client = served.open("/v2.0/lbaas/events", "").await;
    let head = client.until("retry: 1000\n\n").await;
    for line in ["HTTP/1.1 200 OK\r\n", "content-type: text/event-stream\r\n", "cache-control: no-store\r\n"]
    {
        assert!(head.contains(line), "{head}");
    }
    served.set("a", "ONLINE").await;
    let first = client.until("\"ONLINE\"").await + &client.until("\n\n").await;
    assert_eq!(all(&first, "old"), ["OFFLINE"]);
    assert_eq!(all(&first, "id"), ["2"], "what was before is not told");
    served.set("a", "ERROR").await;
    served.set("a", "DEGRADED").await;
    let text = client.until("\"DEGRADED\"").await;
    assert!(text.contains("\"new\":\"ERROR\"") && !text.contains("ONLINE\",\"obj"), "{text}");

    served.stop.send(true).unwrap();
    timeout(PATIENCE, served.running).await.unwrap().unwrap();
    assert!(client.rest().await.ends_with("\r\n0\r\n\r\n"), "it ends in order");
}

#[tokio::test]
async fn who_comes_again_misses_nothing_or_is_told_so() {
    let served = Served::new("").await;
    served
        .write(
            "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 699)
             INSERT INTO event (at, project_id, load_balancer_id, object_type, object_id, attribute, new)
             SELECT unixepoch() * 1000, 'p' || (n % 2), 'lb', 'listener', 'l', 'operating_status', 'n' || n FROM n",
        )
        .await;
    let mut client = served.open("/v2/lbaas/events?last_event_id=0", "").await;
    let text = client.until("\"n699\"").await + &client.until("\n\n").await;
    let expected: Vec<String> = (1..=700).map(|id| id.to_string()).collect();
    assert_eq!(all(&text, "id"), expected);
    // The browser's header is newer than the address that it repeats.
    let mut client =
        served.open("/v2/lbaas/events?last_event_id=0&project_id=p1", "Last-Event-ID: 697\r\n").await;
    let text = client.until("\"n699\"").await + &client.until("\n\n").await;
    assert_eq!(all(&text, "id"), ["698", "700"]);

    served.write("DELETE FROM event WHERE id <= 690").await;
    let mut client = served.open("/v2/lbaas/events", "Last-Event-ID: 5\r\n").await;
    let text = client.until("\"n699\"").await + &client.until("\n\n").await;
    assert!(text.contains("event: history\ndata: {\"first_id\":691}\n\n"), "{text}");
    assert_eq!(all(&text, "id").len(), 11);
    let mut client = served.open("/v2/lbaas/events", "Last-Event-ID: 690\r\n").await;
    assert!(!client.until("\"n699\"").await.contains("history"), "nothing is missing");
    served.write("DELETE FROM event").await;
    let mut client = served.open("/v2/lbaas/events", "Last-Event-ID: 9000\r\n").await;
    client.until("data: {\"first_id\":701}\n\n").await;
    served.balancer("a", "p").await;
    let text = client.until("\n\n").await;
    assert_eq!(all(&text, "id"), ["701"]);

    for wrong in ["x", "-1", ""] {
        let answer =
            served.open(&format!("/v2/lbaas/events?last_event_id={wrong}"), "Connection: close\r\n").await;
        let answer = answer.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("last_event_id"), "{wrong}: {answer}");
    }
    let answer = served.open("/v2/lbaas/events?color=red", "Connection: close\r\n").await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn each_sees_what_its_lists_show() {
    let settings = format!(
        "[api_settings]\nauth_strategy = http_basic\n[users]\nalice = shop member {HASH}\nroot = admin admin {HASH}\n"
    );
    let served = Served::new(&settings).await;
    let shop = Config::parse(&settings).unwrap().users[0].projects[0].id.clone();
    let basic = |name: &str| {
        let text = data_encoding::BASE64.encode(format!("{name}:secret").as_bytes());
        format!("Authorization: Basic {text}\r\n")
    };
    served.balancer("mine", &shop).await;
    served.balancer("other", "q").await;
    served.write(
        "INSERT INTO amphora (id, load_balancer_id, status, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration,
            created_at) VALUES ('amphora', 'mine', 'BOOTING', 'namespaces', 'c', '127.0.0.1', 1, 0, 0);
         UPDATE amphora SET status = 'ALLOCATED', role = 'STANDALONE';
         UPDATE load_balancer SET operating_status = 'ONLINE' WHERE id = 'mine'").await;
    let all_of = async |path: &str, headers: String| {
        let mut client = served.open(path, &headers).await;
        all(&(client.until("\"ONLINE\"").await + &client.until("\n\n").await), "object_id")
    };
    let from = "/v2/lbaas/events?last_event_id=0";
    assert_eq!(all_of(from, basic("alice")).await, ["mine", "mine"]);
    assert_eq!(all_of(from, basic("root")).await, ["mine", "other", "amphora", "amphora", "mine"]);
    let one = format!("{from}&loadbalancer_id=mine");
    assert_eq!(all_of(&one, basic("root")).await, ["mine", "amphora", "amphora", "mine"]);
    for (path, headers, status) in [
        (from, String::new(), "401 Unauthorized"),
        ("/v2/lbaas/events?project_id=q", basic("alice"), "403 Forbidden"),
    ] {
        let answer = served.open(path, &(headers + "Connection: close\r\n")).await.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
    }
    let mut post = TcpStream::connect(served.address).await.unwrap();
    post.write_all(b"POST /v2/lbaas/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let answer = Client::new(post).rest().await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET"), "{answer}");
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_it_was_asked_for_with() {
    let settings = format!("[api_settings]\nauth_strategy = keystone\n[users]\nroot = admin admin {HASH}\n");
    let served = Served::new(&settings).await;
    served.balancer("a", "p").await;
    let send = async |head: &str, body: &str| {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let length = body.len();
        let text = format!("{head}Host: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
        Client::new(stream).rest().await
    };
    let user = json!({"name": "root", "domain": {"id": "default"}, "password": "secret"});
    let login =
        json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}).to_string();
    let answer = send("POST /v3/auth/tokens HTTP/1.1\r\n", &login).await;
    let token = answer.lines().find_map(|line| line.strip_prefix("x-subject-token: ")).unwrap();
    let header = format!("X-Auth-Token: {token}\r\n");
    let mut client = served.open("/v2/lbaas/events", &header).await;
    client.until("retry: 1000\n\n").await;
    served.set("a", "ONLINE").await;
    client.until("\"ONLINE\"").await;
    client.until("\n\n").await;
    let end = format!("DELETE /v3/auth/tokens HTTP/1.1\r\n{header}X-Subject-Token: {token}\r\n");
    assert!(send(&end, "").await.starts_with("HTTP/1.1 204 "));
    served.set("a", "ERROR").await;
    let rest = client.until("0\r\n\r\n").await;
    assert!(!rest.contains("ERROR"), "{rest}");
}

#[tokio::test]
async fn streams_are_so_many_and_those_that_end_make_room() {
    let served = Served::new("").await;
    let mut open = Vec::new();
    let admitted = loop {
        let mut client = served.open("/v2/lbaas/events", "").await;
        if client.until("\r\n").await.contains(" 503 ") {
            break open.len();
        }
        open.push(client);
    };
    assert_eq!(admitted, 64);
    drop(open);
    // Long before the next comment would find out.
    timeout(Duration::from_secs(14), async {
        while !served.open("/v2/lbaas/events", "").await.until("\r\n").await.contains(" 200 ") {}
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn who_does_not_read_is_cut_and_who_has_nothing_to_read_is_not() {
    let served = Served::new("").await;
    served.balancer("a", "p").await;
    let reason = "x".repeat(60_000);
    // More than sockets hold.
    served
        .write(&format!(
            "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 299)
             INSERT INTO event (at, project_id, load_balancer_id, object_type, object_id, attribute, new, reason)
             SELECT unixepoch() * 1000, 'p', 'lb', 'listener', 'l', 'operating_status', 'ERROR', '{reason}' FROM n"
        ))
        .await;
    let mut slow = served.open("/v2/lbaas/events?last_event_id=0", "").await;
    let mut idle = served.open("/v2/lbaas/events", "").await;
    slow.until("retry").await;
    idle.until("retry").await;
    // From here on time goes by whenever nobody has anything to do.
    tokio::time::pause();
    for _ in 0..8 {
        idle.until("\r\n:\n\n\r\n").await;
    }
    tokio::time::resume();
    let text = slow.rest().await;
    assert!(!text.ends_with("0\r\n\r\n") && text.len() < 15_000_000, "{} bytes", text.len());
    served.set("a", "ONLINE").await;
    idle.until("\"ONLINE\"").await;
}
