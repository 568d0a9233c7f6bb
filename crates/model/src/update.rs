//! The small change: one member's weight and administrative state, without a new document.

use super::{
    LoadBalancer, MemberId, PoolId, Refusal,
    document::{self, object::Object},
};

/// The body `{"member": {"weight": 10, "admin_state_up": true}}`: at least one of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberUpdate {
    weight: Option<u16>,
    admin_state_up: Option<bool>,
}

impl MemberUpdate {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Every fault in it. A member's other fields are refused: they come with a new document.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Refusal> {
        document::parse(bytes, |o| o.require("member", |o, name| o.object(name, member)))
    }

    /// The new `weight`, 0 to 256.
    pub fn weight(&self) -> Option<u16> {
        self.weight
    }

    /// The new `admin_state_up`.
    pub fn admin_state_up(&self) -> Option<bool> {
        self.admin_state_up
    }
}

fn member(o: &mut Object<'_>) -> Option<MemberUpdate> {
    const FIELDS: &[&str] = &["weight", "admin_state_up"];
    o.refuse_others(FIELDS, "cannot be changed here, only weight and admin_state_up");
    if !FIELDS.iter().any(|name| o.has(name)) {
        o.own_fault("must have at least one of weight, admin_state_up");
    }
    Some(MemberUpdate {
        weight: document::pool::weight(o),
        admin_state_up: o.has("admin_state_up").then(|| o.flag("admin_state_up", true)),
    })
}

impl LoadBalancer {
    /// Changes a member. False when it is as asked already.
    ///
    /// # Errors
    /// When there is no such member; nothing is changed then.
    pub fn set_member(
        &mut self,
        pool: PoolId,
        member: MemberId,
        update: &MemberUpdate,
    ) -> Result<bool, UnknownMember> {
        let pool = self.pools.iter_mut().find(|p| p.id == pool).ok_or(UnknownMember::Pool(pool))?;
        let member = pool.members.iter_mut().find(|m| m.id == member).ok_or(UnknownMember::Member(member))?;
        let weight = update.weight.unwrap_or(member.weight);
        let admin_state_up = update.admin_state_up.unwrap_or(member.admin_state_up);
        let changed = (weight, admin_state_up) != (member.weight, member.admin_state_up);
        (member.weight, member.admin_state_up) = (weight, admin_state_up);
        Ok(changed)
    }
}

/// There is no such member to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownMember {
    /// The load balancer has no such pool.
    #[error("no pool has the id {0}")]
    Pool(PoolId),
    /// The pool has no such member.
    #[error("no member of the pool has the id {0}")]
    Member(MemberId),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::arbitrary;

    fn refused(text: &str) -> String {
        MemberUpdate::from_json(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_body_has_weight_or_state_and_nothing_else() {
        let update = MemberUpdate::from_json(br#"{"member": {"weight": 0}}"#).unwrap();
        assert_eq!((update.weight(), update.admin_state_up()), (Some(0), None));
        let update =
            MemberUpdate::from_json(br#"{"member": {"admin_state_up": false, "weight": null}}"#).unwrap();
        assert_eq!((update.weight(), update.admin_state_up()), (None, Some(false)));

        assert_eq!(refused("{}"), "member: is required");
        assert_eq!(refused("[]"), "must be an object");
        assert_eq!(refused(r#"{"member": {}}"#), "member: must have at least one of weight, admin_state_up");
        assert_eq!(
            refused(r#"{"member": {"weight": 257, "admin_state_up": 1, "address": "192.0.2.1"}, "x": 1}"#),
            "member.address: cannot be changed here, only weight and admin_state_up; \
             member.weight: must be an integer from 0 to 256; \
             member.admin_state_up: must be true or false; \
             x: is not a field of this object"
        );
        assert!(refused(r#"{"member": {"weight": 1, "weight": 2}}"#).contains("given twice"));
    }

    #[test]
    fn a_member_changes_and_nothing_else() {
        let lb = (0..)
            .map(arbitrary::load_balancer)
            .find(|lb| lb.pools.iter().any(|p| p.members.len() > 1))
            .unwrap();
        let at = lb.pools.iter().position(|pool| pool.members.len() > 1).unwrap();
        let (pool, member) = (lb.pools[at].id, lb.pools[at].members[1].id);
        let update = MemberUpdate { weight: Some(200), admin_state_up: None };

        let mut changed = lb.clone();
        changed.pools[at].members[1].weight = 7;
        assert_eq!(changed.set_member(pool, member, &update), Ok(true));
        assert_eq!(changed.set_member(pool, member, &update), Ok(false));
        assert_eq!(
            changed.pools.iter().flat_map(|pool| &pool.members).find(|m| m.id == member).unwrap().weight,
            200
        );
        changed.pools[at].members[1].weight = lb.pools[at].members[1].weight;
        assert_eq!(changed, lb);

        let (no_pool, no_member) = (PoolId(uuid::Uuid::nil()), MemberId(uuid::Uuid::nil()));
        assert_eq!(changed.set_member(no_pool, member, &update), Err(UnknownMember::Pool(no_pool)));
        assert_eq!(changed.set_member(pool, no_member, &update), Err(UnknownMember::Member(no_member)));
    }
}
