//! L7 policies and their rules.

use super::{
    Attribute, Default, Kind, Resource,
    balancing::POOL_ATTRIBUTES,
    common::{
        ADMIN_STATE_UP, AMPHORA_OBJECT, CREATED_AT, DESCRIPTION, GENERATION, ID, NAME, OPERATING_STATUS,
        PROJECT_ID, PROVISIONING_STATUS, TAGS, TENANT_ID, UPDATED_AT, text,
    },
    kinds::Pattern,
};

/// The greatest position: at the end.
pub(in crate::serve::api) const LAST_POSITION: i64 = 2_147_483_647;

/// Actions for which Octavia has no word: those that stand in `amphora`.
pub(in crate::serve::api) const OWN_ACTIONS: &[&str] = &["EDIT", "ANSWER"];

const ACTIONS: &[&str] = &["REJECT", "REDIRECT_TO_URL", "REDIRECT_TO_POOL", "REDIRECT_PREFIX"];

const TYPES: &[&str] = &[
    "HOST_NAME",
    "PATH",
    "FILE_TYPE",
    "HEADER",
    "COOKIE",
    "SSL_CONN_HAS_CERT",
    "SSL_VERIFY_RESULT",
    "SSL_DN_FIELD",
];

const COMPARE_TYPES: &[&str] = &["REGEX", "STARTS_WITH", "ENDS_WITH", "CONTAINS", "EQUAL_TO"];

const ONE_LINE: Kind = Kind::Text {
    least: 0,
    most: 255,
    pattern: Some(Pattern { matches: |text| !text.contains(['\r', '\n']), shown: r"^[^\r\n]*$" }),
};

pub(in crate::serve::api) static L7POLICY: Resource = Resource {
    table: "l7policy",
    one: "l7policy",
    many: "l7policies",
    links: "l7policies_links",
    title: "L7 Policy",
    key: "id",
    arguments: ("l7policy_", "l7policy_"),
    quota: Some("l7policy"),
    attributes: L7POLICY_ATTRIBUTES,
};

pub(super) const L7POLICY_ATTRIBUTES: &[Attribute] = &[
    ID,
    NAME,
    DESCRIPTION,
    ADMIN_STATE_UP,
    PROJECT_ID,
    Attribute::new("action", Kind::OneOfHere(ACTIONS, OWN_ACTIONS, "amphora.action"))
        .mandatory_unless_amphora()
        .put(),
    Attribute::new("redirect_pool_id", Kind::Uuid).post(Default::Null).put().root(),
    Attribute::new("redirect_pool", Kind::Nested(POOL_ATTRIBUTES)).post(Default::Null).nested().said(),
    Attribute::new("redirect_url", Kind::Url).post(Default::Null).put(),
    Attribute::new("redirect_prefix", Kind::Url).post(Default::Null).put(),
    Attribute::new("position", Kind::Integer(1, LAST_POSITION)).post(Default::Integer(LAST_POSITION)).put(),
    Attribute::new("listener_id", Kind::Uuid).mandatory().root(),
    Attribute::new("rules", Kind::List(&Kind::Nested(L7RULE_ATTRIBUTES)))
        .post(Default::Null)
        .sql(
            "(SELECT json_group_array(json_object('id', id)) FROM \
             (SELECT id FROM l7rule WHERE l7policy_id = l7policy.id ORDER BY created_at, id))",
        )
        .unfiltered(),
    TAGS,
    Attribute::new("redirect_http_code", Kind::OneOfIntegers(&[301, 302, 303, 307, 308]))
        .post(Default::Null)
        .put(),
    AMPHORA_OBJECT,
    PROVISIONING_STATUS,
    OPERATING_STATUS,
    CREATED_AT,
    UPDATED_AT,
    TENANT_ID,
    GENERATION,
];

pub(in crate::serve::api) static L7RULE: Resource = Resource {
    table: "l7rule",
    one: "rule",
    many: "rules",
    links: "rules_links",
    title: "L7 Rule",
    key: "id",
    arguments: ("rule_", "l7rule_"),
    quota: Some("l7rule"),
    attributes: L7RULE_ATTRIBUTES,
};

const L7RULE_ATTRIBUTES: &[Attribute] = &[
    ID,
    Attribute::new("type", Kind::OneOf(TYPES)).mandatory().put(),
    Attribute::new("compare_type", Kind::OneOf(COMPARE_TYPES)).mandatory().put(),
    Attribute::new("key", ONE_LINE).post(Default::Null).put(),
    Attribute::new("value", ONE_LINE).mandatory().put(),
    Attribute::new("invert", Kind::Boolean).post(Default::Boolean(false)).put(),
    ADMIN_STATE_UP,
    PROJECT_ID,
    TAGS,
    PROVISIONING_STATUS,
    OPERATING_STATUS,
    CREATED_AT,
    UPDATED_AT,
    text("l7policy_id", 36).hidden(),
    TENANT_ID,
    GENERATION,
];
