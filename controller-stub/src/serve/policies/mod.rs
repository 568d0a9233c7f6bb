//! Who may do what: `octavia.policies` with Keystone's default roles, and the older `load-balancer_*` roles beside them.

/// The roles that permit something.
pub const ROLES: [&str; 8] = [
    "admin",
    "member",
    "reader",
    "load-balancer_admin",
    "load-balancer_member",
    "load-balancer_observer",
    "load-balancer_global_observer",
    "load-balancer_quota_admin",
];

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The project that the caller speaks for.
    pub project_id: Option<String>,
    /// The user, when one is known.
    pub user_id: Option<String>,
    /// The roles in that project.
    pub roles: Vec<String>,
    /// Whether everything is permitted: nobody is asked who it is.
    pub is_admin: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `load-balancer:read`.
    Read,
    /// `load-balancer:read-global`: of whatever project.
    ReadGlobal,
    /// `load-balancer:write`.
    Write,
    /// `load-balancer:read-quota`.
    ReadQuota,
    /// `load-balancer:read-quota-global`.
    ReadQuotaGlobal,
    /// `load-balancer:write-quota`.
    WriteQuota,
    /// `load-balancer:admin`.
    Admin,
}

impl Context {
    /// Whether a rule permits this caller something of a project.
    pub fn may(&self, rule: Rule, project: Option<&str>) -> bool {
        let admin = self.is_admin || self.has(&["admin", "load-balancer_admin"]);
        let owner = project.is_some() && project == self.project_id.as_deref();
        let member = owner && self.has(&["member", "load-balancer_member"]);
        let reader = owner && self.has(&["reader", "load-balancer_observer"]);
        let observer = self.has(&["load-balancer_global_observer"]);
        let quota_admin = self.has(&["load-balancer_quota_admin"]);
        admin
            || match rule {
                Rule::Read => reader || member || observer,
                Rule::ReadGlobal => observer,
                Rule::Write => member,
                Rule::ReadQuota => reader || member || observer || quota_admin,
                Rule::ReadQuotaGlobal => observer || quota_admin,
                Rule::WriteQuota => quota_admin,
                Rule::Admin => false,
            }
    }

    fn has(&self, roles: &[&str]) -> bool {
        self.roles.iter().any(|role| roles.iter().any(|other| role.eq_ignore_ascii_case(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_permits_something_and_no_other_does() {
        let may = |role: &str| RULES.iter().any(|rule| context("p", &[role]).may(*rule, Some("p")));
        assert!(ROLES.iter().all(|role| may(role)));
        assert!(!may("membr"));
    }

    fn context(project: &str, roles: &[&str]) -> Context {
        Context {
            project_id: Some(project.to_owned()),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            ..Context::default()
        }
    }

    const RULES: [Rule; 7] = [
        Rule::Read,
        Rule::ReadGlobal,
        Rule::Write,
        Rule::ReadQuota,
        Rule::ReadQuotaGlobal,
        Rule::WriteQuota,
        Rule::Admin,
    ];

    #[test]
    fn roles_permit_what_octavia_s_policies_say() {
        for (roles, own, other) in [
            (&[][..], "-------", "-------"),
            (&["reader"], "R--Q---", "-------"),
            (&["member"], "R-WQ---", "-------"),
            (&["load-balancer_member"], "R-WQ---", "-------"),
            (&["load-balancer_observer"], "R--Q---", "-------"),
            (&["load-balancer_global_observer"], "RG-QH--", "RG-QH--"),
            (&["load-balancer_quota_admin"], "---QHK-", "---QHK-"),
            (&["Admin"], "RGWQHKA", "RGWQHKA"),
            (&["load-balancer_admin"], "RGWQHKA", "RGWQHKA"),
        ] {
            let context = context("p", roles);
            for (project, expected) in [(Some("p"), own), (Some("q"), other), (None, other)] {
                let may: String = RULES
                    .iter()
                    .zip("RGWQHKA".chars())
                    .map(|(&rule, letter)| if context.may(rule, project) { letter } else { '-' })
                    .collect();
                assert_eq!(may, expected, "{roles:?} of p, in {project:?}");
            }
        }
    }
}
