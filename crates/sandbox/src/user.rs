//! The user that a program runs as.

use std::io;

use nix::{
    sys::prctl,
    unistd::{Gid, Uid, User, setgid, setgroups, setuid},
};

/// A user of this system, and its own group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// The user of this name.
    ///
    /// # Errors
    /// `NotFound` when there is none; else as the system's user database says.
    pub fn named(name: &str) -> io::Result<Self> {
        let user = User::from_name(name)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no such user: {name}")))?;
        Ok(Self { name: user.name, uid: user.uid, gid: user.gid })
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user's id.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// The id of the user's own group.
    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// Becomes this user, in its own group alone. Permitted capabilities stay until they are given up.
    pub(crate) fn assume(&self) -> io::Result<()> {
        let steps: [(&str, &dyn Fn() -> nix::Result<()>); 4] = [
            ("keep capabilities", &|| prctl::set_keepcaps(true)),
            ("take on its group alone", &|| setgroups(&[self.gid])),
            ("take on its group", &|| setgid(self.gid)),
            ("take on its user id", &|| setuid(self.uid)),
        ];
        steps.into_iter().try_for_each(|(what, step)| {
            step().map_err(|error| {
                let reason = format!("to become the user {} takes root: cannot {what}: {error}", self.name);
                io::Error::new(io::Error::from(error).kind(), reason)
            })
        })
    }
}
