//! The tables of attributes: what each resource has, of what kind, where it is stored, and who may say it when.
//!
//! Parsing of bodies, rows, answers, filters and sorting follow from them, so an attribute cannot be forgotten in one of these.
//! The order is that of Octavia's types, in which WSME looks for faults.
//!
//! | file | what |
//! | --- | --- |
//! | `parse` | bodies, as WSME reads them |
//! | `kinds` | which values a kind has |
//! | `rows` | SQL |
//! | `balancing` | load balancers, listeners, pools, members, health monitors |
//! | `layer7` | L7 policies and L7 rules |
//! | `limits` | policies and rules of rate limits |
//! | `deployment` | quotas, flavors, availability zones, amphorae |

/// The condition that a `share` of several pools names `pool`, by its id or, within the load balancer, by its name.
macro_rules! share_is_of_pool {
    () => {
        "(coalesce(json_extract(share.value, '$.pool_id'), json_extract(share.value, '$.pool.id')) = pool.id \
          OR json_extract(share.value, '$.pool.name') = pool.name)"
    };
}

mod balancing;
mod deployment;
mod kinds;
mod layer7;
mod limits;
mod object;
mod parse;
mod rows;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub(super) use share_is_of_pool;

pub(super) use self::{
    balancing::{HEALTH_MONITOR, LISTENER, LOAD_BALANCER, MEMBER, POOL},
    deployment::{AMPHORA, AVAILABILITY_ZONE, AVAILABILITY_ZONE_PROFILE, FLAVOR, FLAVOR_PROFILE, QUOTA},
    kinds::{Kind, python},
    layer7::{L7POLICY, L7RULE, OWN_ACTIONS},
    limits::{RATE_LIMIT_POLICY, RATE_LIMIT_RULE},
    object::Object,
    parse::{Body, bodies, body},
    rows::{from_sql, milliseconds},
};
use super::fault::Fault;
use crate::serve::config::Config;

/// What the API has many of.
#[derive(Debug)]
pub(super) struct Resource {
    /// Its table.
    pub(super) table: &'static str,
    /// What one is called in bodies.
    pub(super) one: &'static str,
    /// What a list of them is called.
    pub(super) many: &'static str,
    /// What the links of a list are called.
    pub(super) links: &'static str,
    /// What a person is told it is.
    pub(super) title: &'static str,
    /// The attribute that tells one from another.
    pub(super) key: &'static str,
    /// What Octavia's functions call the body, in POST and in PUT: WSME's faults say it.
    pub(super) arguments: (&'static str, &'static str),
    /// The column of its quota.
    pub(super) quota: Option<&'static str>,
    /// What it has.
    pub(super) attributes: &'static [Attribute],
}

impl Resource {
    /// Refuses an object that lacks what POST must say.
    pub(super) fn require(&self, object: &Object) -> Result<(), Fault> {
        let lacks = |attribute: &&Attribute| attribute.is_mandatory() && object.get(attribute.name).is_none();
        match self.attributes.iter().find(lacks) {
            Some(attribute) => Err(Fault::option("None", attribute.name)),
            None => Ok(()),
        }
    }

    /// An attribute by name.
    pub(super) fn attribute(&self, name: &str) -> Option<&'static Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }
}

/// What a resource has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) source: Source,
    pub(super) post: Post,
    pub(super) put: Put,
    /// Whether it is in answers.
    pub(super) shown: bool,
    /// Whether a list can be asked for those with a value, and sorted.
    pub(super) filter: bool,
    /// Where in a body it may stand.
    pub(super) place: Place,
    /// How it is told that there is nothing.
    pub(super) nothing: Nothing,
}

/// Where the value of an attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// In the column of its name.
    Column,
    /// In another column.
    Named(&'static str),
    /// It follows from others: an expression of SQL.
    Sql(&'static str),
    /// In bodies alone.
    Nowhere,
}

/// What POST does with an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) enum Post {
    /// There is no such attribute.
    Refused,
    /// It may be said.
    Optional(Default),
    /// It must be said.
    Mandatory,
    /// It must be said, unless `amphora` is, which may have a word of its own for it.
    MandatoryUnlessAmphora,
}

/// What PUT does with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// There is no such attribute.
    Refused,
    /// It may be changed; `null` makes it what it is by default.
    Taken,
    /// It may be changed; `null` changes nothing.
    UnlessNull,
}

/// How it is told that there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    /// As the row has it.
    AsItIs,
    /// An empty list is `null`.
    Null,
    /// What is `null` is not told.
    Absent,
}

/// Where an attribute may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Everywhere.
    Anywhere,
    /// Not in what is made within another.
    Root,
    /// Only in what is made within another.
    Nested,
}

/// What an attribute is when nobody has said it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Default {
    Null,
    Text(&'static str),
    Integer(i64),
    Boolean(bool),
    /// An empty list.
    List,
    /// An empty object.
    Map,
    /// What the configuration says.
    Setting(fn(&Config) -> Value),
}

impl Default {
    pub(super) fn value(self, config: &Config) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Text(text) => json!(text),
            Self::Integer(number) => json!(number),
            Self::Boolean(value) => json!(value),
            Self::List => json!([]),
            Self::Map => json!({}),
            Self::Setting(of) => of(config),
        }
    }
}

impl Attribute {
    /// An attribute that is told, and that nobody can say.
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            source: Source::Column,
            post: Post::Refused,
            put: Put::Refused,
            shown: true,
            filter: true,
            place: Place::Anywhere,
            nothing: Nothing::AsItIs,
        }
    }

    /// It may be said at POST.
    const fn post(mut self, default: Default) -> Self {
        self.post = Post::Optional(default);
        self
    }

    /// It must be said at POST.
    const fn mandatory(mut self) -> Self {
        self.post = Post::Mandatory;
        self
    }

    /// It must be said at POST by who says no `amphora`.
    const fn mandatory_unless_amphora(mut self) -> Self {
        self.post = Post::MandatoryUnlessAmphora;
        self
    }

    /// It may be said at PUT.
    const fn put(mut self) -> Self {
        self.put = Put::Taken;
        self
    }

    /// It may be said at PUT, and `null` changes nothing.
    const fn put_unless_null(mut self) -> Self {
        self.put = Put::UnlessNull;
        self
    }

    const fn from(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// It is in a column of another name.
    const fn column(self, name: &'static str) -> Self {
        self.from(Source::Named(name))
    }

    /// It follows from others.
    const fn sql(self, expression: &'static str) -> Self {
        self.from(Source::Sql(expression))
    }

    const fn hidden(mut self) -> Self {
        self.shown = false;
        self
    }

    const fn unfiltered(mut self) -> Self {
        self.filter = false;
        self
    }

    /// An empty list is told as `null`.
    const fn null_when_empty(mut self) -> Self {
        self.nothing = Nothing::Null;
        self
    }

    /// It is not told when it is `null`.
    const fn absent_when_null(mut self) -> Self {
        self.nothing = Nothing::Absent;
        self
    }

    /// In bodies alone.
    const fn said(self) -> Self {
        self.from(Source::Nowhere).hidden().unfiltered()
    }

    const fn root(mut self) -> Self {
        self.place = Place::Root;
        self
    }

    const fn nested(mut self) -> Self {
        self.place = Place::Nested;
        self
    }

    /// Whether POST knows no such attribute.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.post, Post::Refused)
    }

    /// Whether POST must say it.
    pub(super) fn is_mandatory(&self) -> bool {
        matches!(self.post, Post::Mandatory)
    }

    /// Whether `null` at PUT changes nothing.
    pub(super) fn keeps_null(&self) -> bool {
        self.put == Put::UnlessNull
    }

    /// What it is when nobody says it, and when somebody says `null`.
    pub(super) fn default(&self, config: &Config) -> Value {
        match self.post {
            Post::Optional(default) => default.value(config),
            Post::Refused | Post::Mandatory | Post::MandatoryUnlessAmphora => Value::Null,
        }
    }
}

/// Attributes that most resources have.
mod common {
    use super::{Attribute, Default, Kind};

    pub(super) const ID: Attribute = Attribute::new("id", Kind::Uuid);
    pub(super) const NAME: Attribute = text("name", 255).post(Default::Text("")).put();
    pub(super) const DESCRIPTION: Attribute = text("description", 255).post(Default::Text("")).put();
    pub(super) const ADMIN_STATE_UP: Attribute =
        Attribute::new("admin_state_up", Kind::State).post(Default::Boolean(true)).put();
    pub(super) const PROVISIONING_STATUS: Attribute = text("provisioning_status", 16);
    pub(super) const OPERATING_STATUS: Attribute = text("operating_status", 16);
    pub(super) const PROJECT_ID: Attribute = text("project_id", 36).post(Default::Null).root();
    /// The old name. It cannot be asked for.
    pub(super) const TENANT_ID: Attribute =
        text("tenant_id", 36).column("project_id").post(Default::Null).root().unfiltered();
    pub(super) const TAGS: Attribute = Attribute::new("tags", Kind::List(&Kind::text(255)))
        .post(Default::List)
        .put_unless_null()
        .unfiltered();
    pub(super) const CREATED_AT: Attribute = Attribute::new("created_at", Kind::Time);
    pub(super) const UPDATED_AT: Attribute = Attribute::new("updated_at", Kind::Time);
    /// What Octavia has no word for.
    pub(super) const AMPHORA_OBJECT: Attribute =
        Attribute::new("amphora", Kind::Free).post(Default::Null).put().unfiltered().absent_when_null();
    pub(super) const GENERATION: Attribute =
        Attribute::new("generation", Kind::Integer(0, i64::MAX)).hidden().unfiltered();

    pub(super) const fn text(name: &'static str, longest: usize) -> Attribute {
        Attribute::new(name, Kind::text(longest))
    }

    /// A list of what belongs to it, of which the identifiers are told.
    pub(super) const fn ids(name: &'static str, expression: &'static str) -> Attribute {
        Attribute::new(name, Kind::Json).sql(expression).unfiltered()
    }
}
