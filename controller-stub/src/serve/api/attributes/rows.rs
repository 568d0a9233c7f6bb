//! Objects from rows and back.

use std::fmt::Write as _;

use rusqlite::{Row, ToSql, Transaction, types::Value as Sql};
use serde_json::{Value, json};
use time::{Date, Month, OffsetDateTime, Time};

use super::{Attribute, Kind, Nothing, Object, Resource, Source};
use crate::serve::api::fault::Fault;

impl Attribute {
    /// What its value is in SQL, within a query of its table; nothing for what is in bodies alone.
    pub(in crate::serve::api) fn expression(&self, table: &str) -> Option<String> {
        match self.source {
            Source::Column => Some(format!("{table}.{}", self.name)),
            Source::Named(column) => Some(format!("{table}.{column}")),
            Source::Sql(expression) => Some(expression.to_owned()),
            Source::Nowhere => None,
        }
    }

    /// The column it is written to.
    fn column_name(&self) -> Option<&'static str> {
        match self.source {
            Source::Column => Some(self.name),
            Source::Named(column) => Some(column),
            Source::Sql(_) | Source::Nowhere => None,
        }
    }

    /// Whether a sort or a filter compares numbers.
    pub(in crate::serve::api) fn is_number(&self) -> bool {
        matches!(
            self.kind,
            Kind::Integer(..)
                | Kind::Boolean
                | Kind::State
                | Kind::Time
                | Kind::OneOfIntegers(_)
                | Kind::OneOfNumbers(_)
        )
    }
}

/// A value of a column as the API tells it.
pub(in crate::serve::api) fn from_sql(kind: Kind, value: Sql) -> Value {
    match (kind, value) {
        (_, Sql::Null) => Value::Null,
        (Kind::Boolean | Kind::State, Sql::Integer(number)) => json!(number != 0),
        (Kind::Time, Sql::Integer(milliseconds)) => json!(iso(milliseconds)),
        (_, Sql::Integer(number)) => json!(number),
        (_, Sql::Real(number)) => json!(number),
        (
            Kind::List(_) | Kind::Map(_) | Kind::Object(_) | Kind::Nested(_) | Kind::Json | Kind::Free,
            Sql::Text(text),
        ) => serde_json::from_str(&text).unwrap_or_default(),
        (_, Sql::Text(text)) => Value::String(text),
        (_, Sql::Blob(_)) => Value::Null,
    }
}

/// A value of the API as a column has it.
pub(in crate::serve::api) fn to_sql(kind: Kind, value: &Value) -> Sql {
    match (kind, value) {
        (_, Value::Null) => Sql::Null,
        (Kind::Time, Value::String(text)) => milliseconds(text).map_or(Sql::Null, Sql::Integer),
        (_, Value::Bool(value)) => Sql::Integer(i64::from(*value)),
        (Kind::OneOfNumbers(_), Value::Number(number)) => number.as_f64().map_or(Sql::Null, Sql::Real),
        (_, Value::Number(number)) => match number.as_i64() {
            Some(number) => Sql::Integer(number),
            None => number.as_f64().map_or(Sql::Null, Sql::Real),
        },
        (_, Value::String(text)) => Sql::Text(text.clone()),
        (_, Value::Array(_) | Value::Object(_)) => Sql::Text(value.to_string()),
    }
}

/// Milliseconds since 1970 as Octavia tells a time.
fn iso(milliseconds: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(milliseconds.div_euclid(1000)) else {
        return String::new();
    };
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// The time that is told so.
pub(in crate::serve::api) fn milliseconds(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', ' '])?;
    let time = time.split(['.', 'Z', '+']).next()?;
    let numbers = |text: &str, between| {
        let numbers: Option<Vec<u16>> = text.split(between).map(|part| part.parse().ok()).collect();
        <[u16; 3]>::try_from(numbers?).ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?.map(|number| u8::try_from(number).unwrap_or(u8::MAX));
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(year.into(), month, u8::try_from(day).ok()?).ok()?;
    let time = Time::from_hms(hour, minute, second).ok()?;
    Some(date.with_time(time).assume_utc().unix_timestamp() * 1000)
}

impl Resource {
    /// Everything before WHERE.
    pub(in crate::serve::api) fn select(&self) -> String {
        let columns: Vec<_> =
            self.attributes.iter().filter_map(|attribute| attribute.expression(self.table)).collect();
        format!("SELECT {} FROM {}", columns.join(", "), self.table)
    }

    /// A row of [`Self::select`].
    pub(in crate::serve::api) fn object(&self, row: &Row<'_>) -> Result<Object, rusqlite::Error> {
        let mut object = Object::default();
        let read = self.attributes.iter().filter(|attribute| attribute.source != Source::Nowhere);
        for (at, attribute) in read.enumerate() {
            object.set(attribute.name, from_sql(attribute.kind, row.get(at)?));
        }
        Ok(object)
    }

    /// Those for which a condition holds, in an order: what stands behind WHERE.
    pub(in crate::serve::api) fn all(
        &self,
        t: &Transaction<'_>,
        condition: &str,
        values: &[&dyn ToSql],
    ) -> Result<Vec<Object>, Fault> {
        let mut query = t.prepare_cached(&format!("{} WHERE {condition}", self.select()))?;
        let rows = query.query_map(values, |row| self.object(row))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One by its key.
    pub(in crate::serve::api) fn find(
        &self,
        t: &Transaction<'_>,
        key: &str,
    ) -> Result<Option<Object>, Fault> {
        Ok(self.all(t, &format!("{}.{} = ?1", self.table, self.key), &[&key])?.pop())
    }

    /// One by its key that a path names.
    ///
    /// # Errors
    /// 404 when there is none.
    pub(in crate::serve::api) fn get(&self, t: &Transaction<'_>, key: &str) -> Result<Object, Fault> {
        self.find(t, key)?.ok_or_else(|| Fault::not_found(self.title, key))
    }

    /// How many there are for which a condition holds.
    pub(in crate::serve::api) fn count(
        &self,
        t: &Transaction<'_>,
        condition: &str,
        values: &[&dyn ToSql],
    ) -> Result<i64, Fault> {
        let mut query =
            t.prepare_cached(&format!("SELECT count(*) FROM {} WHERE {condition}", self.table))?;
        Ok(query.query_row(values, |row| row.get(0))?)
    }

    /// Writes a row. What is not in the object is what the table has by default.
    pub(in crate::serve::api) fn insert(&self, t: &Transaction<'_>, object: &Object) -> Result<(), Fault> {
        let (columns, values) = self.columns(object);
        let marks: Vec<_> = (1..=columns.len()).map(|at| format!("?{at}")).collect();
        let text =
            format!("INSERT INTO {} ({}) VALUES ({})", self.table, columns.join(", "), marks.join(", "));
        t.prepare_cached(&text)?.execute(rusqlite::params_from_iter(values))?;
        Ok(())
    }

    /// Changes a row.
    pub(in crate::serve::api) fn update(
        &self,
        t: &Transaction<'_>,
        key: &str,
        changes: &Object,
    ) -> Result<(), Fault> {
        let (columns, mut values) = self.columns(changes);
        if columns.is_empty() {
            return Ok(());
        }
        let mut text = format!("UPDATE {} SET ", self.table);
        for (at, column) in columns.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}{column} = ?{}", at + 1);
        }
        let _ = write!(text, " WHERE {} = ?{}", self.key, columns.len() + 1);
        values.push(Sql::Text(key.to_owned()));
        t.prepare_cached(&text)?.execute(rusqlite::params_from_iter(values))?;
        Ok(())
    }

    /// Deletes a row.
    pub(in crate::serve::api) fn delete(&self, t: &Transaction<'_>, key: &str) -> Result<(), Fault> {
        Ok(self.delete_checked(t, key)?)
    }

    /// Deletes a row, and tells the database's own reason why it cannot.
    pub(in crate::serve::api) fn delete_checked(
        &self,
        t: &Transaction<'_>,
        key: &str,
    ) -> Result<(), rusqlite::Error> {
        t.prepare_cached(&format!("DELETE FROM {} WHERE {} = ?1", self.table, self.key))?.execute([key])?;
        Ok(())
    }

    /// The columns of what is in an object, each once: of two attributes in one column the first that says something counts.
    fn columns(&self, object: &Object) -> (Vec<&'static str>, Vec<Sql>) {
        let mut columns: Vec<&'static str> = Vec::new();
        let mut values = Vec::new();
        for attribute in self.attributes {
            let (Some(column), Some(value)) = (attribute.column_name(), object.0.get(attribute.name)) else {
                continue;
            };
            let value = to_sql(attribute.kind, value);
            match columns.iter().position(|other| *other == column) {
                Some(at) if values[at] == Sql::Null => values[at] = value,
                Some(_) => {}
                None => {
                    columns.push(column);
                    values.push(value);
                }
            }
        }
        (columns, values)
    }

    /// What is told of an object.
    pub(in crate::serve::api) fn show(&self, object: &Object) -> Object {
        let mut shown = Object::default();
        for attribute in self.attributes.iter().filter(|attribute| attribute.shown) {
            let value = object.0.get(attribute.name).cloned().unwrap_or_default();
            match attribute.nothing {
                Nothing::Null if value.as_array().is_some_and(Vec::is_empty) => {
                    shown.set(attribute.name, Value::Null);
                }
                Nothing::Absent if value.is_null() => {}
                _ => shown.set(attribute.name, value),
            }
        }
        shown
    }
}
