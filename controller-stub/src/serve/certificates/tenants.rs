//! Tenants' certificates, where an operator has put them: `PROJECT/NAME.pem` or `PROJECT/NAME.p12` is a project's own, by the project's id or name, and
//! `NAME.pem` everybody's, where there may be such.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use amphora_model::CertificateId;

use crate::serve::config::{AuthStrategy, Config, Project};

/// Where they are, and whose.
#[derive(Clone, Debug)]
pub struct Tenants {
    dir: PathBuf,
    /// Names of projects by their ids.
    projects: HashMap<String, String>,
    /// Whether there are certificates of everybody's.
    shared: bool,
}

impl Tenants {
    /// Those of a directory. `shared`: whoever names one that lies in the directory itself may have it.
    pub fn new<'a>(dir: &Path, projects: impl IntoIterator<Item = &'a Project>, shared: bool) -> Self {
        let named = projects.into_iter().map(|project| (project.id.clone(), project.name.clone()));
        Self { dir: dir.to_owned(), projects: named.collect(), shared }
    }

    /// Those that a configuration tells of. `[certificates] shared_storage`; unless it says so, everybody's are those of a service that
    /// does not know who asks.
    pub fn of(config: &Config, dir: &Path) -> Self {
        let shared = config.certificates.shared.unwrap_or(config.api.auth == AuthStrategy::NoAuth);
        Self::new(dir, config.users.iter().flat_map(|user| &user.projects), shared)
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file of a name, for a project: its own, or everybody's.
    pub fn find(&self, project: &str, name: &CertificateId) -> Option<PathBuf> {
        // What may be a name of a certificate may be one of a directory: no more than a name.
        let is_plain = |text: &&str| text.parse::<CertificateId>().is_ok();
        let named = self.projects.get(project).map(String::as_str);
        let own = [Some(project), named].into_iter().flatten().filter(is_plain).map(|own| self.dir.join(own));
        let all = own.chain(self.shared.then(|| self.dir.clone()));
        let files = all.flat_map(|dir| ["pem", "p12"].map(|kind| dir.join(format!("{name}.{kind}"))));
        files.into_iter().find(|path| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn who_names_anothers_has_none() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in
            [("1a/own.pem", "own"), ("shop/named.p12", "named"), ("all.pem", "all"), ("1a/all.pem", "own")]
        {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let shop = Project { id: "1a".to_owned(), name: "shop".to_owned() };
        for shared in [false, true] {
            let tenants = Tenants::new(dir.path(), [&shop], shared);
            let read = |project: &str, name: &str| {
                tenants.find(project, &name.parse().unwrap()).map(|path| fs::read_to_string(path).unwrap())
            };
            assert_eq!(read("1a", "own").as_deref(), Some("own"));
            assert_eq!(read("1a", "named").as_deref(), Some("named"));
            assert_eq!(read("1a", "all").as_deref(), Some("own"), "its own comes first");
            for other in ["2b", "", ".", "..", "../1a", "1a/../1a", "/etc"] {
                assert_eq!(read(other, "own"), None, "{other}");
                assert_eq!(read(other, "all").as_deref(), shared.then_some("all"), "{other}");
            }
        }
    }
}
