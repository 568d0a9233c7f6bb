//! `[users]`: who may use the API where it asks who it is, one option each: projects, roles, and the password hashed by argon2id.
//!
//! ```text
//! [users]
//! alice = shop,test member $argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$..
//! ```
//!
//! The first project is that of who names none. `NAME:ID` is a project of an id that there is already, as of what was made while nobody
//! was asked who it is. A value is taken as it stands: `$` begins no reference here.

use std::fmt;

use amphora_ini::reader::{Reader, error};
use argon2::password_hash::phc::PasswordHash;

use super::{ConfigError, networks::id};
use crate::serve::policies::ROLES;

/// The section.
const SECTION: &str = "users";

/// The most memory that a hash may take, in KiB, and the most passes: whoever asks makes this program take them.
const MOST: (u32, u32) = (262_144, 16);

/// Somebody who may use the API.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Made of the name.
    pub id: String,
    /// The option's name.
    pub name: String,
    /// At least one.
    pub projects: Vec<Project>,
    /// The roles in each of them, at least one.
    pub roles: Vec<String>,
    /// The password, hashed.
    pub hash: String,
}

/// What load balancers belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Made of the name, where none is given.
    pub id: String,
    /// Its name.
    pub name: String,
}

impl fmt::Debug for User {
    /// Leaves the hash out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("projects", &self.projects)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

impl Project {
    fn new(name: &str) -> Self {
        Self { id: id(&["project", name]).simple().to_string(), name: name.to_owned() }
    }

    /// What a user's option says: a name, or a name and an id.
    fn read(text: &str) -> Result<Self, String> {
        let Some((name, id)) = text.split_once(':') else { return Ok(Self::new(text)) };
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || id.is_empty() || id.len() > ID || !id.chars().all(fits) {
            return Err(format!(
                "{text:?} is no project and its id: {ID} letters, digits, hyphens and underscores at most"
            ));
        }
        Ok(Self { id: id.to_owned(), name: name.to_owned() })
    }
}

/// The longest id of a project, in characters.
const ID: usize = 36;

/// Why a user's projects cannot be beside those of others: one of them has the name and not the id, or the id and not the name.
fn at_odds(user: &User, others: &[User]) -> Result<(), String> {
    let known: Vec<&Project> = others.iter().chain([user]).flat_map(|user| &user.projects).collect();
    for one in &user.projects {
        let other = known.iter().find(|other| (other.name == one.name) != (other.id == one.id));
        if let Some(other) = other {
            let [one, other] = [one, *other].map(|it| format!("{}:{}", it.name, it.id));
            return Err(format!("project {one} is also {other}"));
        }
    }
    Ok(())
}

/// All of them.
pub(super) fn read(read: &Reader<'_>) -> Result<Vec<User>, ConfigError> {
    let mut users: Vec<User> = Vec::new();
    for assignment in read.ini.assignments().iter().filter(|assignment| assignment.section == SECTION) {
        let user = user(&assignment.name, &assignment.value)
            .map_err(|reason| error(SECTION, &assignment.name, Some(assignment.place.clone()), reason))?;
        users.retain(|other| other.name != user.name);
        at_odds(&user, &users)
            .map_err(|reason| error(SECTION, &user.name, Some(assignment.place.clone()), reason))?;
        users.push(user);
    }
    Ok(users)
}

/// A line for each who may do nothing. As in Keystone roles are of many services, and somebody may have none that counts here; more likely
/// one is mistyped.
pub(super) fn remarks(users: &[User]) -> Vec<String> {
    let permits = |role: &String| ROLES.iter().any(|known| known.eq_ignore_ascii_case(role));
    let idle = users.iter().filter(|user| !user.roles.iter().any(permits));
    let line = |user: &User| {
        let (had, known) = (user.roles.join(", "), ROLES.join(", "));
        format!("[{SECTION}] {}: has no role that permits anything: {had}; those that do: {known}", user.name)
    };
    idle.map(line).collect()
}

fn user(name: &str, text: &str) -> Result<User, String> {
    let [projects, roles, hash] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err("must be projects, roles and a hash, like `shop member $argon2id$..`".to_owned());
    };
    let names = |list: &str| -> Vec<String> {
        list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let (projects, roles) = (names(projects), names(roles));
    if projects.is_empty() || roles.is_empty() {
        return Err("has no project, or no role".to_owned());
    }
    let parsed = PasswordHash::new(hash).map_err(|reason| {
        format!("the third word is no hash ({reason}); `printf %s PASSWORD | argon2 SALT -id -e` makes one")
    })?;
    if parsed.algorithm.as_str() != "argon2id" {
        return Err(format!("the hash is of {}, and not of argon2id", parsed.algorithm));
    }
    let cost = argon2::Params::try_from(&parsed).map_err(|reason| format!("the hash: {reason}"))?;
    if cost.m_cost() > MOST.0 || cost.t_cost() > MOST.1 {
        return Err(format!("the hash takes more than m={},t={}", MOST.0, MOST.1));
    }
    Ok(User {
        id: id(&["user", name]).simple().to_string(),
        name: name.to_owned(),
        projects: projects.iter().map(|text| Project::read(text)).collect::<Result<_, _>>()?,
        roles,
        hash: hash.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Config;

    const HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNoaGFzaA";

    #[test]
    fn users_have_projects_roles_and_a_hash() {
        let config = Config::parse(&format!("[users]\nalice = shop,test member,reader {HASH}\n")).unwrap();
        let [alice] = &config.users[..] else { panic!() };
        assert_eq!(
            (alice.name.as_str(), alice.projects[1].name.as_str(), alice.roles.len()),
            ("alice", "test", 2)
        );
        assert_eq!(alice.projects[0].id.len(), 32);
        assert!(!format!("{config:?}").contains("argon2"), "no hash in a log");
        for (text, expected) in [
            ("a = shop member\n".to_owned(), "must be projects, roles and a hash"),
            (format!("a = , member {HASH}\n"), "has no project"),
            ("a = shop member secret\n".to_owned(), "the third word is no hash"),
            ("a = shop member $5$x$y\n".to_owned(), "hash"),
            (format!("a = shop member {}\n", HASH.replace("m=64", "m=4194304")), "takes more than"),
            (format!("a = shop member {}\n", HASH.replace("argon2id", "argon2i")), "not of argon2id"),
        ] {
            let error = Config::parse(&format!("[users]\n{text}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let all = Config::parse(&format!(
            "[users]\na = shop:default member {HASH}\nb = shop:default reader {HASH}\n"
        ));
        let all = all.unwrap();
        let project = &all.users[1].projects[0];
        assert_eq!(
            (project.name.as_str(), project.id.as_str()),
            ("shop", "default"),
            "what was there before users were"
        );
        for (word, other, expected) in [
            (":default", "x", "is no project and its id"),
            ("shop:", "x", "is no project and its id"),
            ("shop:../x", "x", "is no project and its id"),
            ("shop:default", "shop", "project shop:"),
            ("shop:default", "other:default", "is also shop:default"),
        ] {
            let text = format!("[users]\na = {word} member {HASH}\nb = {other} member {HASH}\n");
            let error = Config::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{word}: {error}");
        }
        let both = Config::parse(&format!("[users]\na = shop Member,of_another_service {HASH}\n")).unwrap();
        assert_eq!(both.users[0].roles.len(), 2);
        assert_eq!(both.remarks, [""; 0]);
        let config = Config::parse(&format!("[users]\na = shop membr,owner {HASH}\n")).unwrap();
        let told = "[users] a: has no role that permits anything: membr, owner; those that do: admin, member";
        assert!(matches!(&config.remarks[..], [one] if one.starts_with(told)), "{:?}", config.remarks);
        let nobody = Config::parse("[api_settings]\nauth_strategy = keystone\n").unwrap_err().to_string();
        assert!(nobody.contains("[users]"), "{nobody}");
    }
}
