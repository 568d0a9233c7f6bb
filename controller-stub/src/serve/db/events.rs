//! Events are written by the database itself: no change of a status can be without one.

/// Tables of the objects of a load balancer, what events call them, and how the load balancer of a row is found.
const OBJECTS: [(&str, &str, &str); 7] = [
    ("load_balancer", "loadbalancer", "{row}.id"),
    ("listener", "listener", "{row}.load_balancer_id"),
    ("pool", "pool", "{row}.load_balancer_id"),
    ("member", "member", "(SELECT load_balancer_id FROM pool WHERE id = {row}.pool_id)"),
    ("health_monitor", "healthmonitor", "(SELECT load_balancer_id FROM pool WHERE id = {row}.pool_id)"),
    ("l7policy", "l7policy", "(SELECT load_balancer_id FROM listener WHERE id = {row}.listener_id)"),
    (
        "l7rule",
        "l7rule",
        "(SELECT l.load_balancer_id FROM l7policy p JOIN listener l ON l.id = p.listener_id WHERE p.id = {row}.l7policy_id)",
    ),
];

/// The same of those that came later.
const LIMITS: [(&str, &str, &str); 2] = [
    (
        "rate_limit_policy",
        "ratelimitpolicy",
        "(SELECT load_balancer_id FROM listener WHERE id = {row}.listener_id)",
    ),
    (
        "rate_limit_rule",
        "ratelimitrule",
        "(SELECT l.load_balancer_id FROM rate_limit_policy p JOIN listener l ON l.id = p.listener_id \
         WHERE p.id = {row}.rate_limit_policy_id)",
    ),
];

/// The time of the statement, as the tables have it.
const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// The triggers that write events, as statements.
pub(super) fn triggers() -> String {
    let mut text = triggers_of(&OBJECTS);
    for attribute in ["role", "status"] {
        text.push_str(&format!(
            "CREATE TRIGGER amphora_{attribute} AFTER UPDATE OF {attribute} ON amphora \
             WHEN old.{attribute} IS NOT new.{attribute} BEGIN \
             INSERT INTO event (at, project_id, load_balancer_id, object_type, object_id, attribute, old, new) \
             VALUES ({NOW}, COALESCE((SELECT project_id FROM load_balancer WHERE id = new.load_balancer_id), ''), \
             COALESCE(new.load_balancer_id, ''), 'amphora', new.id, '{attribute}', old.{attribute}, new.{attribute}); END;\n"
        ));
    }
    text
}

/// The same of policies and rules of rate limits.
pub(super) fn triggers_of_limits() -> String {
    triggers_of(&LIMITS)
}

fn triggers_of(objects: &[(&str, &str, &str)]) -> String {
    let mut text = String::new();
    for &(table, kind, load_balancer) in objects {
        let of = |row: &str| load_balancer.replace("{row}", row);
        let event = |row: &str, attribute: &str, old: &str, new: &str| {
            let load_balancer = of(row);
            format!(
                "INSERT INTO event (at, project_id, load_balancer_id, object_type, object_id, attribute, old, new) \
                 VALUES ({NOW}, {row}.project_id, COALESCE({load_balancer}, ''), '{kind}', {row}.id, '{attribute}', {old}, {new});"
            )
        };
        text.push_str(&format!(
            "CREATE TRIGGER {table}_is_made AFTER INSERT ON {table} BEGIN {} END;\n",
            event("new", "provisioning_status", "NULL", "new.provisioning_status"),
        ));
        // Before, for the parents that lead to the load balancer go with it.
        text.push_str(&format!(
            "CREATE TRIGGER {table}_is_deleted BEFORE DELETE ON {table} BEGIN {} END;\n",
            event("old", "provisioning_status", "old.provisioning_status", "'DELETED'"),
        ));
        for attribute in ["provisioning_status", "operating_status"] {
            text.push_str(&format!(
                "CREATE TRIGGER {table}_{attribute} AFTER UPDATE OF {attribute} ON {table} \
                 WHEN old.{attribute} IS NOT new.{attribute} BEGIN {} END;\n",
                event("new", attribute, &format!("old.{attribute}"), &format!("new.{attribute}")),
            ));
        }
    }
    text
}
