//! Policies and rules of rate limits: what Octavia's specification of version 15 has.

use super::{
    Attribute, Default, Kind, Resource,
    common::{
        AMPHORA_OBJECT, CREATED_AT, DESCRIPTION, GENERATION, ID, NAME, OPERATING_STATUS, PROJECT_ID,
        PROVISIONING_STATUS, TAGS, TENANT_ID, UPDATED_AT, text,
    },
};

const ACTIONS: &[&str] = &["DENY", "REJECT", "SILENT_DROP", "QUEUE"];

const METRICS: &[&str] = &["REQUESTS", "REQUESTS_PER_URL", "KBYTES", "PACKETS", "CONNECTIONS"];

/// What an INTEGER of Octavia's database takes.
const THRESHOLD: Kind = Kind::Integer(1, 2_147_483_647);

/// Seconds.
const INTERVAL: Kind = Kind::Integer(1, 86_400);

pub(in crate::serve::api) static RATE_LIMIT_POLICY: Resource = Resource {
    table: "rate_limit_policy",
    one: "ratelimitpolicy",
    many: "ratelimitpolicies",
    links: "ratelimitpolicies_links",
    title: "Rate Limit Policy",
    key: "id",
    arguments: ("ratelimitpolicy_", "ratelimitpolicy_"),
    quota: None,
    attributes: RATE_LIMIT_POLICY_ATTRIBUTES,
};

pub(super) const RATE_LIMIT_POLICY_ATTRIBUTES: &[Attribute] = &[
    ID,
    NAME,
    DESCRIPTION,
    Attribute::new("enabled", Kind::Boolean).post(Default::Boolean(true)).put(),
    PROJECT_ID,
    Attribute::new("action", Kind::OneOf(ACTIONS)).mandatory().put(),
    Attribute::new("listener_id", Kind::Uuid).mandatory().root(),
    Attribute::new("rules", Kind::List(&Kind::Nested(RATE_LIMIT_RULE_ATTRIBUTES)))
        .post(Default::Null)
        .sql(
            "(SELECT json_group_array(json_object('id', id)) FROM \
             (SELECT id FROM rate_limit_rule WHERE rate_limit_policy_id = rate_limit_policy.id \
              ORDER BY created_at, id))",
        )
        .unfiltered(),
    TAGS,
    AMPHORA_OBJECT,
    PROVISIONING_STATUS,
    OPERATING_STATUS,
    CREATED_AT,
    UPDATED_AT,
    TENANT_ID,
    GENERATION,
];

pub(in crate::serve::api) static RATE_LIMIT_RULE: Resource = Resource {
    table: "rate_limit_rule",
    one: "rule",
    many: "rules",
    links: "rules_links",
    title: "Rate Limit Rule",
    key: "id",
    arguments: ("rule_", "ratelimitrule_"),
    quota: None,
    attributes: RATE_LIMIT_RULE_ATTRIBUTES,
};

const RATE_LIMIT_RULE_ATTRIBUTES: &[Attribute] = &[
    ID,
    NAME,
    Attribute::new("metric", Kind::OneOf(METRICS)).mandatory().put(),
    Attribute::new("threshold", THRESHOLD).mandatory().put(),
    Attribute::new("interval", INTERVAL).post(Default::Integer(30)).put(),
    Attribute::new("urls", Kind::List(&Kind::text(2048))).post(Default::List).put().unfiltered(),
    PROJECT_ID,
    TAGS,
    PROVISIONING_STATUS,
    OPERATING_STATUS,
    CREATED_AT,
    UPDATED_AT,
    text("rate_limit_policy_id", 36).hidden(),
    TENANT_ID,
    GENERATION,
];
