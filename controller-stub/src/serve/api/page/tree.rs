//! Load balancers with all that is theirs, of one state of the database: as text, for values take several times the memory.

use std::{collections::HashMap, fmt::Write as _};

use rusqlite::{Connection, params, types::Value as Sql};
use serde_json::Value;

use super::super::{attributes::share_is_of_pool, events, fault::Fault, request::Query, resources};
use crate::serve::policies::{Context, Rule};

/// A column of several pools that an `amphora` object names, in its order, with their weights; null without them.
macro_rules! shares {
    ($amphora:literal, $name:literal) => {
        concat!(
            "(SELECT nullif(json_group_array(json_object('pool_id', pool.id, 'weight', json_extract(share.value, '$.weight'))), '[]') \
            FROM json_each(",
            $amphora,
            ", '$.",
            $name,
            "') share CROSS JOIN pool ON pool.load_balancer_id = l.load_balancer_id AND ",
            share_is_of_pool!(),
            ") AS ",
            $name
        )
    };
}

/// The most bytes of one: some 50,000 objects.
const MOST: usize = 16 << 20;

/// Rows of a table by what they belong to.
type Children = HashMap<String, Vec<Row>>;

/// An object in JSON, without the brace at its end.
struct Row {
    id: String,
    text: String,
}

/// What is read for one answer.
struct Reader<'a> {
    connection: &'a Connection,
    project: Option<&'a str>,
    load_balancer: Option<&'a str>,
    /// Bytes that there may be besides.
    left: usize,
}

/// All that somebody sees, or one load balancer of it, with the last event that it has heard of.
pub(in crate::serve::api) fn tree(
    connection: &Connection,
    context: &Context,
    query: &Query,
) -> Result<String, Fault> {
    query.only(&["project_id", "loadbalancer_id"])?;
    let project = resources::visible(context, query.get("project_id"), Rule::ReadGlobal, Rule::Read)?;
    let mut reader = Reader { connection, project, load_balancer: query.get("loadbalancer_id"), left: MOST };
    let operator = context.may(Rule::Admin, None);
    let mut rules = reader.rows(
        "l7policy_id",
        "SELECT r.l7policy_id, r.id, r.type, r.compare_type, r.key, r.value, r.invert, \
        r.provisioning_status, r.operating_status FROM l7rule r JOIN l7policy y ON y.id = r.l7policy_id \
        JOIN listener l ON l.id = y.listener_id JOIN load_balancer b ON b.id = l.load_balancer_id",
        "r.created_at, r.id",
    )?;
    let mut policies = reader.rows(
        "listener_id",
        concat!(
            "SELECT y.listener_id, y.id, y.name, y.action, y.position, y.redirect_pool_id, ",
            shares!("y.amphora", "redirect_pools"),
            ", y.redirect_url, y.redirect_prefix, y.provisioning_status, y.operating_status FROM l7policy y \
            JOIN listener l ON l.id = y.listener_id JOIN load_balancer b ON b.id = l.load_balancer_id"
        ),
        "y.position, y.id",
    )?;
    adopt(&mut policies, "rules", &mut rules);
    let mut listeners = reader.rows(
        "load_balancer_id",
        concat!(
            "SELECT l.load_balancer_id, l.id, l.name, l.protocol, l.protocol_port, l.default_pool_id, ",
            shares!("l.amphora", "default_pools"),
            ", l.admin_state_up, l.provisioning_status, l.operating_status FROM listener l \
            JOIN load_balancer b ON b.id = l.load_balancer_id"
        ),
        "l.protocol_port, l.id",
    )?;
    adopt(&mut listeners, "l7policies", &mut policies);
    let mut members = reader.rows(
        "pool_id",
        "SELECT m.pool_id, m.id, m.name, m.address, m.protocol_port, m.weight, m.backup, \
        m.admin_state_up, m.provisioning_status, m.operating_status FROM member m JOIN pool p ON p.id = m.pool_id \
        JOIN load_balancer b ON b.id = p.load_balancer_id",
        "m.created_at, m.id",
    )?;
    let mut monitors = reader.rows(
        "pool_id",
        "SELECT h.pool_id, h.id, h.name, h.type, h.delay, h.timeout, h.url_path, \
        h.provisioning_status, h.operating_status FROM health_monitor h JOIN pool p ON p.id = h.pool_id \
        JOIN load_balancer b ON b.id = p.load_balancer_id",
        "h.id",
    )?;
    let mut pools = reader.rows(
        "load_balancer_id",
        "SELECT p.load_balancer_id, p.id, p.name, p.protocol, p.lb_algorithm, \
        p.admin_state_up, p.provisioning_status, p.operating_status FROM pool p JOIN load_balancer b ON b.id = p.load_balancer_id",
        "p.created_at, p.id",
    )?;
    adopt(&mut pools, "healthmonitors", &mut monitors);
    adopt(&mut pools, "members", &mut members);
    // Of whom nobody but an operator knows.
    let mut amphorae = if operator {
        reader.rows(
            "load_balancer_id",
            "SELECT a.load_balancer_id, a.id, a.role, a.status, a.lb_network_ip, a.vrrp_ip, \
            a.compute_driver FROM amphora a JOIN load_balancer b ON b.id = a.load_balancer_id",
            "a.role DESC, a.created_at, a.id",
        )?
    } else {
        Children::new()
    };
    let mut balancers = reader.rows(
        "top",
        "SELECT '' AS top, b.id, b.name, b.description, b.project_id, b.vip_address, \
        b.additional_vips, b.topology, b.provider, b.flavor_id, b.admin_state_up, b.provisioning_status, b.operating_status, b.created_at, \
        (SELECT max(attempts) FROM work WHERE subject = b.id) AS attempts, \
        (SELECT reason FROM work WHERE subject = b.id AND attempts > 0) AS reason FROM load_balancer b",
        "b.name, b.id",
    )?;
    adopt(&mut balancers, "listeners", &mut listeners);
    adopt(&mut balancers, "pools", &mut pools);
    adopt(&mut balancers, "amphorae", &mut amphorae);
    let (last, project) = (events::last_id(connection)?, Value::from(context.project_id.clone()));
    let mut text = format!(
        "{{\"last_event_id\":{last},\"operator\":{operator},\"project_id\":{project},\"loadbalancers\":"
    );
    list(&mut text, balancers.remove("").unwrap_or_default());
    text.push('}');
    Ok(text)
}

impl Reader<'_> {
    /// Rows of the load balancers `b` of a project, or of one of them, by one of their columns.
    fn rows(&mut self, parent: &str, select: &str, order: &str) -> Result<Children, Fault> {
        let text = format!(
            "{select} WHERE (?1 IS NULL OR b.project_id = ?1) AND (?2 IS NULL OR b.id = ?2) ORDER BY {order}"
        );
        let mut query = self.connection.prepare_cached(&text)?;
        let names: Vec<String> = query.column_names().map(str::to_owned).collect();
        let mut found = query.query(params![self.project, self.load_balancer])?;
        let mut children = Children::new();
        while let Some(row) = found.next()? {
            let mut of = String::new();
            let mut one = Row { id: String::new(), text: String::new() };
            for (at, name) in names.iter().enumerate() {
                let value = match row.get::<_, Sql>(at)? {
                    Sql::Text(text) if name == parent => {
                        of = text;
                        continue;
                    }
                    Sql::Text(text)
                        if matches!(&name[..], "additional_vips" | "default_pools" | "redirect_pools") =>
                    {
                        serde_json::from_str(&text).unwrap_or_default()
                    }
                    Sql::Text(text) => text.into(),
                    Sql::Integer(number) => number.into(),
                    Sql::Real(number) => number.into(),
                    Sql::Null | Sql::Blob(_) => Value::Null,
                };
                one.set(name, &value);
                if let (Value::String(id), "id") = (value, name.as_str()) {
                    one.id = id;
                }
            }
            let bytes = one.text.len() + one.id.len() + of.len() + size_of::<Row>();
            self.left = self.left.checked_sub(bytes).ok_or_else(|| {
                Fault::new(400, "These are too many load balancers for one answer: choose by project_id or loadbalancer_id.")
            })?;
            children.entry(of).or_default().push(one);
        }
        Ok(children)
    }
}

impl Row {
    /// Begins an attribute; its value is to follow.
    fn begin(&mut self, name: &str) {
        self.text.push(if self.text.is_empty() { '{' } else { ',' });
        let _ = write!(self.text, "{}:", Value::from(name));
    }

    fn set(&mut self, name: &str, value: &Value) {
        self.begin(name);
        let _ = write!(self.text, "{value}");
    }
}

/// Writes a list.
fn list(text: &mut String, rows: Vec<Row>) {
    text.push('[');
    for (at, row) in rows.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&row.text);
        text.push('}');
    }
    text.push(']');
}

/// Gives each of the parents what belongs to it.
fn adopt(parents: &mut Children, name: &str, children: &mut Children) {
    for parent in parents.values_mut().flatten() {
        parent.begin(name);
        list(&mut parent.text, children.remove(&parent.id).unwrap_or_default());
    }
}
