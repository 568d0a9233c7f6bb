//! Schemas of bodies, answers and parameters.

use serde_json::{Map, Value, json};

use super::{
    super::{
        attributes::{
            AMPHORA, AVAILABILITY_ZONE, AVAILABILITY_ZONE_PROFILE, Attribute, Body, FLAVOR, FLAVOR_PROFILE,
            HEALTH_MONITOR, Kind, L7POLICY, L7RULE, LISTENER, LOAD_BALANCER, MEMBER, Nothing, POOL, QUOTA,
            RATE_LIMIT_POLICY, RATE_LIMIT_RULE, Resource,
        },
        router::Route,
    },
    Shape, is_full, is_octavia,
};

static RESOURCES: [&Resource; 15] = [
    &LOAD_BALANCER,
    &LISTENER,
    &POOL,
    &MEMBER,
    &HEALTH_MONITOR,
    &L7POLICY,
    &L7RULE,
    &RATE_LIMIT_POLICY,
    &RATE_LIMIT_RULE,
    &QUOTA,
    &FLAVOR,
    &FLAVOR_PROFILE,
    &AVAILABILITY_ZONE,
    &AVAILABILITY_ZONE_PROFILE,
    &AMPHORA,
];

/// What a resource's schemas begin with.
pub(super) fn name(resource: &Resource) -> String {
    resource.title.replace(' ', "")
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// An object with one attribute.
pub(super) fn named(one: &str, schema: &str) -> Value {
    json!({
        "type": "object",
        "required": [one],
        "properties": {one: reference(schema)},
        "additionalProperties": false,
    })
}

/// A list under its name.
fn listed(many: &str, item: &Value) -> Value {
    json!({
        "type": "object",
        "required": [many],
        "properties": {many: {"type": "array", "items": item}},
    })
}

/// What an answer of success has; nothing where it has no body.
pub(super) fn answers(shape: Shape, route: &Route) -> Option<Value> {
    let resource = route.resource;
    match shape {
        Shape::Delete | Shape::Order | Shape::Batch => None,
        Shape::Told(name) => Some(reference(name)),
        Shape::Port => Some(named("port", "Port")),
        Shape::Network => {
            let mut words = route.path.split('/');
            let many = words.next().unwrap_or_default().replace('-', "_");
            let object = json!({"type": "object"});
            Some(match words.next() {
                Some(_) => {
                    let one = many.trim_end_matches('s');
                    json!({"type": "object", "required": [one], "properties": {one: object}})
                }
                None => listed(&many, &object),
            })
        }
        Shape::List => {
            let mut schema = listed(resource.many, &reference(&name(resource)));
            schema["properties"][resource.links] = json!({"type": "array", "items": reference("Link")});
            Some(schema)
        }
        Shape::One | Shape::Create | Shape::Change if is_full(shape, resource) => {
            Some(named(resource.one, "LoadBalancerFull"))
        }
        Shape::One | Shape::Create | Shape::Change => Some(named(resource.one, &name(resource))),
    }
}

/// The parameters of a query.
pub(super) fn query(shape: Shape, route: &Route) -> Vec<Value> {
    let parameter = |name: &str, schema: Value, description: &str| json!({"name": name, "in": "query", "required": false, "schema": schema, "description": description});
    let text = || json!({"type": "string"});
    let fields = || parameter("fields", text(), "Attributes that are told, between commas");
    let resource = route.resource;
    match shape {
        Shape::One => vec![fields()],
        Shape::Delete if resource.table == LOAD_BALANCER.table && is_octavia(route) => {
            let description = "Whether listeners and pools go with it";
            vec![parameter("cascade", json!({"type": "boolean"}), description)]
        }
        Shape::Batch => {
            let description = "Whether members that are not named stay";
            vec![parameter("additive_only", json!({"type": "boolean"}), description)]
        }
        Shape::List => {
            let keys: Vec<_> = resource.attributes.iter().filter(|attribute| attribute.filter).collect();
            let key = json!({"enum": keys.iter().map(|attribute| attribute.name).collect::<Vec<_>>()});
            let mut all = vec![
                fields(),
                parameter("limit", json!({"type": "integer", "minimum": 0}), "The most that are told"),
                parameter("marker", text(), "The last one of the page before"),
                parameter("page_reverse", json!({"type": "boolean"}), "The page before the marker"),
                parameter("sort", text(), "`name`, `name:desc`, more of them between commas"),
                parameter("sort_key", key, "By what is sorted"),
                parameter("sort_dir", json!({"enum": ["asc", "desc"]}), "Which are first"),
            ];
            if resource.attribute("tags").is_some() {
                for (name, description) in [
                    ("tags", "With all of these tags, between commas"),
                    ("tags-any", "With one of them"),
                    ("not-tags", "Not with all of them"),
                    ("not-tags-any", "With none of them"),
                ] {
                    all.push(parameter(name, text(), description));
                }
            }
            for attribute in keys {
                let description = format!("Those whose {} is this", attribute.name);
                all.push(parameter(attribute.name, value(attribute.kind, Body::Post), &description));
            }
            all
        }
        _ => Vec::new(),
    }
}

/// All that others refer to.
pub(super) fn components() -> Value {
    let mut schemas = Map::new();
    for resource in RESOURCES {
        let name = name(resource);
        schemas.insert(name.clone(), told(resource));
        let bodies = [(Body::Post, "Create"), (Body::Put, "Update"), (Body::Nested, "Within")];
        for (body, suffix) in bodies {
            if resource.attributes.iter().any(|attribute| attribute.is_taken(body)) {
                schemas.insert(format!("{name}{suffix}"), object(resource.attributes, body));
            }
        }
    }
    let text = || json!({"type": "string"});
    let count = || json!({"type": "integer", "minimum": 0});
    let counters = || {
        let names = ["bytes_in", "bytes_out", "active_connections", "total_connections", "request_errors"];
        Value::Object(names.into_iter().map(|name| (name.to_owned(), count())).collect())
    };
    let mut of_amphora = counters();
    for name in ["id", "listener_id", "loadbalancer_id"] {
        of_amphora[name] = text();
    }
    let described = || json!({"type": "object", "properties": {"name": text(), "description": text()}});
    let full = json!({
        "type": "object",
        "description": "A load balancer with its listeners, policies, rules, pools, members and health monitors.",
        "required": ["id", "listeners", "pools"],
    });
    let fault = json!({
        "type": "object",
        "required": ["faultcode", "faultstring", "debuginfo"],
        "properties": {
            "faultcode": {"enum": ["Client", "Server"]},
            "faultstring": text(),
            "debuginfo": {"type": "null"},
        },
        "additionalProperties": false,
    });
    for (name, schema) in [
        ("Fault", fault),
        ("LoadBalancerFull", full),
        (
            "Link",
            json!({
                "type": "object",
                "required": ["rel", "href"],
                "properties": {"rel": {"enum": ["next", "previous"]}, "href": text()},
            }),
        ),
        ("Port", json!({"type": "object", "required": ["id", "fixed_ips"]})),
        (
            "PortCreate",
            json!({
                "type": "object",
                "required": ["network_id"],
                "properties": {
                    "network_id": value(Kind::Uuid, Body::Post),
                    "name": {"type": "string", "maxLength": 255},
                    "project_id": text(),
                    "admin_state_up": {"const": true},
                    "fixed_ips": {"type": "array", "maxItems": 1, "items": {
                        "type": "object",
                        "properties": {
                            "subnet_id": value(Kind::Uuid, Body::Post),
                            "ip_address": value(Kind::Address, Body::Post),
                        },
                    }},
                },
                "additionalProperties": false,
            }),
        ),
        ("Identifier", json!({"type": "object", "required": ["id"], "properties": {"id": text()}})),
        (
            "Statistics",
            json!({"type": "object", "required": ["stats"], "properties": {"stats": {"type": "object", "properties": counters()}}}),
        ),
        ("AmphoraStatistics", listed("amphora_stats", &json!({"type": "object", "properties": of_amphora}))),
        (
            "Statuses",
            json!({"type": "object", "required": ["statuses"], "properties": {"statuses": {"type": "object", "required": ["loadbalancer"]}}}),
        ),
        ("Providers", listed("providers", &described())),
        ("FlavorCapabilities", listed("flavor_capabilities", &described())),
        ("AvailabilityZoneCapabilities", listed("availability_zone_capabilities", &described())),
    ] {
        schemas.insert(name.to_owned(), schema);
    }
    Value::Object(schemas)
}

/// What a body says of an object.
fn object(attributes: &'static [Attribute], of: Body) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for attribute in attributes.iter().filter(|attribute| attribute.is_taken(of)) {
        let mut schema = value(attribute.kind, of);
        if attribute.is_mandatory() && of != Body::Put {
            required.push(attribute.name);
        } else {
            schema = or_null(schema);
        }
        properties.insert(attribute.name.to_owned(), schema);
    }
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// What is told of a resource.
fn told(resource: &Resource) -> Value {
    let mut properties = Map::new();
    for attribute in resource.attributes.iter().filter(|attribute| attribute.shown) {
        let schema = match attribute.kind {
            Kind::List(Kind::Nested(_)) | Kind::Json => {
                json!({"type": "array", "items": reference("Identifier")})
            }
            Kind::Object(_) => json!({"type": "object"}),
            Kind::List(Kind::Object(_)) => json!({"type": "array", "items": {"type": "object"}}),
            // What a row has was judged when it was written, perhaps by another release.
            Kind::Text { .. } | Kind::Url | Kind::UrlPath | Kind::Address => json!({"type": "string"}),
            kind => value(kind, Body::Post),
        };
        let is_sure = attribute.name == "id" || attribute.nothing == Nothing::Absent;
        properties.insert(attribute.name.to_owned(), if is_sure { schema } else { or_null(schema) });
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn or_null(mut schema: Value) -> Value {
    if let Some(kind) = schema.get("type").cloned() {
        schema["type"] = json!([kind, "null"]);
        return schema;
    }
    json!({"anyOf": [schema, {"type": "null"}]})
}

/// The values of a kind.
fn value(kind: Kind, of: Body) -> Value {
    match kind {
        Kind::Text { least, most, pattern } => {
            let mut schema = json!({"type": "string", "maxLength": most});
            if least > 0 {
                schema["minLength"] = json!(least);
            }
            if let Some(pattern) = pattern {
                schema["pattern"] = json!(pattern.shown());
            }
            schema
        }
        Kind::Integer(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Boolean | Kind::State => json!({"type": "boolean"}),
        Kind::Uuid => json!({"type": "string", "format": "uuid"}),
        Kind::Address => {
            json!({"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]})
        }
        Kind::Cidr => {
            json!({"type": "string", "description": "A network, `192.0.2.0/24` or `2001:db8::/64`"})
        }
        Kind::Alpn => json!({"enum": ["h2", "http/1.1", "http/1.0"]}),
        Kind::Url => json!({"type": "string", "format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/]"}),
        Kind::UrlPath => json!({"type": "string", "pattern": "^/([^/]|$)"}),
        Kind::OneOf(values) | Kind::OneOfHere(values, ..) => json!({ "enum": values }),
        Kind::OneOfIntegers(values) => json!({ "enum": values }),
        Kind::OneOfNumbers(values) => json!({ "enum": values }),
        Kind::List(item) => json!({"type": "array", "items": value(*item, of)}),
        Kind::Map(item) => json!({"type": "object", "additionalProperties": value(*item, of)}),
        Kind::Object(attributes) => object(attributes, of),
        Kind::Nested(attributes) => {
            let names = |all: &'static [Attribute]| all.iter().map(|attribute| attribute.name);
            let of = RESOURCES.iter().find(|resource| names(resource.attributes).eq(names(attributes)));
            of.map_or_else(
                || object(attributes, Body::Nested),
                |of| reference(&format!("{}Within", name(of))),
            )
        }
        Kind::Time => json!({"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$"}),
        Kind::Json => json!({}),
        Kind::Free => json!({"type": "object"}),
    }
}
