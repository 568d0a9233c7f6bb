//! What is never allowed.

use std::collections::{BTreeMap, BTreeSet};

use super::ground::World;
use crate::serve::{
    document,
    status::{AmphoraStatus, Topology},
    worker::rows,
};

impl World {
    /// Nothing is undone, nothing is left over, and all that was answered is there.
    pub(super) async fn check(&self, context: &str) {
        let tables = [
            "load_balancer",
            "listener",
            "pool",
            "member",
            "health_monitor",
            "l7policy",
            "l7rule",
            "rate_limit_policy",
            "rate_limit_rule",
        ];
        for table in tables {
            let query = format!("SELECT count(*) FROM {table} WHERE provisioning_status <> 'ACTIVE'");
            assert_eq!(self.count(&query).await, 0, "{table}: {context}");
        }
        assert_eq!(self.count("SELECT count(*) FROM work").await, 0, "{context}");
        let there: BTreeSet<String> = self.column("SELECT id FROM load_balancer").await.into_iter().collect();
        assert_eq!(there, self.state().answered, "those that were answered, and not deleted: {context}");
        let going = "SELECT count(*) FROM amphora WHERE status = 'PENDING_DELETE'";
        assert_eq!(self.count(going).await, 0, "nobody takes them down: {context}");
        self.check_ports(context).await;
        self.check_generations(context).await;
        let mut amphorae = self.db.read(|t| rows::all_amphorae(t)).await.unwrap();
        let state = self.state_of_machines();
        let named: BTreeSet<&String> = amphorae.iter().map(|one| &one.machine).collect();
        assert_eq!(named, state.keys().collect(), "{context}");
        assert!(state.values().all(|machine| machine.runs && !machine.hangs && !machine.cut), "{context}");
        let spares: Vec<_> = amphorae.extract_if(.., |one| one.load_balancer.is_none()).collect();
        assert!(spares.iter().all(|one| one.status == AmphoraStatus::Ready), "{context}");
        assert!(spares.iter().all(|one| state[&one.machine].document.is_none()), "{context}");
        let mut sorts = BTreeSet::from([Topology::Single]);
        for id in &there {
            let own: Vec<_> = amphorae.iter().filter(|one| one.load_balancer.as_ref() == Some(id)).collect();
            let subject = id.clone();
            let (lb, rendered) = self
                .db
                .read::<_, crate::error::Error, _>(move |t| {
                    Ok((rows::load_balancer(t, &subject)?.unwrap(), document::render(t, &subject)?.unwrap()))
                })
                .await
                .unwrap();
            sorts.insert(lb.topology);
            let count = if lb.topology == Topology::Single { 1 } else { 2 };
            assert_eq!(own.len(), count, "{context}");
            for one in &own {
                assert_eq!(one.applied, lb.generation, "{context}");
                let machine = &state[&one.machine];
                assert_eq!(machine.document.as_ref(), Some(&rendered.document), "{context}");
                assert_eq!(machine.load_balancer.as_ref(), Some(id), "{context}");
                assert_eq!(
                    machine.ports,
                    one.ports.iter().map(|port| port.id.clone()).collect(),
                    "{context}"
                );
                if let Some(other) = own.iter().find(|other| other.id != one.id) {
                    assert_eq!(machine.other, Some((other.id.clone(), one.role.unwrap())), "{context}");
                    assert_ne!(one.role, other.role, "{context}");
                }
            }
            let masters = own.iter().filter(|one| state[&one.machine].master).count();
            assert_eq!(masters, 1, "masters: {context}");
        }
        let wanted = self.state().spares;
        for sort in sorts {
            let count = spares.iter().filter(|one| one.topology == sort).count();
            assert_eq!(count, wanted, "spares of {sort}: {context}");
        }
    }

    /// Each address has one owner, which is there: that it is given once is the database's.
    async fn check_ports(&self, context: &str) {
        let orphans = "SELECT count(*) FROM port WHERE load_balancer_id IS NULL AND amphora_id IS NULL";
        assert_eq!(self.count(orphans).await, 0, "{context}");
        let vips = "SELECT count(*) FROM load_balancer l WHERE NOT EXISTS (SELECT 1 FROM port p WHERE p.id = l.vip_port_id
            AND p.ip_address = l.vip_address AND p.load_balancer_id = l.id)";
        assert_eq!(self.count(vips).await, 0, "{context}");
        let idle = "SELECT count(*) FROM port p JOIN amphora a ON a.id = p.amphora_id WHERE p.id <> a.vrrp_port_id AND (p.leaving
            OR NOT EXISTS (SELECT 1 FROM member m JOIN pool o ON o.id = m.pool_id WHERE o.load_balancer_id = a.load_balancer_id
                AND m.subnet_id = p.subnet_id))";
        assert_eq!(self.count(idle).await, 0, "nobody needs them: {context}");
        let members = "SELECT count(*) FROM port p JOIN member m ON m.address = p.ip_address WHERE p.amphora_id IS NOT NULL";
        assert_eq!(self.count(members).await, 0, "they are members' as well: {context}");
        let spares = "SELECT count(*) FROM port WHERE amphora_id IN (SELECT id FROM amphora WHERE load_balancer_id IS NULL)";
        assert_eq!(self.count(spares).await, 0, "{context}");
    }

    /// They only grow.
    pub(super) async fn check_generations(&self, context: &str) {
        let found: Vec<(String, i64)> = self
            .db
            .read::<_, crate::error::Error, _>(|t| {
                let mut query = t.prepare("SELECT id, generation FROM load_balancer")?;
                let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await
            .unwrap();
        let mut state = self.state();
        for (id, generation) in &found {
            let before = state.generations.get(id).copied().unwrap_or_default();
            assert!(*generation >= before, "{id} went from {before} to {generation}: {context}");
        }
        state.generations = found.into_iter().collect::<BTreeMap<_, _>>();
    }

    /// Those that the quota counts.
    pub(super) async fn counted(&self) -> usize {
        usize::try_from(self.count("SELECT count(*) FROM load_balancer").await).unwrap()
    }

    pub(super) async fn nothing_is_left(&self, context: &str) {
        for table in ["load_balancer", "listener", "pool", "member", "work", "amphora", "port"] {
            assert_eq!(self.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}: {context}");
        }
        assert!(self.state_of_machines().is_empty(), "{context}");
    }
}
