//! Rate limits.

use std::time::Duration;

use super::{Generator, Shape};
use crate::{
    ListenerProtocol, RateLimitAction, RateLimitActionName, RateLimitMetric, RateLimitPolicy,
    RateLimitPolicyId, RateLimitQueue, RateLimitRule, RateLimitRuleId, TrustedProxies,
    document::rate_limit::enforced,
};

impl Generator {
    pub(super) fn rate_limit_policies(
        &mut self,
        shape: &Shape,
        protocol: ListenerProtocol,
    ) -> Vec<RateLimitPolicy> {
        if !shape.rate_limits {
            return Vec::new();
        }
        let policies = self.within(0..=3);
        (0..policies).filter_map(|_| self.rate_limit_policy(protocol)).collect()
    }

    /// One that is honoured, if there is any.
    fn rate_limit_policy(&mut self, protocol: ListenerProtocol) -> Option<RateLimitPolicy> {
        let action = self.pick(RateLimitActionName::ALL);
        let metrics: Vec<RateLimitMetric> = RateLimitMetric::ALL
            .iter()
            .copied()
            .filter(|metric| metric.is_of(protocol) && action.is_of(protocol))
            .filter(|metric| enforced(action, *metric).is_ok())
            .collect();
        if metrics.is_empty() {
            return None;
        }
        let first = self.pick(&metrics);
        let is_one = action == RateLimitActionName::Queue || first == RateLimitMetric::Packets;
        let rules = if is_one { 1 } else { self.within(1..=3) };
        let rules = (0..rules).map(|_| {
            let metric = if protocol.is_http() { self.pick(&metrics) } else { first };
            self.rate_limit_rule(metric)
        });
        let rules = rules.collect();
        let action = match action {
            RateLimitActionName::Deny => RateLimitAction::Deny,
            RateLimitActionName::Reject => RateLimitAction::Reject,
            RateLimitActionName::SilentDrop => RateLimitAction::SilentDrop,
            RateLimitActionName::Queue => RateLimitAction::Queue(RateLimitQueue {
                timeout: Duration::from_secs(self.within(1..=60) as u64),
                size: self.within(1..=100_000) as u32,
            }),
        };
        Some(RateLimitPolicy {
            id: RateLimitPolicyId(self.uuid()),
            name: self.name(),
            enabled: !self.one_in(6),
            action,
            rules,
        })
    }

    fn rate_limit_rule(&mut self, metric: RateLimitMetric) -> RateLimitRule {
        RateLimitRule {
            id: RateLimitRuleId(self.uuid()),
            name: self.name(),
            metric,
            threshold: self.within(1..=i32::MAX as usize) as u32,
            interval: Duration::from_secs(self.within(1..=86_400) as u64),
            urls: match metric {
                RateLimitMetric::RequestsPerUrl => {
                    self.pick(&[vec!["/x".to_owned()], vec!["/".to_owned(), "/a%20b".to_owned()]])
                }
                _ => Vec::new(),
            },
        }
    }

    pub(super) fn trusted_proxies(&mut self) -> TrustedProxies {
        TrustedProxies {
            networks: vec![self.address().into()],
            header: self.pick(&["X-Forwarded-For", "X-Real-IP"]).to_owned(),
        }
    }
}
