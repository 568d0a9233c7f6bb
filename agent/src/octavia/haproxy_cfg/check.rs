//! The last look at what a text means: that of the parser of documents, whose faults have paths. Here these are lines.

use amphora_model::{LoadBalancer, Pool};

use super::{Fault, draft::Draft, words::Place};

impl<'t> Draft<'t> {
    /// The load balancer as its document says it.
    pub(super) fn checked(&self, load_balancer: &LoadBalancer) -> Result<LoadBalancer, Fault> {
        LoadBalancer::from_value(&load_balancer.to_json()).map_err(|refusal| {
            let Some(fault) = refusal.faults.into_iter().next() else { return Fault::whole("is refused") };
            let path = fault.path.strip_prefix("loadbalancer.").unwrap_or(&fault.path);
            let field = path.rsplit('.').next().unwrap_or_default();
            let reason = match field.ends_with(']') {
                true => fault.reason,
                false => format!("{field} {}", fault.reason),
            };
            match self.place(path, &load_balancer.pools) {
                Some(place) => place.fault(reason),
                None => Fault::whole(reason),
            }
        })
    }

    /// Where the object stands that a path names, or the one that it is in.
    fn place(&self, path: &str, pools: &[Pool]) -> Option<Place<'t>> {
        let mut steps = path.split('.').filter_map(|step| {
            let (name, index) = step.split_once('[')?;
            Some((name, index.strip_suffix(']')?.parse::<usize>().ok()?))
        });
        match steps.next()? {
            ("listeners", at) => {
                let listener = self.listeners.get(at)?;
                let Some(("l7policies", at)) = steps.next() else { return Some(listener.place) };
                let policy = listener.policies.get(at)?;
                match steps.next() {
                    Some(("rules", at)) => policy.rules.get(at).copied(),
                    _ => Some(policy.action),
                }
            }
            ("pools", at) => {
                let id = pools.get(at)?.id;
                let pool = self.pools.iter().find(|pool| pool.name.pool == id)?;
                match steps.next() {
                    Some(("members", at)) => pool.servers.get(at).map(|(place, _)| *place),
                    _ => Some(pool.place),
                }
            }
            _ => self.listeners.first().map(|listener| listener.place),
        }
    }
}
