//! What clients ask Keystone and Neutron.

use super::*;

/// Of `secret`, cheaply.
pub(super) const HASH: &str =
    "$argon2id$v=19$m=64,t=1,p=1$TcLWoTbqY0ntOir2yS50XQ$Q6JHj/8BliXeUjmXGG32gcnq/SYNUMTU4fmI1hcARME";

fn stage(strategy: &str) -> Stage {
    Stage::new(&format!(
        "[api_settings]\nauth_strategy = {strategy}\n[users]\nalice = shop,test member {HASH}\nbob = bobs member {HASH}\nroot = admin admin {HASH}\n"
    ))
}

async fn ask(stage: &Stage, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path).header("host", "lb.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("content-type", "application/json").body(()).unwrap();
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    stage.api.answer(&request.into_parts().0, body).await
}

fn login(name: &str, password: &str, project: Option<&str>) -> Value {
    let user = json!({"name": name, "domain": {"id": "default"}, "password": password});
    let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
    if let Some(project) = project {
        auth["scope"] = json!({"project": {"name": project, "domain": {"id": "default"}}});
    }
    json!({"auth": auth})
}

async fn token(stage: &Stage, name: &str, project: Option<&str>) -> String {
    let answer = ask(stage, POST, "/v3/auth/tokens", &[], login(name, "secret", project)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let (_, token) = answer.headers.iter().find(|(name, _)| *name == "x-subject-token").unwrap();
    token.clone()
}

#[tokio::test]
async fn a_token_says_who_it_is_for() {
    let stage = stage("keystone");
    let alice = token(&stage, "alice", None).await;
    let answer = ask(
        &stage,
        GET,
        "/v3/auth/tokens",
        &[("x-auth-token", &alice), ("x-subject-token", &alice)],
        Value::Null,
    )
    .await;
    let body = answer.body.unwrap()["token"].clone();
    assert_eq!((&body["user"]["name"], &body["project"]["name"]), (&json!("alice"), &json!("shop")));
    assert_eq!(body["roles"], json!([{"id": "member", "name": "member"}]));
    assert_eq!(body["catalog"][0]["endpoints"][0]["url"], "http://lb.example");
    let subnet = json!({"loadbalancer": {"vip_subnet_id": stage.subnet}});
    let made = ask(&stage, POST, LBS, &[("x-auth-token", &alice)], subnet).await;
    assert_eq!(
        (made.status, &made.body.unwrap()["loadbalancer"]["project_id"]),
        (201, &body["project"]["id"])
    );
    let test = token(&stage, "alice", Some("test")).await;
    let root = token(&stage, "root", None).await;
    for (token, count) in [(&alice, 1), (&test, 0), (&root, 1)] {
        let list = ask(&stage, GET, LBS, &[("x-auth-token", token)], Value::Null).await;
        assert_eq!(list.body.unwrap()["loadbalancers"].as_array().unwrap().len(), count);
        let ports = ask(&stage, GET, "/v2.0/ports", &[("x-auth-token", token)], Value::Null).await;
        assert_eq!(ports.body.unwrap()["ports"].as_array().unwrap().len(), count);
    }
}

#[tokio::test]
async fn who_sees_what_all_projects_have_sees_which_there_are() {
    let users =
        ["quotas = desk load-balancer_quota_admin", "eye = desk reader,load-balancer_global_observer"];
    let users = users.map(|user| format!("{user} {HASH}\n")).concat();
    let stage = Stage::new(&format!(
        "[api_settings]\nauth_strategy = keystone\n[users]\nalice = shop,test member {HASH}\nroot = admin,bobs admin {HASH}\n{users}"
    ));
    let all = ["admin", "bobs", "desk", "shop", "test"];
    for (name, path, expected) in [
        ("quotas", "/v3/projects", &all[..]),
        ("eye", "/v3/projects?name=shop", &["shop"]),
        ("eye", "/v3/auth/projects", &["desk"]),
        ("alice", "/v3/projects", &["shop", "test"]),
        ("alice", "/v3/projects?name=admin", &[]),
        ("root", "/v3/projects", &all),
        ("root", "/v3/projects?name=shop", &["shop"]),
        ("root", "/v3/auth/projects", &["admin", "bobs"]),
    ] {
        let token = token(&stage, name, None).await;
        let answer = ask(&stage, GET, path, &[("x-auth-token", &token)], Value::Null).await;
        let body = answer.body.unwrap();
        let told: Vec<_> = body["projects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|project| project["name"].as_str().unwrap())
            .collect();
        assert_eq!(told, expected, "{name} {path}");
    }
}

#[tokio::test]
async fn a_token_that_is_given_back_is_no_longer_good() {
    let stage = stage("keystone");
    let [given_back, other] = [token(&stage, "alice", None).await, token(&stage, "alice", None).await];
    let (bob, root) = (token(&stage, "bob", None).await, token(&stage, "root", None).await);
    let end = async |by: Option<&str>, subject: Option<&str>| {
        let mut headers: Vec<_> = by.map(|by| ("x-auth-token", by)).into_iter().collect();
        headers.extend(subject.map(|subject| ("x-subject-token", subject)));
        ask(&stage, Method::DELETE, "/v3/auth/tokens", &headers, Value::Null).await.status
    };
    let lists =
        async |token: &str| ask(&stage, GET, LBS, &[("x-auth-token", token)], Value::Null).await.status;
    assert_eq!(end(None, Some(&given_back)).await, 401, "nobody says who he is");
    assert_eq!(end(Some("x.y"), Some(&given_back)).await, 401);
    assert_eq!(end(Some(&bob), Some(&given_back)).await, 403, "it is not his");
    assert_eq!(end(Some(&bob), None).await, 404);
    assert_eq!(lists(&given_back).await, 200);
    assert_eq!(end(Some(&given_back), Some(&given_back)).await, 204);
    assert_eq!((lists(&given_back).await, lists(&other).await), (401, 200));
    let again = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": given_back}}}});
    assert_eq!(ask(&stage, POST, "/v3/auth/tokens", &[], again).await.status, 401);
    assert_eq!(end(Some(&other), Some(&given_back)).await, 404);
    assert_eq!(end(Some(&root), Some(&other)).await, 204, "an administrator ends others'");
    assert_eq!((lists(&other).await, lists(&bob).await), (401, 200));
}

#[tokio::test]
async fn the_place_of_anothers_is_not_told() {
    let stage = stage("keystone");
    let (alice, bob) = (token(&stage, "alice", None).await, token(&stage, "bob", None).await);
    let body = json!({"loadbalancer": {"vip_subnet_id": stage.subnet, "name": "m"}});
    let made = ask(&stage, POST, LBS, &[("x-auth-token", &alice)], body).await.body.unwrap();
    let path = format!("{LBS}?sort=name&marker={}", made["loadbalancer"]["id"].as_str().unwrap());
    for (token, status) in [(&alice, 200), (&bob, 400)] {
        assert_eq!(ask(&stage, GET, &path, &[("x-auth-token", token)], Value::Null).await.status, status);
    }
    let filtered = format!("{path}&description=none");
    assert_eq!(ask(&stage, GET, &filtered, &[("x-auth-token", &alice)], Value::Null).await.status, 200);
}

#[tokio::test]
async fn who_is_not_known_is_told_401() {
    let stage = stage("keystone");
    let good = token(&stage, "alice", None).await;
    for body in [
        login("alice", "wrong", None),
        login("nobody", "secret", None),
        login("alice", "secret", Some("admin")),
        json!({"auth": {"identity": {"methods": ["token"], "token": {"id": "x.y"}}}}),
        json!({}),
    ] {
        let answer = ask(&stage, POST, "/v3/auth/tokens", &[], body.clone()).await;
        assert_eq!((answer.status, &answer.body.unwrap()["error"]["code"]), (401, &json!(401)), "{body}");
    }
    let other = self::stage("keystone");
    let foreign = token(&other, "alice", None).await;
    let changed = format!("a{good}");
    for headers in
        [&[][..], &[("x-auth-token", "x")], &[("x-auth-token", &foreign)], &[("x-auth-token", &changed)]]
    {
        let answer = ask(&stage, GET, LBS, headers, Value::Null).await;
        assert_eq!(
            (answer.status, &answer.headers[..]),
            (401, &[("www-authenticate", "Keystone".to_owned())][..])
        );
    }
    let now = super::super::seconds();
    let mut headers = http::HeaderMap::new();
    headers.insert("x-auth-token", good.parse().unwrap());
    assert!(stage.api.identity.token(&headers, now).is_ok());
    assert!(stage.api.identity.token(&headers, now + 3601).is_err(), "it has ended");
}

#[tokio::test]
async fn who_guesses_keeps_nobody_out() {
    let stage = stage("keystone");
    let guess = |name: String| ask(&stage, POST, "/v3/auth/tokens", &[], login(&name, "guess", None));
    let names = (0..200).map(|n| format!("nobody-{n}")).chain((0..200).map(|_| "bob".to_owned()));
    let guesses = futures_util::future::join_all(names.map(guess));
    let (answers, good) = tokio::join!(guesses, token(&stage, "alice", None));
    assert!(!good.is_empty());
    let refused = answers.iter().filter(|answer| answer.status == 503).count();
    assert!(refused > 0 && answers.iter().all(|answer| matches!(answer.status, 401 | 503)), "{refused}");
}

#[tokio::test]
async fn a_password_may_come_with_each_request() {
    let stage = stage("http_basic");
    let basic = |text: &str| format!("Basic {}", data_encoding::BASE64.encode(text.as_bytes()));
    for (credentials, project, status) in [
        (basic("alice:secret"), None, 200),
        (basic("alice:secret").replace("Basic", "bAsIc"), None, 200),
        (basic("alice:secret").replace(' ', ""), None, 401),
        (basic("alice:secret"), Some("test"), 200),
        (basic("alice:secret"), Some("admin"), 401),
        (basic("alice:wrong"), None, 401),
        (basic("nobody:secret"), None, 401),
        ("Bearer x".to_owned(), None, 401),
    ] {
        let mut headers = vec![("authorization", credentials.as_str())];
        headers.extend(project.map(|project| ("x-project-id", project)));
        assert_eq!(
            ask(&stage, GET, LBS, &headers, Value::Null).await.status,
            status,
            "{credentials} {project:?}"
        );
    }
    assert_eq!(ask(&stage, GET, "/v3", &[], Value::Null).await.status, 404, "there is no Keystone");
}

#[tokio::test]
async fn any_project_is_there_while_nobody_is_asked() {
    let stage = Stage::new("");
    for path in ["/projects/demo", "/v3/projects/demo"] {
        assert_eq!(stage.get(path).await["project"]["id"], "demo");
    }
    assert_eq!(stage.get("/projects?name=demo").await["projects"][0]["name"], "demo");
    assert_eq!(stage.ask(POST, "/v3/auth/tokens", json!({})).await.0, 404);
}

#[tokio::test]
async fn networks_are_those_of_the_configuration() {
    let stage = Stage::new("");
    let balancer = stage.load_balancer("one").await;
    for prefix in ["/v2", "/v2.0"] {
        let networks =
            stage.get(&format!("{prefix}/networks?name=public&fields=id&fields=subnets")).await["networks"]
                .clone();
        let id = networks[0]["id"].as_str().unwrap();
        assert_eq!((networks.as_array().unwrap().len(), networks[0].as_object().unwrap().len()), (1, 2));
        let subnets =
            stage.get(&format!("{prefix}/subnets?network_id={id}&ip_version=4")).await["subnets"].clone();
        assert_eq!((subnets.as_array().unwrap().len(), &subnets[0]["id"]), (1, &json!(stage.subnet)));
        assert_eq!(
            (&subnets[0]["name"], &subnets[0]["gateway_ip"]),
            (&json!("public-subnet"), &json!("192.0.2.1"))
        );
        let pool = json!([{"start": "192.0.2.2", "end": "192.0.2.254"}]);
        assert_eq!(subnets[0]["allocation_pools"], pool);
        assert_eq!(stage.get(&format!("{prefix}/subnets/{}", stage.subnet)).await["subnet"], subnets[0]);
    }
    stage.refused(GET, "/v2.0/networks/x", Value::Null, 404, "Network x could not be found.").await;
    let vip = stage.get(&format!("{LBS}/{balancer}")).await["loadbalancer"].clone();
    let address = vip["vip_address"].as_str().unwrap();
    let ports = stage.get(&format!("/v2.0/ports?fixed_ips=ip_address%3D{address}")).await["ports"].clone();
    assert_eq!(
        (&ports[0]["id"], &ports[0]["device_id"]),
        (&vip["vip_port_id"], &json!(format!("lb-{balancer}")))
    );
    assert_eq!(stage.get("/v2.0/ports?fixed_ips=ip_address%3D192.0.2.99").await["ports"], json!([]));
    assert_eq!(stage.get("/v2.0/security-groups").await["security_groups"], json!([]));
}
