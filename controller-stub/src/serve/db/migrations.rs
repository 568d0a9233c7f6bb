//! The schema by numbers: `user_version` of the file says how many of these it has seen.

use rusqlite::{Connection, TransactionBehavior};

use super::{Error, events};

/// What makes version `n + 1` out of version `n`.
const STEPS: &[fn() -> String] = &[
    || include_str!("migrations/0001.sql").to_owned() + &events::triggers(),
    || include_str!("migrations/0002.sql").to_owned(),
    || include_str!("migrations/0003.sql").to_owned(),
    || include_str!("migrations/0004.sql").to_owned() + &events::triggers_of_limits(),
    || include_str!("migrations/0005.sql").to_owned(),
    || include_str!("migrations/0006.sql").to_owned(),
];

/// Whether a database is of the present version.
///
/// # Errors
/// [`Error::Newer`]; [`Error::Unusable`] when it is of an earlier one.
pub(super) fn check(connection: &Connection) -> Result<(), Error> {
    let known = STEPS.len();
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match usize::try_from(found).unwrap_or(usize::MAX) {
        found if found > known => Err(Error::Newer { found, known }),
        found if found < known => Err(Error::Unusable(format!(
            "it is of version {found}, and `serve` of this release makes {known} of it"
        ))),
        _ => Ok(()),
    }
}

/// Brings a database to the present version, one transaction for each step.
///
/// # Errors
/// [`Error::Newer`]: a later release has written it. [`Error::Sql`]: a step failed, and what it did is undone.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let known = STEPS.len();
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let version = usize::try_from(version).unwrap_or(usize::MAX);
        if version > known {
            return Err(Error::Newer { found: version, known });
        }
        let Some(step) = STEPS.get(version) else { return Ok(()) };
        transaction.execute_batch(&step())?;
        transaction.pragma_update(None, "user_version", i64::try_from(version + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
}
