#![allow(clippy::unwrap_used)]

mod addresses;
mod balancing;
mod bodies;
mod certificates;
mod events;
mod export;
mod identity;
mod lists;
mod metrics;
mod octavia;
mod operators;
mod own;
mod page;
mod served;
mod states;
mod tls;
mod vips;

use std::path::PathBuf;

use bytes::Bytes;
use hyper::{Method, http};
use serde_json::{Value, json};

use super::{
    Api,
    fault::Fault,
    request::{Answer, Query, Request},
    router::{Found, find},
};
use crate::serve::{
    certificates::tenants::Tenants,
    config::Config,
    db::{self, Db},
    policies::Context,
};

/// An API over a database of its own.
struct Stage {
    api: Api,
    dir: tempfile::TempDir,
    subnet: String,
}

impl Stage {
    fn new(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("serve.db")).unwrap();
        let text = format!(
            "{settings}\n[networks]\npublic = 192.0.2.0/24, 2001:db8::/64\nother = 198.51.100.0/24\n"
        );
        let config = Config::parse(&text).unwrap();
        let subnet = config.networks[0].subnets[0].id.to_string();
        Self { api: Api::new(db, config.clone(), Tenants::of(&config, dir.path())), dir, subnet }
    }

    /// Asks, and tells status and body.
    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let answer = self.raw(method, path, bytes).await;
        (answer.status, answer.body.unwrap_or_default())
    }

    async fn raw(&self, method: Method, path: &str, body: Bytes) -> Answer {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "lb.example:9876")
            .header("content-type", "application/json")
            .body(())
            .unwrap();
        self.api.answer(&request.into_parts().0, body).await
    }

    /// Asks for something that is given.
    async fn must(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method.clone(), path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Asks for something that is refused with this status and text.
    async fn refused(&self, method: Method, path: &str, body: Value, status: u16, text: &str) {
        let (got, answer) = self.ask(method.clone(), path, body.clone()).await;
        let said = answer["faultstring"].as_str().unwrap_or_default();
        assert!(got == status && said.contains(text), "{method} {path} {body}: {got} {answer}");
        let code = if status < 500 { "Client" } else { "Server" };
        assert_eq!((&answer["faultcode"], &answer["debuginfo"]), (&json!(code), &Value::Null));
    }

    async fn get(&self, path: &str) -> Value {
        self.must(Method::GET, path, Value::Null).await
    }

    /// Makes something, and tells its identifier.
    async fn make(&self, path: &str, one: &str, body: Value) -> String {
        let answer = self.must(Method::POST, path, json!({one: body})).await;
        answer[one]["id"].as_str().unwrap().to_owned()
    }

    async fn load_balancer(&self, name: &str) -> String {
        self.make(LBS, "loadbalancer", json!({"name": name, "vip_subnet_id": self.subnet})).await
    }

    async fn listener(&self, load_balancer: &str, port: u16) -> String {
        let body = json!({"loadbalancer_id": load_balancer, "protocol": "HTTP", "protocol_port": port});
        self.make(LISTENERS, "listener", body).await
    }

    async fn pool(&self, load_balancer: &str) -> String {
        let body =
            json!({"loadbalancer_id": load_balancer, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"});
        self.make(POOLS, "pool", body).await
    }

    /// Asks as somebody.
    async fn ask_as(
        &self,
        context: Context,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<Answer, Fault> {
        let Found::Route(route, names) = find(&method, path) else { panic!("{path}") };
        let request = Request {
            base: "http://lb.example".to_owned(),
            path: path.to_owned(),
            query: Query::default(),
            content_type: "application/json".to_owned(),
            body: if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) },
            context,
        };
        self.api.handle(route, names, request).await
    }

    /// Does what a worker does when all is as the rows say.
    async fn settle(&self) {
        let db = self.api.db.clone();
        let work = |t: &rusqlite::Transaction<'_>| {
            for table in
                ["l7rule", "l7policy", "health_monitor", "member", "listener", "pool", "load_balancer"]
            {
                t.execute_batch(&format!(
                    "DELETE FROM {table} WHERE provisioning_status = 'PENDING_DELETE';
                     UPDATE {table} SET provisioning_status = 'ACTIVE'"
                ))?;
            }
            t.execute_batch("DELETE FROM work")?;
            Ok(())
        };
        db.write::<_, db::Error, _>(work).await.unwrap();
    }

    /// Rows of one column of a query.
    /// Changes rows behind the API's back.
    async fn execute(&self, text: &'static str) {
        let write = move |t: &rusqlite::Transaction<'_>| t.execute_batch(text);
        self.api.db.write::<_, db::Error, _>(move |t| Ok(write(t)?)).await.unwrap();
    }

    async fn rows(&self, query: &'static str) -> Vec<String> {
        let read = move |t: &rusqlite::Transaction<'_>| {
            let mut query = t.prepare(query)?;
            let rows = query.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
            Ok(rows)
        };
        self.api.db.read::<_, db::Error, _>(read).await.unwrap()
    }

    /// Where certificates are.
    fn certificates(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

const LBS: &str = "/v2/lbaas/loadbalancers";
const LISTENERS: &str = "/v2/lbaas/listeners";
const POOLS: &str = "/v2/lbaas/pools";
const MONITORS: &str = "/v2/lbaas/healthmonitors";
const POLICIES: &str = "/v2/lbaas/l7policies";

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;
