//! Load balancers and what they balance.

use serde_json::json;

use super::{
    Attribute, Default, Kind, Resource,
    common::{
        ADMIN_STATE_UP, AMPHORA_OBJECT, CREATED_AT, DESCRIPTION, GENERATION, ID, NAME, OPERATING_STATUS,
        PROJECT_ID, PROVISIONING_STATUS, TAGS, TENANT_ID, UPDATED_AT, ids, text,
    },
    kinds::Pattern,
    layer7::L7POLICY_ATTRIBUTES,
    limits::RATE_LIMIT_POLICY_ATTRIBUTES,
};

const PORT: Kind = Kind::Integer(1, 65_535);

/// Milliseconds: 24 days at most.
const TIMEOUT: Kind = Kind::Integer(0, 24 * 24 * 60 * 60 * 1000);

/// What an INTEGER of Octavia's database takes.
const NUMBER: Kind = Kind::Integer(0, 2_147_483_647);

const LISTENER_PROTOCOLS: &[&str] =
    &["TCP", "HTTPS", "HTTP", "TERMINATED_HTTPS", "UDP", "SCTP", "PROMETHEUS"];

const POOL_PROTOCOLS: &[&str] = &["TCP", "HTTP", "HTTPS", "PROXY", "PROXYV2", "UDP", "SCTP"];

const ALGORITHMS: &[&str] = &["LEAST_CONNECTIONS", "ROUND_ROBIN", "SOURCE_IP", "SOURCE_IP_PORT"];

const MONITORS: &[&str] = &["HTTP", "HTTPS", "PING", "TCP", "TLS-HELLO", "UDP-CONNECT", "SCTP"];

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "OPTIONS", "CONNECT", "PATCH"];

const fn reference(name: &'static str) -> Attribute {
    text(name, 255).post(Default::Null).put()
}

const fn address(name: &'static str) -> Attribute {
    Attribute::new(name, Kind::Address)
}

const fn id(name: &'static str) -> Attribute {
    Attribute::new(name, Kind::Uuid)
}

const fn list(name: &'static str, item: &'static Kind) -> Attribute {
    Attribute::new(name, Kind::List(item)).unfiltered()
}

const fn flag(name: &'static str) -> Attribute {
    Attribute::new(name, Kind::Boolean)
}

const ADDITIONAL_VIP: &[Attribute] = &[
    id("subnet_id").mandatory(),
    address("ip_address").post(Default::Null),
    id("port_id").post(Default::Null),
    id("network_id").hidden(),
];

pub(in crate::serve::api) static LOAD_BALANCER: Resource = Resource {
    table: "load_balancer",
    one: "loadbalancer",
    many: "loadbalancers",
    links: "loadbalancers_links",
    title: "Load Balancer",
    key: "id",
    arguments: ("load_balancer", "load_balancer"),
    quota: Some("load_balancer"),
    attributes: &[
        ID,
        NAME,
        DESCRIPTION,
        ADMIN_STATE_UP,
        address("vip_address").post(Default::Null),
        id("vip_port_id").post(Default::Null),
        id("vip_subnet_id").post(Default::Null),
        id("vip_network_id").post(Default::Null),
        id("vip_qos_policy_id").post(Default::Null).put(),
        list("vip_sg_ids", &Kind::Uuid).post(Default::List).put(),
        list("additional_vips", &Kind::Object(ADDITIONAL_VIP)).post(Default::List),
        PROJECT_ID,
        Attribute::new("listeners", Kind::List(&Kind::Nested(LISTENER_ATTRIBUTES)))
            .post(Default::Null)
            .sql(
                "(SELECT json_group_array(json_object('id', id)) FROM \
                 (SELECT id FROM listener WHERE load_balancer_id = load_balancer.id ORDER BY created_at, id))",
            )
            .unfiltered(),
        Attribute::new("pools", Kind::List(&Kind::Nested(POOL_ATTRIBUTES)))
            .post(Default::Null)
            .sql(
                "(SELECT json_group_array(json_object('id', id)) FROM \
                 (SELECT id FROM pool WHERE load_balancer_id = load_balancer.id ORDER BY created_at, id))",
            )
            .unfiltered(),
        text("provider", 64).post(Default::Null),
        TAGS,
        id("flavor_id").post(Default::Null),
        text("availability_zone", 255).post(Default::Null),
        text("vip_vnic_type", 64),
        AMPHORA_OBJECT,
        PROVISIONING_STATUS,
        OPERATING_STATUS,
        CREATED_AT,
        UPDATED_AT,
        TENANT_ID,
        text("topology", 32).hidden(),
        text("compute_driver", 64).hidden(),
        GENERATION,
    ],
};

pub(in crate::serve::api) static LISTENER: Resource = Resource {
    table: "listener",
    one: "listener",
    many: "listeners",
    links: "listeners_links",
    title: "Listener",
    key: "id",
    arguments: ("listener_", "listener_"),
    quota: Some("listener"),
    attributes: LISTENER_ATTRIBUTES,
};

const LISTENER_ATTRIBUTES: &[Attribute] = &[
    ID,
    NAME,
    DESCRIPTION,
    ADMIN_STATE_UP,
    Attribute::new("protocol", Kind::OneOf(LISTENER_PROTOCOLS)).mandatory(),
    Attribute::new("protocol_port", PORT).mandatory(),
    Attribute::new("connection_limit", Kind::Integer(-1, 2_147_483_647)).post(Default::Integer(-1)).put(),
    reference("default_tls_container_ref"),
    list("sni_container_refs", &Kind::text(255)).post(Default::List).put(),
    PROJECT_ID,
    id("default_pool_id").post(Default::Null).put(),
    Attribute::new("default_pool", Kind::Nested(POOL_ATTRIBUTES)).post(Default::Null).said(),
    Attribute::new("l7policies", Kind::List(&Kind::Nested(L7POLICY_ATTRIBUTES)))
        .post(Default::Null)
        .sql(
            "(SELECT json_group_array(json_object('id', id)) FROM \
             (SELECT id FROM l7policy WHERE listener_id = listener.id ORDER BY position, id))",
        )
        .unfiltered(),
    Attribute::new("insert_headers", Kind::Map(&Kind::text(255))).post(Default::Map).put().unfiltered(),
    id("loadbalancer_id").column("load_balancer_id").mandatory().root().hidden(),
    Attribute::new("timeout_client_data", TIMEOUT)
        .post(Default::Setting(|config| json!(config.listener.timeout_client_data)))
        .put(),
    Attribute::new("timeout_member_connect", TIMEOUT)
        .post(Default::Setting(|config| json!(config.listener.timeout_member_connect)))
        .put(),
    Attribute::new("timeout_member_data", TIMEOUT)
        .post(Default::Setting(|config| json!(config.listener.timeout_member_data)))
        .put(),
    Attribute::new("timeout_tcp_inspect", TIMEOUT)
        .post(Default::Setting(|config| json!(config.listener.timeout_tcp_inspect)))
        .put(),
    TAGS,
    reference("client_ca_tls_container_ref"),
    Attribute::new("client_authentication", Kind::OneOf(&["NONE", "OPTIONAL", "MANDATORY"]))
        .post(Default::Text("NONE"))
        .put(),
    reference("client_crl_container_ref"),
    list("allowed_cidrs", &Kind::Cidr).post(Default::List).put().null_when_empty(),
    text("tls_ciphers", 2048).post(Default::Setting(|config| json!(config.api.listener_ciphers))).put(),
    list("tls_versions", &Kind::text(32))
        .post(Default::Setting(|config| json!(config.api.listener_tls_versions)))
        .put()
        .null_when_empty(),
    list("alpn_protocols", &Kind::Alpn)
        .post(Default::Setting(|config| json!(config.api.listener_alpn_protocols)))
        .put()
        .null_when_empty(),
    Attribute::new("hsts_max_age", NUMBER).post(Default::Null).put(),
    flag("hsts_include_subdomains").post(Default::Boolean(false)).put(),
    flag("hsts_preload").post(Default::Boolean(false)).put(),
    Attribute::new("rate_limit_policies", Kind::List(&Kind::Nested(RATE_LIMIT_POLICY_ATTRIBUTES)))
        .post(Default::Null)
        .sql(
            "(SELECT CASE WHEN count(*) > 0 THEN json_group_array(json_object('id', id)) END FROM \
             (SELECT id FROM rate_limit_policy WHERE listener_id = listener.id ORDER BY created_at, id))",
        )
        .absent_when_null()
        .unfiltered(),
    AMPHORA_OBJECT,
    PROVISIONING_STATUS,
    OPERATING_STATUS,
    CREATED_AT,
    UPDATED_AT,
    ids("loadbalancers", "json_array(json_object('id', listener.load_balancer_id))"),
    TENANT_ID,
    GENERATION,
];

const SESSION_PERSISTENCE: &[Attribute] = &[
    Attribute::new("type", Kind::OneOf(&["SOURCE_IP", "HTTP_COOKIE", "APP_COOKIE"])).mandatory().put(),
    Attribute::new(
        "cookie_name",
        Kind::Text {
            least: 0,
            most: 255,
            pattern: Some(Pattern {
                matches: |text| {
                    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || ",;\\".contains(c))
                },
                shown: r"^[^\s,;\\]+$",
            }),
        },
    )
    .post(Default::Null)
    .put(),
    Attribute::new("persistence_timeout", NUMBER).post(Default::Null).put(),
    address("persistence_granularity").post(Default::Null).put(),
];

pub(in crate::serve::api) static POOL: Resource = Resource {
    table: "pool",
    one: "pool",
    many: "pools",
    links: "pools_links",
    title: "Pool",
    key: "id",
    arguments: ("pool_", "pool_"),
    quota: Some("pool"),
    attributes: POOL_ATTRIBUTES,
};

pub(super) const POOL_ATTRIBUTES: &[Attribute] = &[
    ID,
    NAME,
    DESCRIPTION,
    ADMIN_STATE_UP,
    id("listener_id").post(Default::Null).root().said(),
    id("loadbalancer_id").column("load_balancer_id").post(Default::Null).root().hidden(),
    // Mandatory as well, but for what only names a pool that is made elsewhere in the same body.
    Attribute::new("protocol", Kind::OneOf(POOL_PROTOCOLS)).post(Default::Null),
    Attribute::new("lb_algorithm", Kind::OneOf(ALGORITHMS)).post(Default::Null).put(),
    Attribute::new("session_persistence", Kind::Object(SESSION_PERSISTENCE))
        .post(Default::Null)
        .put()
        .unfiltered(),
    PROJECT_ID,
    Attribute::new("healthmonitor", Kind::Nested(HEALTH_MONITOR_ATTRIBUTES)).post(Default::Null).said(),
    Attribute::new("members", Kind::List(&Kind::Nested(MEMBER_ATTRIBUTES)))
        .post(Default::Null)
        .sql(
            "(SELECT json_group_array(json_object('id', id)) FROM \
             (SELECT id FROM member WHERE pool_id = pool.id ORDER BY created_at, id))",
        )
        .unfiltered(),
    TAGS,
    reference("tls_container_ref"),
    reference("ca_tls_container_ref"),
    reference("crl_container_ref"),
    flag("tls_enabled").post(Default::Boolean(false)).put(),
    text("tls_ciphers", 2048).post(Default::Setting(|config| json!(config.api.pool_ciphers))).put(),
    list("tls_versions", &Kind::text(32))
        .post(Default::Setting(|config| json!(config.api.pool_tls_versions)))
        .put()
        .null_when_empty(),
    list("alpn_protocols", &Kind::Alpn)
        .post(Default::Setting(|config| json!(config.api.pool_alpn_protocols)))
        .put()
        .null_when_empty(),
    AMPHORA_OBJECT,
    PROVISIONING_STATUS,
    OPERATING_STATUS,
    CREATED_AT,
    UPDATED_AT,
    id("healthmonitor_id").sql("(SELECT id FROM health_monitor WHERE pool_id = pool.id)").absent_when_null(),
    ids("loadbalancers", "json_array(json_object('id', pool.load_balancer_id))"),
    // Those that use it, as Octavia's `Pool.listeners`: also as one of several that share.
    ids(
        "listeners",
        concat!(
            "(SELECT json_group_array(json_object('id', id)) FROM \
             (SELECT id FROM listener WHERE default_pool_id = pool.id \
              UNION SELECT p.listener_id FROM l7policy p WHERE p.redirect_pool_id = pool.id AND p.admin_state_up = 1 \
              AND EXISTS (SELECT 1 FROM l7rule r WHERE r.l7policy_id = p.id) \
              UNION SELECT l.id FROM listener l, json_each(l.amphora, '$.default_pools') share \
              WHERE l.load_balancer_id = pool.load_balancer_id AND l.amphora IS NOT NULL AND ",
            share_is_of_pool!(),
            " UNION SELECT l.id FROM listener l JOIN l7policy p ON p.listener_id = l.id, \
              json_each(p.amphora, '$.redirect_pools') share WHERE l.load_balancer_id = pool.load_balancer_id \
              AND p.amphora IS NOT NULL AND p.admin_state_up = 1 \
              AND EXISTS (SELECT 1 FROM l7rule r WHERE r.l7policy_id = p.id) AND ",
            share_is_of_pool!(),
            "))"
        ),
    ),
    TENANT_ID,
    GENERATION,
];

pub(in crate::serve::api) static MEMBER: Resource = Resource {
    table: "member",
    one: "member",
    many: "members",
    links: "members_links",
    title: "Member",
    key: "id",
    arguments: ("member_", "member_"),
    quota: Some("member"),
    attributes: MEMBER_ATTRIBUTES,
};

pub(in crate::serve::api) const MEMBER_ATTRIBUTES: &[Attribute] = &[
    ID,
    NAME,
    ADMIN_STATE_UP,
    address("address").mandatory(),
    Attribute::new("protocol_port", PORT).mandatory(),
    Attribute::new("weight", Kind::Integer(0, 256)).post(Default::Integer(1)).put(),
    flag("backup").post(Default::Boolean(false)).put(),
    id("subnet_id").post(Default::Null),
    PROJECT_ID,
    Attribute::new("monitor_port", PORT).post(Default::Null).put(),
    address("monitor_address").post(Default::Null).put(),
    TAGS,
    flag("request_sriov").post(Default::Boolean(false)).said(),
    PROVISIONING_STATUS,
    OPERATING_STATUS,
    CREATED_AT,
    UPDATED_AT,
    text("vnic_type", 64),
    TENANT_ID,
    id("pool_id").hidden(),
    GENERATION,
];

pub(in crate::serve::api) static HEALTH_MONITOR: Resource = Resource {
    table: "health_monitor",
    one: "healthmonitor",
    many: "healthmonitors",
    links: "healthmonitors_links",
    title: "Health Monitor",
    key: "id",
    arguments: ("health_monitor_", "health_monitor_"),
    quota: Some("health_monitor"),
    attributes: HEALTH_MONITOR_ATTRIBUTES,
};

const RETRIES: Kind = Kind::Integer(1, 10);

const HEALTH_MONITOR_ATTRIBUTES: &[Attribute] = &[
    ID,
    NAME,
    Attribute::new("type", Kind::OneOf(MONITORS)).mandatory(),
    Attribute::new("delay", NUMBER).mandatory().put(),
    Attribute::new("timeout", NUMBER).mandatory().put(),
    Attribute::new("max_retries_down", RETRIES).post(Default::Integer(3)).put(),
    Attribute::new("max_retries", RETRIES).mandatory().put(),
    Attribute::new("http_method", Kind::OneOf(METHODS)).post(Default::Null).put(),
    Attribute::new("url_path", Kind::UrlPath).post(Default::Null).put(),
    Attribute::new(
        "expected_codes",
        Kind::Text {
            least: 0,
            most: 64,
            pattern: Some(Pattern { matches: are_codes, shown: r"^(\d{3}(\s*,\s*\d{3})*)$|^(\d{3}-\d{3})$" }),
        },
    )
    .post(Default::Null)
    .put(),
    ADMIN_STATE_UP,
    PROJECT_ID,
    id("pool_id").mandatory().root().hidden(),
    TAGS,
    Attribute::new("http_version", Kind::OneOfNumbers(&[1.0, 1.1])).post(Default::Null).put(),
    Attribute::new(
        "domain_name",
        Kind::Text {
            least: 1,
            most: 255,
            pattern: Some(Pattern {
                matches: is_domain_name,
                shown: r"^(?=.{1,253}\.?$)(?:(?!-|[^.]+_)[A-Za-z0-9-_]{1,63}(?<!-)(?:\.|$))+$",
            }),
        },
    )
    .post(Default::Null)
    .put(),
    PROVISIONING_STATUS,
    OPERATING_STATUS,
    CREATED_AT,
    UPDATED_AT,
    ids("pools", "json_array(json_object('id', health_monitor.pool_id))"),
    TENANT_ID,
    GENERATION,
];

fn are_codes(text: &str) -> bool {
    let is_code = |code: &str| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((first, last)) = text.split_once('-') {
        return is_code(first) && is_code(last);
    }
    let codes: Vec<_> = text.split(',').collect();
    let last = codes.len() - 1;
    codes.iter().enumerate().all(|(at, code)| {
        let code = if at == 0 { code } else { code.trim_start() };
        is_code(if at == last { code } else { code.trim_end() })
    })
}

fn is_domain_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
            && !label.get(1..).is_some_and(|rest| rest.contains('_'))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}
