//! Lists: filters, sorting, pages, fields, tags, and links that keep them (`octavia.api.common.pagination`).
//!
//! Octavia tells the first page with `page_reverse`, whatever the marker; here it is the page before the marker.

use rusqlite::{ToSql, types::Value as Sql};
use serde_json::{Value, json};

use super::{
    attributes::{Attribute, Kind, Object, Resource, milliseconds},
    fault::Fault,
    request::{Query, encode, is_true},
    scope::Scope,
};
use crate::serve::config::Config;

/// Parameters that are no filters.
const AUXILIARY: [&str; 7] = ["limit", "marker", "sort", "sort_key", "sort_dir", "fields", "page_reverse"];

const TAGS: [&str; 4] = ["tags", "tags-any", "not-tags", "not-tags-any"];

/// The most tags of a filter: more than anybody asks for, and fewer than make a question that takes the database long.
const MAX_TAGS: usize = 100;

/// A condition of SQL with its values.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    terms: Vec<String>,
    values: Vec<Sql>,
}

impl Condition {
    /// Those with this value in a column or expression.
    pub(super) fn equal(expression: &str, value: impl Into<Sql>) -> Self {
        let mut this = Self::default();
        this.push_equal(expression, value.into());
        this
    }

    fn push_equal(&mut self, expression: &str, value: Sql) {
        let mark = self.mark(value);
        self.terms.push(format!("{expression} = {mark}"));
    }

    /// Keeps a value, and tells how the text calls it.
    fn mark(&mut self, value: Sql) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }

    fn text(&self) -> String {
        if self.terms.is_empty() { "1".to_owned() } else { self.terms.join(" AND ") }
    }

    fn values(&self) -> Vec<&dyn ToSql> {
        self.values.iter().map(|value| value as &dyn ToSql).collect()
    }
}

/// By what is sorted.
struct Key {
    expression: String,
    descending: bool,
}

/// Answers a list of those for which a condition holds. `own` are filters that the caller has judged already.
pub(super) fn list(
    scope: &Scope<'_>,
    resource: &'static Resource,
    mut condition: Condition,
    own: &[&str],
) -> Result<Value, Fault> {
    let query = &scope.request.query;
    let api = &scope.config.api;
    let whose = condition.clone();
    if api.filtering {
        filter(resource, query, own, &mut condition)?;
    }
    let reverse = query.get("page_reverse").is_some_and(is_true) && api.pagination;
    let mut keys = if api.sorting { sort_keys(resource, query)? } else { default_keys(resource, Vec::new()) };
    if reverse {
        keys.iter_mut().for_each(|key| key.descending = !key.descending);
    }
    let limit = if api.pagination { limit(query, scope.config)? } else { None };
    let marker = query.get("marker").filter(|_| api.pagination);
    if let Some(marker) = marker {
        after(scope, (resource, whose), marker, &keys, &mut condition)?;
    }
    let order: Vec<_> = keys
        .iter()
        .map(|key| format!("{} {}", key.expression, if key.descending { "DESC" } else { "ASC" }))
        .collect();
    let bound = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
    let text = format!("{} ORDER BY {}{bound}", condition.text(), order.join(", "));
    let mut objects = resource.all(scope.t, &text, &condition.values())?;
    if reverse {
        objects.reverse();
    }
    let mut answer = serde_json::Map::new();
    if api.pagination {
        let links = links(scope, resource, &objects, limit, marker.is_some(), reverse);
        answer.insert(resource.links.to_owned(), Value::Array(links));
    }
    let shown = objects.iter().map(|object| fields(scope, resource.show(object)));
    answer.insert(resource.many.to_owned(), Value::Array(shown.collect()));
    Ok(Value::Object(answer))
}

/// What is left of an object when only some fields are asked for.
pub(super) fn fields(scope: &Scope<'_>, mut object: Object) -> Value {
    if scope.config.api.field_selection && scope.request.query.has("fields") {
        let wanted: Vec<_> = scope.request.query.all("fields").collect();
        object.0.retain(|name, _| wanted.contains(&name.as_str()));
    }
    Value::Object(object.0)
}

fn filter(
    resource: &'static Resource,
    query: &Query,
    own: &[&str],
    condition: &mut Condition,
) -> Result<(), Fault> {
    let invalid = || Fault::new(400, "One or more arguments are either duplicate or invalid");
    let has_tags = resource.attribute("tags").is_some();
    for (at, (name, value)) in query.0.iter().enumerate() {
        let name = name.as_str();
        if AUXILIARY.contains(&name) || own.contains(&name) {
            continue;
        }
        if has_tags && TAGS.contains(&name) {
            if query.0.iter().take(at).all(|(other, _)| other != name) {
                let mut asked: Vec<_> = query.all(name).collect();
                asked.sort_unstable();
                asked.dedup();
                if asked.len() > MAX_TAGS {
                    return Err(Fault::new(400, format!("{name} may have {MAX_TAGS} tags.")));
                }
                tags(resource, name, &asked, condition);
            }
            continue;
        }
        let attribute = resource.attribute(name).filter(|attribute| attribute.filter).ok_or_else(invalid)?;
        let expression = attribute.expression(resource.table).ok_or_else(invalid)?;
        if query.0.iter().take(at).any(|(other, _)| other == name) {
            return Err(invalid());
        }
        equal(attribute, &expression, value, condition);
    }
    Ok(())
}

/// Those whose attribute has the value that a text says.
fn equal(attribute: &Attribute, expression: &str, text: &str, condition: &mut Condition) {
    match attribute.kind {
        Kind::Boolean | Kind::State => {
            condition.push_equal(expression, Sql::Integer(i64::from(is_true(text))));
        }
        Kind::Integer(..) | Kind::OneOfIntegers(_) => match text.trim().parse() {
            Ok(number) => condition.push_equal(expression, Sql::Integer(number)),
            Err(_) => condition.terms.push("0".to_owned()),
        },
        Kind::OneOfNumbers(_) => match text.trim().parse() {
            Ok(number) => condition.push_equal(expression, Sql::Real(number)),
            Err(_) => condition.terms.push("0".to_owned()),
        },
        Kind::Time => match milliseconds(text) {
            Some(time) => {
                let (from, to) =
                    (condition.mark(Sql::Integer(time)), condition.mark(Sql::Integer(time + 999)));
                condition.terms.push(format!("{expression} BETWEEN {from} AND {to}"));
            }
            None => condition.terms.push("0".to_owned()),
        },
        _ => condition.push_equal(expression, Sql::Text(text.to_owned())),
    }
}

/// Those with all of some tags, with one, not with all, with none.
fn tags(resource: &Resource, parameter: &str, tags: &[&str], condition: &mut Condition) {
    let has: Vec<_> = tags
        .iter()
        .map(|&tag| {
            let mark = condition.mark(Sql::Text(tag.to_owned()));
            format!("EXISTS (SELECT 1 FROM json_each({}.tags) WHERE value = {mark})", resource.table)
        })
        .collect();
    condition.terms.push(match parameter {
        "tags" => format!("({})", has.join(" AND ")),
        "tags-any" => format!("({})", has.join(" OR ")),
        "not-tags" => format!("NOT ({})", has.join(" AND ")),
        _ => format!("NOT ({})", has.join(" OR ")),
    });
}

fn direction(text: &str) -> Result<bool, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "asc" => Ok(false),
        "desc" => Ok(true),
        other => Err(Fault::new(400, format!("Supplied sort direction '{other}' is not valid."))),
    }
}

fn sort_keys(resource: &'static Resource, query: &Query) -> Result<Vec<Key>, Fault> {
    let mut named = Vec::new();
    if let Some(sort) = query.get("sort").filter(|sort| !sort.is_empty()) {
        for part in sort.split(',') {
            let mut parts = part.split(':');
            let (name, way, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
            if more.is_some() {
                return Err(invalid_key(part));
            }
            named.push((name, way.map(direction).transpose()?.unwrap_or(false)));
        }
    } else if let Some(keys) = query.get("sort_key").filter(|keys| !keys.is_empty()) {
        let mut ways = query.get("sort_dir").unwrap_or_default().split(',').filter(|way| !way.is_empty());
        for name in keys.split(',') {
            named.push((name, ways.next().map(direction).transpose()?.unwrap_or(false)));
        }
    }
    let mut keys: Vec<Key> = Vec::new();
    for (name, descending) in named {
        let attribute = resource.attribute(name).filter(|attribute| attribute.filter);
        let expression = attribute.and_then(|attribute| key(resource, attribute));
        let expression = expression.ok_or_else(|| invalid_key(name))?;
        // What is sorted by already sorts nothing more.
        if keys.iter().all(|key| key.expression != expression) {
            keys.push(Key { expression, descending });
        }
    }
    Ok(default_keys(resource, keys))
}

fn invalid_key(name: &str) -> Fault {
    Fault::new(400, format!("Supplied sort key '{name}' is not valid."))
}

/// What an attribute is sorted by: nothing counts as empty.
fn key(resource: &Resource, attribute: &Attribute) -> Option<String> {
    let nothing = if attribute.is_number() { "0" } else { "''" };
    attribute.expression(resource.table).map(|expression| format!("COALESCE({expression}, {nothing})"))
}

/// Adds what makes the order one.
fn default_keys(resource: &'static Resource, mut keys: Vec<Key>) -> Vec<Key> {
    for name in ["created_at", resource.key] {
        if let Some(expression) = resource.attribute(name).and_then(|attribute| key(resource, attribute))
            && !keys.iter().any(|key| key.expression == expression)
        {
            keys.push(Key { expression, descending: false });
        }
    }
    keys
}

/// The most objects of an answer; nothing when there is no bound.
fn limit(query: &Query, config: &Config) -> Result<Option<usize>, Fault> {
    let most = config.api.max_limit;
    let Some(text) = query.get("limit") else { return Ok(Some(most)) };
    if text == "infinite" {
        return Ok(Some(most));
    }
    let invalid = || Fault::new(400, format!("Supplied pagination limit '{text}' is not valid."));
    let limit: i64 = text.trim().parse().map_err(|_| invalid())?;
    Ok(Some(usize::try_from(limit).ok().filter(|&limit| limit > 0).map_or(most, |limit| limit.min(most))))
}

/// Those behind the marker, which is one of those that there would be without filters: the place of what is another's is not told.
fn after(
    scope: &Scope<'_>,
    (resource, mut whose): (&Resource, Condition),
    marker: &str,
    keys: &[Key],
    condition: &mut Condition,
) -> Result<(), Fault> {
    let columns: Vec<_> = keys.iter().map(|key| key.expression.as_str()).collect();
    whose.push_equal(&format!("{}.{}", resource.table, resource.key), Sql::Text(marker.to_owned()));
    let text = format!("SELECT {} FROM {} WHERE {}", columns.join(", "), resource.table, whose.text());
    let read = |row: &rusqlite::Row<'_>| (0..keys.len()).map(|at| row.get(at)).collect();
    let values: Vec<Sql> =
        scope.t.prepare_cached(&text)?.query_row(&whose.values()[..], read).map_err(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => {
                Fault::new(400, format!("Supplied pagination marker '{marker}' is not valid."))
            }
            other => other.into(),
        })?;
    let marks: Vec<_> = values.into_iter().map(|value| condition.mark(value)).collect();
    let mut cases = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        let mut terms: Vec<_> =
            (0..at).map(|before| format!("{} = {}", keys[before].expression, marks[before])).collect();
        let behind = if key.descending { "<" } else { ">" };
        terms.push(format!("{} {behind} {}", key.expression, marks[at]));
        cases.push(format!("({})", terms.join(" AND ")));
    }
    condition.terms.push(format!("({})", cases.join(" OR ")));
    Ok(())
}

fn links(
    scope: &Scope<'_>,
    resource: &Resource,
    objects: &[Object],
    limit: Option<usize>,
    marked: bool,
    reversed: bool,
) -> Vec<Value> {
    let (Some(first), Some(last)) = (objects.first(), objects.last()) else { return Vec::new() };
    let full = limit.is_none_or(|limit| objects.len() >= limit);
    let request = scope.request;
    let mut kept = String::new();
    if let Some(limit) = limit {
        kept.push_str(&format!("limit={limit}&"));
    }
    for (name, value) in &request.query.0 {
        if !["limit", "marker", "page_reverse"].contains(&name.as_str()) {
            kept.push_str(&format!("{}={}&", encode(name), encode(value)));
        }
    }
    let link = |rel: &str, object: &Object, more: &str| {
        let marker = encode(object.str(resource.key));
        json!({"rel": rel, "href": format!("{}{}?{kept}marker={marker}{more}", request.base, request.path)})
    };
    let mut links = Vec::new();
    // Going back, a page that is not full is the first one; going on, there is one before whenever there is a marker.
    if if reversed { full } else { marked } {
        links.push(link("previous", first, "&page_reverse=True"));
    }
    if reversed || full {
        links.push(link("next", last, ""));
    }
    links
}
