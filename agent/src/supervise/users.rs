//! Whom the proxy and the VRRP daemon run as.

use std::{fs, io};

use amphora_sandbox::Account;
use caps::{CapSet, Capability};
use nix::unistd::{Uid, geteuid};

use crate::config::{Config, Topology};

/// Whom the proxy runs as where the configuration does not say.
const PROXY: &str = "amphora-proxy";

/// Whom the VRRP daemon runs as where the configuration does not say.
const VRRP: &str = "amphora-vrrp";

/// For a system on which neither a package nor an image has made these.
const NOBODY: &str = "nobody";

/// What it takes to start a program as another user and to give it its files, and to stop it.
const FOR_OTHERS: [Capability; 4] =
    [Capability::CAP_CHOWN, Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_KILL];

/// The users of the two programs. `None` is the agent's own: an agent that is not root has one for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Whom the proxy runs as.
    pub proxy: Option<Account>,
    /// Whom the VRRP daemon runs as.
    pub vrrp: Option<Account>,
}

impl Users {
    /// The users that supervised programs get: those that the configuration names, or the usual ones.
    ///
    /// # Errors
    /// When there is no such user, or the agent may not start programs as it.
    pub fn find(config: &Config) -> io::Result<Self> {
        let own = geteuid();
        let users = Self {
            proxy: find(own, config.proxy_user.as_deref(), PROXY)?,
            // A single amphora has no daemon to run as one that is not named.
            vrrp: match (config.topology, config.vrrp_user.as_deref()) {
                (Topology::Single, None) => None,
                (_, named) => find(own, named, VRRP)?,
            },
        };
        let accounts: Vec<_> = users.proxy.iter().chain(&users.vrrp).collect();
        if !accounts.is_empty() {
            must_be_mapped(&accounts, &mapping("uid_map"), &mapping("gid_map"))?;
            must_have(|capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false))?;
        }
        Ok(users)
    }

    /// The users that programs have which somebody else starts, such as systemd: those that the configuration names.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn named(config: &Config) -> io::Result<Self> {
        let account = |name: &Option<String>| name.as_deref().map(Account::named).transpose();
        Ok(Self { proxy: account(&config.proxy_user)?, vrrp: account(&config.vrrp_user)? })
    }
}

/// A container's root may have less than root. What is missing shows late otherwise: when a program is started for the first time,
/// or is to end and cannot be told.
fn must_have(has: impl Fn(Capability) -> bool) -> io::Result<()> {
    let missing: Vec<_> = FOR_OTHERS.into_iter().filter(|it| !has(*it)).map(|it| it.to_string()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let reason = format!("{} missing; an agent that is not root needs none of them", missing.join(", "));
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// The users and groups of this user namespace; what cannot be read is an ordinary system's, all of them.
#[expect(clippy::disallowed_methods, reason = "procfs, at the start")]
fn mapping(file: &str) -> String {
    fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_else(|_| format!("0 0 {}", u32::MAX))
}

/// A container without root may have one user alone: nobody can become another, whatever its capabilities.
fn must_be_mapped(accounts: &[&Account], users: &str, groups: &str) -> io::Result<()> {
    let missing =
        accounts.iter().find(|it| !maps(users, it.uid().as_raw()) || !maps(groups, it.gid().as_raw()));
    let Some(account) = missing else { return Ok(()) };
    let (name, uid) = (account.name(), account.uid());
    let reason =
        format!("this user namespace does not have {name} ({uid}); proxy_user or vrrp_user can be root's");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// Whether a map of user_namespaces(7), lines of first id inside, first id outside, number of ids, has an id.
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) = (fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        id.checked_sub(first).is_some_and(|offset| offset < count)
    })
}

fn find(own: Uid, named: Option<&str>, usual: &str) -> io::Result<Option<Account>> {
    match named {
        Some(name) => {
            let account = Account::named(name)?;
            if account.uid() == own {
                Ok(None)
            } else if own.is_root() {
                Ok(Some(account))
            } else {
                let reason = format!("to start a program as {name} takes root");
                Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
            }
        }
        None if !own.is_root() => Ok(None),
        None => match Account::named(usual) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!("there is no user {usual}; its program runs as {NOBODY}");
                Account::named(NOBODY).map(Some)
            }
            found => found.map(Some),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ROOT: Uid = Uid::from_raw(0);

    #[test]
    fn root_gives_its_programs_another_user() {
        let name = |account: Option<Account>| account.map(|account| account.name().to_owned());
        assert_eq!(name(find(ROOT, None, "no-such-user").unwrap()).as_deref(), Some("nobody"));
        assert_eq!(name(find(ROOT, Some("daemon"), "nobody").unwrap()).as_deref(), Some("daemon"));
        assert_eq!(name(find(ROOT, None, "daemon").unwrap()).as_deref(), Some("daemon"));
        assert!(find(ROOT, Some("no-such-user"), "nobody").is_err());
    }

    #[test]
    fn a_root_that_may_not_start_programs_as_others_says_what_it_lacks() {
        must_have(|_| true).unwrap();
        let error = must_have(|capability| capability != Capability::CAP_KILL).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(error.to_string(), "CAP_KILL missing; an agent that is not root needs none of them");
        let error = must_have(|_| false).unwrap_err().to_string();
        assert!(error.starts_with("CAP_CHOWN, CAP_SETUID, CAP_SETGID, CAP_KILL missing;"), "{error}");
    }

    #[test]
    fn a_user_who_is_not_in_this_user_namespace_is_named() {
        let daemon = Account::named("daemon").unwrap();
        let (all, one) = ("         0          0 4294967295\n", "         0       1000          1\n");
        must_be_mapped(&[&daemon], all, all).unwrap();
        for (users, groups) in [(one, all), (all, one), ("", all)] {
            let error = must_be_mapped(&[&daemon], users, groups).unwrap_err().to_string();
            assert!(error.starts_with("this user namespace does not have daemon (1);"), "{error}");
        }
        let several = "0 1000 1\n1 100000 65536\n";
        assert!([0, 1, 65536].into_iter().all(|id| maps(several, id)));
        assert!(!maps(several, 65537));
    }

    #[test]
    fn root_that_is_named_stays_as_it_is() {
        assert_eq!(find(ROOT, Some("root"), "daemon").unwrap(), None);
    }

    #[test]
    fn others_have_their_own_user_alone() {
        let own = Account::named("daemon").unwrap();
        assert_eq!(find(own.uid(), None, "nobody").unwrap(), None);
        assert_eq!(find(own.uid(), Some("daemon"), "nobody").unwrap(), None);
        let error = find(own.uid(), Some("root"), "nobody").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
