//! The Keystone that clients ask before they ask for anything else: tokens for users of the configuration, and a catalog.
//!
//! After a restart no token is good: clients are told 401, and ask for another.

mod tokens;

use std::{collections::HashMap, sync::Arc};

use argon2::{
    Argon2,
    password_hash::{PasswordVerifier, phc::PasswordHash},
};
use aws_lc_rs::hmac;
use hyper::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use self::tokens::{Token, Tokens};
use super::{
    attributes::Object,
    fault::Fault,
    request::{Answer, Query},
};
use crate::serve::{
    config::{Project, User},
    policies::{Context, Rule},
};

/// How long a token is good for, in seconds.
const LIFETIME: i64 = 3600;

/// Passwords that are verified at a time: each takes a processor, and memory, for as long as its hash wants.
const VERIFIED_AT_A_TIME: usize = 2;

/// Passwords that wait to be verified; more are refused, but for a few of each user.
const WAITING: usize = 256;

/// Passwords of one user that may wait however many others do.
const WAITING_IN_ANY_CASE: usize = 2;

/// Passwords of one user that wait, and of all names that there are not: who guesses keeps nobody else out.
const WAITING_OF_ONE: usize = 16;

/// Where everything of Keystone is.
const DOMAIN: &str = "default";

/// Users and their tokens.
#[derive(Debug)]
pub(super) struct Identity {
    users: Vec<User>,
    key: hmac::Key,
    tokens: Arc<Tokens>,
    turns: Semaphore,
    waiting: Semaphore,
    /// One for each user, and one for those that there are not.
    waiting_of_one: Vec<Semaphore>,
    /// What each user has last been let in with, signed: clients without tokens send it with each request.
    known: Mutex<HashMap<String, hmac::Tag>>,
}

/// A token that was good when a request with it came.
#[derive(Debug)]
pub(super) struct Leave {
    tokens: Arc<Tokens>,
    token: Token,
}

impl Leave {
    /// Whether it is good still.
    pub(super) fn is_good(&self, now: i64) -> bool {
        self.tokens.is_good(&self.token, now)
    }
}

/// What is told of a server's services.
struct Told<'a> {
    user: &'a User,
    project: &'a Project,
    method: &'a str,
    expires: i64,
    now: i64,
    base: &'a str,
}

impl Identity {
    /// Those of the configuration.
    pub(super) fn new(users: Vec<User>) -> Self {
        // Identifiers of version 4 are of the system's randomness, 122 bits each.
        let random: Vec<u8> = (0..4).flat_map(|_| *uuid::Uuid::new_v4().as_bytes()).collect();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random);
        Self {
            waiting_of_one: (0..=users.len()).map(|_| Semaphore::new(WAITING_OF_ONE)).collect(),
            users,
            tokens: Tokens::new(key.clone()).into(),
            key,
            turns: Semaphore::new(VERIFIED_AT_A_TIME),
            waiting: Semaphore::new(WAITING),
            known: Mutex::default(),
        }
    }

    /// Who has this name or id and this password.
    async fn verified(&self, user: &str, password: &str) -> Result<Option<&User>, Fault> {
        let at = self.users.iter().position(|other| other.name == user || other.id == user);
        let found = at.and_then(|at| self.users.get(at));
        let Some(someone) = found.or_else(|| self.any_user(user)) else { return Ok(None) };
        let tag = hmac::sign(&self.key, format!("{}\0{password}", someone.id).as_bytes());
        let is_known = |known: &hmac::Tag| known.as_ref() == tag.as_ref();
        if found.is_some() && self.known.lock().await.get(&someone.id).is_some_and(is_known) {
            return Ok(found);
        }
        let busy = |_| Fault::new(503, "Too many passwords are verified. Please try again.");
        let own = &self.waiting_of_one[at.unwrap_or(self.users.len())];
        let _own = own.try_acquire().map_err(busy)?;
        let in_any_case = own.available_permits() >= WAITING_OF_ONE - WAITING_IN_ANY_CASE;
        let _waiting = if in_any_case { None } else { Some(self.waiting.try_acquire().map_err(busy)?) };
        let _turn = self.turns.acquire().await.map_err(|_| Fault::new(503, "closing"))?;
        let (hash, password) = (someone.hash.clone(), password.to_owned());
        let is_right = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        });
        if !is_right.await.unwrap_or(false) || found.is_none() {
            return Ok(None);
        }
        self.known.lock().await.insert(someone.id.clone(), tag);
        Ok(found)
    }

    /// Likewise; who is nobody is told of in the log, and refused.
    async fn let_in(&self, user: &str, password: &str) -> Result<&User, Fault> {
        self.verified(user, password).await?.ok_or_else(|| {
            let reason = "no such user, or another password";
            tracing::warn!(user = beginning(user), reason, "somebody is not let in");
            unauthorized()
        })
    }

    /// Whose hash is computed for a name that there is not, so that nobody learns names by the time it takes: for one name always the
    /// same one's, for another's hash may take another time.
    fn any_user(&self, name: &str) -> Option<&User> {
        let tag = hmac::sign(&self.key, name.as_bytes());
        let number = tag.as_ref().iter().take(8).fold(0, |number, &byte| number << 8 | usize::from(byte));
        self.users.get(number.checked_rem(self.users.len())?)
    }

    /// Who sends a name and a password with a request (RFC 7617).
    pub(super) async fn basic(&self, headers: &HeaderMap) -> Result<Context, Fault> {
        let credentials = header(headers, "authorization")
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
            .and_then(|(_, text)| data_encoding::BASE64.decode(text.trim().as_bytes()).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((name, password)) = credentials.as_deref().and_then(|text| text.split_once(':')) else {
            return Err(unauthorized());
        };
        let user = self.let_in(name, password).await?;
        let asked = header(headers, "x-project-id");
        let project = user.projects.iter().find(|project| asked.is_none_or(|asked| is(project, asked)));
        Ok(context(user, project.ok_or_else(|| not_in(user, asked))?))
    }

    /// Who sends a token with a request.
    pub(super) fn token(&self, headers: &HeaderMap, now: i64) -> Result<Context, Fault> {
        let token = header(headers, "x-auth-token").ok_or_else(unauthorized)?;
        let (user, project, _) = self.read(token, now).ok_or_else(unauthorized)?;
        Ok(context(user, project))
    }

    /// The token that was sent with a request, for what takes longer than an answer.
    pub(super) fn leave(&self, headers: &HeaderMap, now: i64) -> Option<Leave> {
        let (.., token) = self.read(header(headers, "x-auth-token")?, now)?;
        Some(Leave { tokens: self.tokens.clone(), token })
    }

    /// Whom a token is for, and what it says.
    fn read(&self, token: &str, now: i64) -> Option<(&User, &Project, Token)> {
        let token = self.tokens.read(token, now)?;
        let user = self.users.iter().find(|other| other.id == token.user)?;
        let project = user.projects.iter().find(|other| other.id == token.project)?;
        Some((user, project, token))
    }

    /// Answers a request to Keystone. `path` is what follows `/v3/`; `now` in seconds since 1970.
    pub(super) async fn answer(
        &self,
        (method, path): (&Method, &[&str]),
        (base, query): (&str, &Query),
        (headers, body): (&HeaderMap, &[u8]),
        now: i64,
    ) -> Result<Answer, Fault> {
        let caller = || header(headers, "x-auth-token").and_then(|token| self.read(token, now));
        match (method.as_str(), path) {
            ("GET" | "HEAD", []) => Ok(Answer::new(200, json!({"version": version(base)}))),
            ("POST", ["auth", "tokens"]) => self.authenticate(base, body, now).await,
            ("GET" | "HEAD" | "DELETE", ["auth", "tokens"]) => {
                let (asking, ..) = caller().ok_or_else(unauthorized)?;
                let token = header(headers, "x-subject-token");
                let found = token.and_then(|token| self.read(token, now));
                let (user, project, token) =
                    found.ok_or_else(|| Fault::new(404, "Failed to validate token"))?;
                if method == Method::DELETE {
                    if asking.id != user.id && !is_administrator(asking) {
                        return Err(Fault::new(
                            403,
                            "You are not authorized to perform the requested action.",
                        ));
                    }
                    self.tokens.end(token, now);
                    return Ok(Answer::empty(204));
                }
                let expires = token.expires;
                let told = Told { user, project, method: "password", expires, now: expires - LIFETIME, base };
                Ok(Answer::new(200, told.body()))
            }
            ("GET", ["auth", "catalog"]) => {
                caller().ok_or_else(unauthorized)?;
                Ok(Answer::new(200, json!({"catalog": catalog(base), "links": {}})))
            }
            ("GET", ["projects"] | ["auth", "projects"]) => {
                let (user, ..) = caller().ok_or_else(unauthorized)?;
                let own = path.len() > 1;
                let projects = self.projects(user, own);
                let asked = projects
                    .iter()
                    .filter(|project| query.get("name").is_none_or(|name| name == project.name));
                let projects: Vec<_> = asked.map(|project| project_of(project)).collect();
                Ok(Answer::new(200, json!({"projects": projects, "links": {}})))
            }
            ("GET", ["projects", id]) => {
                let (user, ..) = caller().ok_or_else(unauthorized)?;
                let project = self.projects(user, false).into_iter().find(|project| project.id == *id);
                let project =
                    project.ok_or_else(|| Fault::new(404, format!("Could not find project: {id}.")))?;
                Ok(Answer::new(200, json!({"project": project_of(project)})))
            }
            _ => Err(Fault::new(404, "The resource could not be found.")),
        }
    }

    /// The projects that a user may see: who sees what all of them have sees which there are, unless only the own ones are asked for.
    /// Clients look up by this list whose quotas are to be set.
    fn projects<'a>(&'a self, user: &'a User, own: bool) -> Vec<&'a Project> {
        let of_all = || {
            let context = Context { roles: user.roles.clone(), ..Context::default() };
            context.may(Rule::ReadQuotaGlobal, None)
        };
        if own || !of_all() {
            return user.projects.iter().collect();
        }
        let mut all: Vec<&Project> = self.users.iter().flat_map(|user| &user.projects).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all.dedup_by(|one, other| one.id == other.id);
        all
    }

    /// `POST` of a user's name and password: a token.
    async fn authenticate(&self, base: &str, body: &[u8], now: i64) -> Result<Answer, Fault> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|_| Fault::new(400, "Request is not in valid JSON format"))?;
        let auth = &body["auth"];
        let identity = &auth["identity"];
        let methods = identity["methods"].as_array().map_or(&[][..], Vec::as_slice);
        let (user, method, expires) = if methods.iter().any(|method| method == "password") {
            let said = &identity["password"]["user"];
            let name = said["name"].as_str().or(said["id"].as_str()).unwrap_or_default();
            let password = said["password"].as_str().unwrap_or_default();
            (self.let_in(name, password).await?, "password", now + LIFETIME)
        } else if methods.iter().any(|method| method == "token") {
            let token = identity["token"]["id"].as_str().unwrap_or_default();
            // Who has got hold of a token has it no longer than its owner.
            let (user, _, token) = self.read(token, now).ok_or_else(unauthorized)?;
            (user, "token", token.expires)
        } else {
            return Err(unauthorized());
        };
        let asked = &auth["scope"]["project"];
        let asked = asked["id"].as_str().or(asked["name"].as_str());
        let project = user.projects.iter().find(|project| asked.is_none_or(|asked| is(project, asked)));
        let project = project.ok_or_else(|| not_in(user, asked))?;
        let mut answer = Answer::new(201, Told { user, project, method, expires, now, base }.body());
        answer.headers.push(("x-subject-token", self.tokens.write(&user.id, &project.id, expires)));
        Ok(answer)
    }
}

impl Told<'_> {
    fn body(&self) -> Value {
        let domain = json!({"id": DOMAIN, "name": "Default"});
        let roles: Vec<_> = self.user.roles.iter().map(|role| json!({"id": role, "name": role})).collect();
        json!({"token": {
            "methods": [self.method],
            "user": {"id": self.user.id, "name": self.user.name, "domain": domain, "password_expires_at": null},
            "project": {"id": self.project.id, "name": self.project.name, "domain": domain},
            "is_domain": false,
            "roles": roles,
            "catalog": catalog(self.base),
            "expires_at": time(self.expires),
            "issued_at": time(self.now),
            "audit_ids": [],
        }})
    }
}

/// A time as Keystone tells it.
fn time(seconds: i64) -> String {
    let time = super::change::iso_of(seconds.saturating_mul(1000));
    format!("{}.000000Z", time.as_str().unwrap_or_default())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

fn is_administrator(user: &User) -> bool {
    user.roles.iter().any(|role| role.eq_ignore_ascii_case("admin"))
}

fn is(project: &Project, asked: &str) -> bool {
    project.id == asked || project.name == asked
}

/// What somebody said who he is, as long as names are.
fn beginning(text: &str) -> String {
    text.chars().take(64).collect()
}

/// What a user is told who asks for a project that is not his, or that there is not.
fn not_in(user: &User, project: Option<&str>) -> Fault {
    let project = beginning(project.unwrap_or_default());
    tracing::warn!(
        user = user.name,
        project,
        reason = "not a project of this user",
        "somebody is not let in"
    );
    unauthorized()
}

fn context(user: &User, project: &Project) -> Context {
    Context {
        project_id: Some(project.id.clone()),
        user_id: Some(user.id.clone()),
        roles: user.roles.clone(),
        is_admin: false,
    }
}

/// What who is not known is told.
pub(super) fn unauthorized() -> Fault {
    Fault::new(401, "The request you have made requires authentication.")
}

/// A project while nobody is asked who it is: there is one of each name.
pub(super) fn any_project(path: &[&str], query: &Query) -> Result<Answer, Fault> {
    let project = |name: &str| project_of(&Project { id: name.to_owned(), name: name.to_owned() });
    match (path, query.get("name")) {
        (["projects", id], _) => Ok(Answer::new(200, json!({"project": project(id)}))),
        (["projects"], Some(name)) => Ok(Answer::new(200, json!({"projects": [project(name)], "links": {}}))),
        _ => Err(Fault::new(404, "The resource could not be found.")),
    }
}

/// A fault as Keystone tells it.
pub(super) fn refused(fault: &Fault) -> Answer {
    let title = match fault.status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        _ => "Service Unavailable",
    };
    Answer::new(fault.status, json!({"error": {"code": fault.status, "title": title, "message": fault.text}}))
}

fn version(base: &str) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": format!("{base}/v3/")}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    })
}

fn project_of(project: &Project) -> Value {
    let mut told = Object::default();
    told.set("id", project.id.as_str());
    told.set("name", project.name.as_str());
    told.set("domain_id", DOMAIN);
    told.set("enabled", true);
    told.set("is_domain", false);
    Value::Object(told.0)
}

/// Where clients find what.
fn catalog(base: &str) -> Value {
    let service = |kind: &str, name: &str, url: String| {
        let endpoint = |interface: &str| {
            json!({
                "id": format!("{name}-{interface}"),
                "interface": interface,
                "region": "RegionOne",
                "region_id": "RegionOne",
                "url": url,
            })
        };
        let endpoints = ["public", "internal", "admin"].map(endpoint);
        json!({"id": name, "type": kind, "name": name, "endpoints": endpoints})
    };
    json!([
        service("load-balancer", "octavia", base.to_owned()),
        service("network", "neutron", base.to_owned()),
        service("identity", "keystone", format!("{base}/v3")),
    ])
}
