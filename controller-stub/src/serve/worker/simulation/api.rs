//! What is asked of the API.

use hyper::{Method, http};
use serde_json::{Value, json};

use super::ground::World;

const LBS: &str = "/v2/lbaas/loadbalancers";

impl World {
    /// Asks the API. Nobody is told of a defect.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let head = http::Request::builder()
            .method(&method)
            .uri(path)
            .header("host", "lb.example:9876")
            .header("content-type", "application/json")
            .header("x-project-id", "p")
            .header("x-roles", "admin")
            .body(())
            .unwrap();
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let (status, told) = self.api.told(&head.into_parts().0, text.clone().into()).await;
        assert!(status < 500, "{method} {path} {text}: {told}");
        (status, told)
    }

    pub(super) async fn post(&self, path: &str, one: &str, body: Value) -> Option<String> {
        let (status, answer) = self.ask(Method::POST, path, json!({one: body})).await;
        (status == 201).then(|| answer[one]["id"].as_str().unwrap().to_owned())
    }

    /// The flavor of pairs is called so.
    pub(super) async fn make_flavor(&self) {
        let data = json!({"loadbalancer_topology": "ACTIVE_STANDBY"}).to_string();
        let profile = json!({"name": "pair", "provider_name": "amphora", "flavor_data": data});
        let profile = self.post("/v2/lbaas/flavorprofiles", "flavorprofile", profile).await.unwrap();
        let flavor = json!({"name": "pair", "flavor_profile_id": profile});
        self.post("/v2/lbaas/flavors", "flavor", flavor).await.unwrap();
    }

    /// A load balancer with what else is said of it; the flavor of pairs, if it is to be one. Its id, or the status of the refusal.
    pub(super) async fn create(&self, paired: bool, more: Value) -> Result<String, u16> {
        let mut body = json!({"name": "lb", "vip_subnet_id": self.subnet(0)});
        if paired {
            body["flavor_id"] = json!(self.column("SELECT id FROM flavor").await[0]);
        }
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = self.ask(Method::POST, LBS, json!({"loadbalancer": body})).await;
        if status != 201 {
            return Err(status);
        }
        let id = answer["loadbalancer"]["id"].as_str().unwrap().to_owned();
        self.state().answered.insert(id.clone());
        Ok(id)
    }

    pub(super) async fn change(&self, lb: &str, body: Value) {
        self.ask(Method::PUT, &format!("{LBS}/{lb}"), json!({"loadbalancer": body})).await;
    }

    pub(super) async fn fail_over(&self, lb: &str) {
        self.ask(Method::PUT, &format!("{LBS}/{lb}/failover"), Value::Null).await;
    }

    pub(super) async fn delete(&self, lb: &str) {
        let (status, answer) =
            self.ask(Method::DELETE, &format!("{LBS}/{lb}?cascade=true"), Value::Null).await;
        // Another one has asked before, and it may be gone.
        assert!([204, 404].contains(&status), "{answer}");
        self.state().answered.remove(lb);
    }

    /// Its agent is to be configured, and never takes it.
    pub(super) async fn is_stubborn(&self, amphora: &str) {
        self.state().stubborn.insert(amphora.to_owned());
        self.configure(amphora).await;
    }

    pub(super) async fn configure(&self, amphora: &str) {
        self.ask(Method::PUT, &format!("/v2/octavia/amphorae/{amphora}/config"), Value::Null).await;
    }

    pub(super) fn subnet(&self, which: usize) -> String {
        self.networks.all()[which].subnets[0].id.to_string()
    }
}
