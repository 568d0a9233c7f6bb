//! The description of the API (OpenAPI 3.1), made of the routes and of the tables of attributes: what these do not say is not in it.

mod schemas;
#[cfg(test)]
mod tests;

use hyper::Method;
use serde_json::{Map, Value, json};

use self::schemas::{answers, components, named, query};
use super::{
    attributes::{LOAD_BALANCER, Resource},
    router::{ROUTES, Route},
};
use crate::serve::config::AuthStrategy;

/// What a request is for, which decides what is said and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    List,
    One,
    Create,
    Change,
    Delete,
    /// Something to be done, without a body.
    Order,
    /// All members of a pool at once.
    Batch,
    /// What is computed: its schema.
    Told(&'static str),
    /// Neutron's, to be read.
    Network,
    /// Neutron's port, to be made.
    Port,
}

impl Shape {
    fn of(route: &Route) -> Self {
        let words: Vec<_> = route.path.split('/').collect();
        let last = words.last().copied().unwrap_or_default();
        match (route.method.as_str(), last) {
            ("GET", _) if !is_octavia(route) => Self::Network,
            ("POST", "ports") => Self::Port,
            ("GET", "stats") if words.first() == Some(&"octavia") => Self::Told("AmphoraStatistics"),
            ("GET", "stats") => Self::Told("Statistics"),
            ("GET", "status" | "statuses") => Self::Told("Statuses"),
            ("GET", "providers") => Self::Told("Providers"),
            ("GET", "flavor_capabilities") => Self::Told("FlavorCapabilities"),
            ("GET", "availability_zone_capabilities") => Self::Told("AvailabilityZoneCapabilities"),
            ("GET", "{}" | "default") => Self::One,
            ("GET", _) => Self::List,
            ("POST", _) => Self::Create,
            ("DELETE", _) => Self::Delete,
            ("PUT", "failover" | "config") => Self::Order,
            ("PUT", "{}") => Self::Change,
            _ => Self::Batch,
        }
    }

    /// The status of what has gone well.
    fn status(self, resource: &Resource) -> u16 {
        match self {
            Self::Create | Self::Port => 201,
            Self::Change | Self::Delete if resource.table == "quota" => 202,
            Self::Delete => 204,
            Self::Order | Self::Batch => 202,
            Self::List | Self::One | Self::Change | Self::Told(_) | Self::Network => 200,
        }
    }
}

/// Whether it is of Octavia's API, and not of Neutron's.
fn is_octavia(route: &Route) -> bool {
    route.path.starts_with("lbaas/") || route.path.starts_with("octavia/")
}

/// The description, for a server that asks so who somebody is.
pub(super) fn document(auth: AuthStrategy) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let (path, names) = path(route.path);
        let parameters: Vec<_> = names
            .iter()
            .map(|name| {
                let is_uuid = !matches!(name.as_str(), "project_id" | "availability_zone" | "provider");
                let schema = if is_uuid {
                    json!({"type": "string", "format": "uuid"})
                } else {
                    json!({"type": "string", "minLength": 1})
                };
                json!({"name": name, "in": "path", "required": true, "schema": schema})
            })
            .collect();
        let entry = paths.entry(path).or_insert_with(|| match parameters.is_empty() {
            true => json!({}),
            false => json!({ "parameters": parameters }),
        });
        entry[route.method.as_str().to_lowercase()] = operation(route, &names, auth);
    }
    paths.insert("/lbaas/events".to_owned(), json!({ "get": events(auth) }));
    let (schemes, security) = match auth {
        AuthStrategy::NoAuth => (json!({}), json!([])),
        AuthStrategy::Keystone => (
            json!({"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}}),
            json!([{"token": []}]),
        ),
        AuthStrategy::HttpBasic => {
            (json!({"basic": {"type": "http", "scheme": "basic"}}), json!([{"basic": []}]))
        }
    };
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Octavia's API, as amphora-controller serves it",
            "version": super::versions::current(),
            "description": "Load balancers, and what clients ask Neutron on the way. A change is accepted with \
                            PENDING_*, and is ACTIVE when amphorae have it. `/v2.0` is `/v2`.",
        },
        "servers": [{"url": "/v2"}],
        "security": security,
        "paths": paths,
        "components": {"schemas": components(), "securitySchemes": schemes},
    })
}

/// The stream of events, which no route answers.
fn events(auth: AuthStrategy) -> Value {
    let parameter = |name: &str, description: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}, "description": description});
    let fault = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Fault"}}});
    let refused = |description: &str| json!({"description": description, "content": fault});
    let mut responses = json!({
        "200": {"description": "What changes, as it changes", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        "400": refused("It is not as it must be"),
        "403": refused("It is not permitted"),
        "503": refused("Too many are open"),
    });
    if auth != AuthStrategy::NoAuth {
        responses["401"] = refused("Nobody knows who asks");
    }
    json!({
        "operationId": "streamEvents",
        "tags": ["Events"],
        "parameters": [
            parameter("last_event_id", "It begins behind this one"),
            parameter("project_id", "Of this project"),
            parameter("loadbalancer_id", "Of this load balancer"),
        ],
        "responses": responses,
    })
}

/// A path with names for what stands between its words.
fn path(pattern: &str) -> (String, Vec<String>) {
    let (mut path, mut names, mut before) = (String::new(), Vec::new(), "");
    for word in pattern.split('/') {
        path.push('/');
        if word == "{}" {
            let name = match (before, names.last()) {
                ("rules", Some(policy)) if policy == "rate_limit_policy_id" => {
                    "rate_limit_rule_id".to_owned()
                }
                _ => parameter(before),
            };
            path.push_str(&format!("{{{name}}}"));
            names.push(name);
        } else {
            path.push_str(word);
        }
        before = word;
    }
    (path, names)
}

/// What one of these is called in a path.
fn parameter(many: &str) -> String {
    match many {
        "quotas" => "project_id".to_owned(),
        "providers" => "provider".to_owned(),
        "availabilityzones" => "availability_zone".to_owned(),
        "availabilityzoneprofiles" => "availability_zone_profile_id".to_owned(),
        "flavorprofiles" => "flavor_profile_id".to_owned(),
        "security-groups" => "security_group_id".to_owned(),
        "rules" => "l7rule_id".to_owned(),
        "amphorae" => "amphora_id".to_owned(),
        "l7policies" => "l7policy_id".to_owned(),
        "ratelimitpolicies" => "rate_limit_policy_id".to_owned(),
        many => format!("{}_id", many.trim_end_matches('s')),
    }
}

/// What an operation is called: `listPools`, `getPoolsMembers`.
fn operation_id(route: &Route) -> String {
    let verb = match (Shape::of(route), route.method.as_str()) {
        (Shape::List, _) => "list",
        (Shape::Create | Shape::Port, _) => "create",
        (Shape::Change, _) => "update",
        (Shape::Delete, _) => "delete",
        (Shape::Network, _) if !route.path.ends_with('}') => "list",
        (_, "GET") => "get",
        _ => "put",
    };
    let words = route.path.split(['/', '-', '_']).filter(|word| !matches!(*word, "lbaas" | "octavia" | "{}"));
    words.fold(verb.to_owned(), |mut id, word| {
        let (first, rest) = word.split_at(word.len().min(1));
        id.push_str(&first.to_uppercase());
        id.push_str(rest);
        id
    })
}

fn operation(route: &Route, names: &[String], auth: AuthStrategy) -> Value {
    let shape = Shape::of(route);
    let resource = route.resource;
    let mut responses = faults(route, shape, !names.is_empty(), auth);
    let mut success = json!({"description": if shape.status(resource) == 202 { "Accepted" } else { "Done" }});
    if let Some(schema) = answers(shape, route) {
        success["content"] = json!({"application/json": {"schema": schema}});
    }
    if shape == Shape::Create {
        success["links"] = links(route);
    }
    responses.insert(shape.status(resource).to_string(), success);
    let tag = if is_octavia(route) { resource.title } else { "Networks" };
    let mut operation = json!({"operationId": operation_id(route), "tags": [tag], "responses": responses});
    let parameters = query(shape, route);
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    let body = match shape {
        Shape::Create => Some(named(resource.one, &format!("{}Create", schemas::name(resource)))),
        Shape::Port => Some(named("port", "PortCreate")),
        Shape::Change => Some(named(resource.one, &format!("{}Update", schemas::name(resource)))),
        Shape::Batch => Some(json!({
            "type": "object",
            "required": [resource.many],
            "properties": {resource.many: {
                "type": "array",
                "items": {"$ref": format!("#/components/schemas/{}Create", schemas::name(resource))},
            }},
            "additionalProperties": false,
        })),
        _ => None,
    };
    if let Some(schema) = body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

/// The answers of what has not gone well.
fn faults(route: &Route, shape: Shape, is_named: bool, auth: AuthStrategy) -> Map<String, Value> {
    let writes = route.method != Method::GET;
    let says = matches!(shape, Shape::Create | Shape::Change | Shape::Batch | Shape::Port);
    let table = route.resource.table;
    let profile = table.ends_with("_profile");
    // An algorithm, or families of addresses.
    let balances = ["load_balancer", "listener", "pool", "member"].contains(&table);
    let all = [
        (400, "It is not as it must be", true),
        (401, "Nobody knows who asks", auth != AuthStrategy::NoAuth),
        (403, "It is not permitted, or a quota is met", true),
        (404, "There is no such thing", is_named || says || shape == Shape::List),
        (406, "Answers are JSON", true),
        (408, "The body took too long", writes),
        (409, "It cannot be now, or another is in its place", writes),
        (413, "The body is too large", writes),
        (415, "Bodies are JSON", says),
        (501, "No amphora does that", says && (profile || balances)),
        (503, "Too much is under way, or the disk is full", true),
    ];
    let content = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Fault"}}});
    let told = all.into_iter().filter(|(_, _, is_told)| *is_told).map(|(status, description, _)| {
        let content = if status == 406 {
            json!({"application/json": {"schema": {"type": "object"}}})
        } else {
            content.clone()
        };
        (status.to_string(), json!({"description": description, "content": content}))
    });
    told.collect()
}

/// What can be asked of what was made.
fn links(route: &Route) -> Value {
    let resource = route.resource;
    let (made, own) = path(&format!("{}/{{}}", route.path));
    let Some((new, parents)) = own.split_last() else { return json!({}) };
    let mut links = Map::new();
    for other in ROUTES {
        let (other_path, names) = path(other.path);
        if !other_path.starts_with(&made) || names.len() > own.len() {
            continue;
        }
        let mut parameters = Map::new();
        for parent in parents {
            parameters.insert(parent.clone(), json!(format!("$request.path.{parent}")));
        }
        parameters.insert(new.clone(), json!(format!("$response.body#/{}/{}", resource.one, resource.key)));
        let id = operation_id(other);
        links.insert(id.clone(), json!({"operationId": id, "parameters": parameters}));
    }
    Value::Object(links)
}

/// Whether a load balancer is told with all that is in it.
fn is_full(shape: Shape, resource: &Resource) -> bool {
    shape == Shape::Create && resource.table == LOAD_BALANCER.table
}
