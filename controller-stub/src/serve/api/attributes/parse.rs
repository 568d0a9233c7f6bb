//! Bodies, as WSME reads them: unknown attributes first, then each in the order of its type.

use serde_json::{Map, Value};

use super::{Attribute, Object, Place, Post, Put, Resource, kinds::Refused, python};
use crate::serve::api::fault::Fault;

use super::Kind;

/// What a body is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::serve::api) enum Body {
    /// Makes one.
    Post,
    /// Makes one within another.
    Nested,
    /// Changes one.
    Put,
}

impl Attribute {
    /// Whether a body may say it.
    pub(in crate::serve::api) fn is_taken(&self, of: Body) -> bool {
        match of {
            Body::Post => !self.is_refused() && self.place != Place::Nested,
            Body::Nested => !self.is_refused() && self.place != Place::Root,
            Body::Put => self.put != Put::Refused,
        }
    }
}

/// Reads the object of a resource out of the body of a request.
pub(in crate::serve::api) fn body(resource: &Resource, bytes: &[u8], of: Body) -> Result<Object, Fault> {
    let argument = if of == Body::Put { resource.arguments.1 } else { resource.arguments.0 };
    let (json, mut map) = root(bytes, argument, resource.one)?;
    let value = map.remove(resource.one).unwrap_or_default();
    if value.is_null() {
        return Err(Fault::new(400, format!("Missing argument: \"{}\"", resource.one)));
    }
    parse(resource.attributes, &value, of, &mut vec![argument, resource.one])
        .map_err(|refused| refused.fault(argument, &json))
}

/// Reads a body that is an object with one attribute; tells the whole of it as well, for faults show it.
fn root(bytes: &[u8], argument: &str, one: &str) -> Result<(Value, Map<String, Value>), Fault> {
    if bytes.is_empty() {
        return Err(Fault::new(400, format!("Missing argument: \"{argument}\"")));
    }
    let json: Value =
        serde_json::from_slice(bytes).map_err(|_| Fault::new(400, "Request is not in valid JSON format"))?;
    let objects = objects(&json);
    if objects > MOST_OBJECTS {
        let text = format!("The request has {objects} objects, and at most {MOST_OBJECTS} are taken at once");
        return Err(Fault::new(400, text));
    }
    let Value::Object(map) = json.clone() else {
        return Err(Fault::input(argument, python(&json), "Value not a valid object."));
    };
    let unknown: Vec<_> = map.keys().filter(|name| *name != one).map(String::as_str).collect();
    unknown_attributes(&[argument], &unknown)?;
    Ok((json, map))
}

/// More than an amphora takes of them; each is a row, which all who write wait for.
const MOST_OBJECTS: usize = 10_000;

/// How many objects there are within.
fn objects(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(objects).sum(),
        Value::Object(map) => 1 + map.values().map(objects).sum::<usize>(),
        _ => 0,
    }
}

fn unknown_attributes(path: &[&str], unknown: &[&str]) -> Result<(), Fault> {
    if unknown.is_empty() {
        return Ok(());
    }
    let s = if unknown.len() > 1 { "s" } else { "" };
    let path = path.join(".");
    Err(Fault::new(400, format!("Unknown attribute{s} for argument {path}: {}", unknown.join(", "))))
}

/// Why a body is refused: a fault, or one that shows the whole of it.
#[derive(Debug)]
pub(in crate::serve::api) enum Problem {
    Fault(Fault),
    /// A value cannot be made one of its kind: WSME shows the whole body.
    Convert(String),
    /// A value is none of its kind: WSME shows the value of the attribute.
    Invalid(String),
}

impl Problem {
    pub(in crate::serve::api) fn fault(self, argument: &str, json: &Value) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::Convert(text) | Self::Invalid(text) => Fault::input(argument, python(json), &text),
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Reads an object. What is not said is not in the answer; `null` is.
pub(in crate::serve::api) fn parse(
    attributes: &'static [Attribute],
    value: &Value,
    of: Body,
    path: &mut Vec<&'static str>,
) -> Result<Object, Problem> {
    let Value::Object(map) = value else {
        return Err(Problem::Convert(format!("Value not a valid object: {}", python(value))));
    };
    let taken = |attribute: &&Attribute| attribute.is_taken(of);
    let unknown: Vec<_> = map
        .keys()
        .map(String::as_str)
        .filter(|name| !attributes.iter().any(|attribute| attribute.name == *name && taken(&attribute)))
        .collect();
    unknown_attributes(path, &unknown)?;
    let mut object = Object::default();
    for attribute in attributes.iter().filter(taken) {
        let Some(value) = map.get(attribute.name) else {
            let is_missing = match attribute.post {
                Post::Mandatory => true,
                Post::MandatoryUnlessAmphora => map.get("amphora").is_none_or(Value::is_null),
                Post::Optional(_) | Post::Refused => false,
            };
            if is_missing && of != Body::Put {
                return Err(Fault::input(attribute.name, "None", "Mandatory field missing.").into());
            }
            continue;
        };
        path.push(attribute.name);
        let value = read(attribute.kind, value, of, path).map_err(|problem| match problem {
            Problem::Invalid(text) => Fault::input(attribute.name, python(value), &text).into(),
            other => other,
        })?;
        path.pop();
        object.set(attribute.name, value);
    }
    if let Some(project) = object.take("tenant_id")
        && !object.has("project_id")
    {
        object.set("project_id", project);
    }
    Ok(object)
}

/// Reads one value.
fn read(kind: Kind, value: &Value, of: Body, path: &mut Vec<&'static str>) -> Result<Value, Problem> {
    let not_null = |value| match value {
        Value::Null => Err(Problem::Invalid("Value should not be null".to_owned())),
        value => Ok(value),
    };
    match (kind, value) {
        (Kind::State, Value::Null) => Ok(Value::Bool(false)),
        (_, Value::Null) => Ok(Value::Null),
        (Kind::List(item), Value::Array(items)) => {
            let read_item = |value| read(*item, value, of, path).and_then(not_null);
            items.iter().map(read_item).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        (Kind::List(_), _) => Err(Problem::Convert(format!("Value not a valid list: {}", python(value)))),
        (Kind::Map(item), Value::Object(map)) => {
            let read_item = |(name, value): (&String, &Value)| {
                Ok((name.clone(), read(*item, value, of, path).and_then(not_null)?))
            };
            map.iter().map(read_item).collect::<Result<Map<_, _>, Problem>>().map(Value::Object)
        }
        (Kind::Map(_), _) => Err(Problem::Convert(format!("Value not a valid dict: {}", python(value)))),
        (Kind::Object(attributes), _) => {
            let mut object = parse(attributes, value, of, path)?;
            for attribute in attributes.iter().filter(|attribute| !attribute.is_refused()) {
                if !object.has(attribute.name) && !attribute.is_mandatory() {
                    object.set(attribute.name, Value::Null);
                }
            }
            Ok(Value::Object(object.0))
        }
        (Kind::Nested(attributes), _) => Ok(Value::Object(parse(attributes, value, Body::Nested, path)?.0)),
        _ => kind.read(value).map_err(|refused| match refused {
            Refused::Convert(text) => Problem::Convert(text),
            Refused::Invalid(text) => Problem::Invalid(text),
        }),
    }
}

/// Reads a list of objects of a resource out of the body of a request.
pub(in crate::serve::api) fn bodies(
    resource: &'static Resource,
    argument: &'static str,
    bytes: &[u8],
) -> Result<Vec<Object>, Fault> {
    let (json, mut map) = root(bytes, argument, resource.many)?;
    let value = map.remove(resource.many).unwrap_or_default();
    let Value::Array(items) = &value else {
        let text = format!("Value not a valid list: {}", python(&value));
        return Err(Problem::Convert(text).fault(argument, &json));
    };
    let path = || vec![argument, resource.many];
    let read = |item| parse(resource.attributes, item, Body::Post, &mut path());
    items.iter().map(read).collect::<Result<_, _>>().map_err(|problem| problem.fault(argument, &json))
}
