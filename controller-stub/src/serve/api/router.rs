//! Which handler a request is for.

use hyper::Method;

use super::{
    attributes::{
        AMPHORA, AVAILABILITY_ZONE, AVAILABILITY_ZONE_PROFILE, FLAVOR, FLAVOR_PROFILE, HEALTH_MONITOR,
        L7POLICY, L7RULE, LISTENER, LOAD_BALANCER, MEMBER, POOL, QUOTA, RATE_LIMIT_POLICY, RATE_LIMIT_RULE,
        Resource,
    },
    fault::Fault,
    request::{Answer, decode},
    resources::{
        self, Names, amphorae, flavors, health_monitors, l7policies, l7rules, listeners, load_balancers,
        members, networks, pools, ports, providers, quotas, rate_limits, statistics,
    },
    scope::Scope,
};

/// What answers a request. The names are those that the path has where a route has `{}`.
pub(super) type Handler = fn(&Scope<'_>, &'static Resource, &Names<'_>) -> Result<Answer, Fault>;

/// One kind of request.
pub(super) struct Route {
    pub(super) method: Method,
    /// Behind `/v2/`.
    pub(super) path: &'static str,
    pub(super) resource: &'static Resource,
    pub(super) handler: Handler,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $resource:ident $handler:path),+ $(,)?) => {
        &[$(Route { method: Method::$method, path: $path, resource: &$resource, handler: $handler }),+]
    };
}

/// All that is asked: Octavia's API, and below it what clients ask Neutron under the same prefix.
pub(super) static ROUTES: &[Route] = routes![
    GET "lbaas/loadbalancers" LOAD_BALANCER resources::list_all,
    POST "lbaas/loadbalancers" LOAD_BALANCER load_balancers::post,
    GET "lbaas/loadbalancers/{}" LOAD_BALANCER resources::get,
    PUT "lbaas/loadbalancers/{}" LOAD_BALANCER load_balancers::put,
    DELETE "lbaas/loadbalancers/{}" LOAD_BALANCER load_balancers::delete,
    GET "lbaas/loadbalancers/{}/status" LOAD_BALANCER statistics::status,
    GET "lbaas/loadbalancers/{}/statuses" LOAD_BALANCER statistics::status,
    GET "lbaas/loadbalancers/{}/stats" LOAD_BALANCER statistics::stats,
    PUT "lbaas/loadbalancers/{}/failover" LOAD_BALANCER load_balancers::failover,
    GET "lbaas/listeners" LISTENER resources::list_all,
    POST "lbaas/listeners" LISTENER listeners::post,
    GET "lbaas/listeners/{}" LISTENER resources::get,
    PUT "lbaas/listeners/{}" LISTENER listeners::put,
    DELETE "lbaas/listeners/{}" LISTENER listeners::delete,
    GET "lbaas/listeners/{}/stats" LISTENER statistics::stats,
    GET "lbaas/pools" POOL resources::list_all,
    POST "lbaas/pools" POOL pools::post,
    GET "lbaas/pools/{}" POOL resources::get,
    PUT "lbaas/pools/{}" POOL pools::put,
    DELETE "lbaas/pools/{}" POOL pools::delete,
    GET "lbaas/pools/{}/members" MEMBER members::list,
    POST "lbaas/pools/{}/members" MEMBER members::post,
    PUT "lbaas/pools/{}/members" MEMBER members::put_all,
    GET "lbaas/pools/{}/members/{}" MEMBER members::get,
    PUT "lbaas/pools/{}/members/{}" MEMBER members::put,
    DELETE "lbaas/pools/{}/members/{}" MEMBER members::delete,
    GET "lbaas/healthmonitors" HEALTH_MONITOR resources::list_all,
    POST "lbaas/healthmonitors" HEALTH_MONITOR health_monitors::post,
    GET "lbaas/healthmonitors/{}" HEALTH_MONITOR resources::get,
    PUT "lbaas/healthmonitors/{}" HEALTH_MONITOR health_monitors::put,
    DELETE "lbaas/healthmonitors/{}" HEALTH_MONITOR health_monitors::delete,
    GET "lbaas/l7policies" L7POLICY resources::list_all,
    POST "lbaas/l7policies" L7POLICY l7policies::post,
    GET "lbaas/l7policies/{}" L7POLICY resources::get,
    PUT "lbaas/l7policies/{}" L7POLICY l7policies::put,
    DELETE "lbaas/l7policies/{}" L7POLICY l7policies::delete,
    GET "lbaas/l7policies/{}/rules" L7RULE l7rules::list,
    POST "lbaas/l7policies/{}/rules" L7RULE l7rules::post,
    GET "lbaas/l7policies/{}/rules/{}" L7RULE l7rules::get,
    PUT "lbaas/l7policies/{}/rules/{}" L7RULE l7rules::put,
    DELETE "lbaas/l7policies/{}/rules/{}" L7RULE l7rules::delete,
    GET "lbaas/ratelimitpolicies" RATE_LIMIT_POLICY resources::list_all,
    POST "lbaas/ratelimitpolicies" RATE_LIMIT_POLICY rate_limits::post,
    GET "lbaas/ratelimitpolicies/{}" RATE_LIMIT_POLICY resources::get,
    PUT "lbaas/ratelimitpolicies/{}" RATE_LIMIT_POLICY rate_limits::put,
    DELETE "lbaas/ratelimitpolicies/{}" RATE_LIMIT_POLICY rate_limits::delete,
    GET "lbaas/ratelimitpolicies/{}/rules" RATE_LIMIT_RULE rate_limits::rules,
    POST "lbaas/ratelimitpolicies/{}/rules" RATE_LIMIT_RULE rate_limits::post_rule,
    GET "lbaas/ratelimitpolicies/{}/rules/{}" RATE_LIMIT_RULE rate_limits::get_rule,
    PUT "lbaas/ratelimitpolicies/{}/rules/{}" RATE_LIMIT_RULE rate_limits::put_rule,
    DELETE "lbaas/ratelimitpolicies/{}/rules/{}" RATE_LIMIT_RULE rate_limits::delete_rule,
    GET "lbaas/quotas" QUOTA quotas::list,
    GET "lbaas/quotas/{}" QUOTA quotas::get,
    PUT "lbaas/quotas/{}" QUOTA quotas::put,
    DELETE "lbaas/quotas/{}" QUOTA quotas::delete,
    GET "lbaas/quotas/{}/default" QUOTA quotas::defaults,
    GET "lbaas/providers" LOAD_BALANCER providers::list,
    GET "lbaas/providers/{}/flavor_capabilities" FLAVOR providers::flavor_capabilities,
    GET "lbaas/providers/{}/availability_zone_capabilities" AVAILABILITY_ZONE providers::zone_capabilities,
    GET "lbaas/flavors" FLAVOR flavors::list,
    POST "lbaas/flavors" FLAVOR flavors::post,
    GET "lbaas/flavors/{}" FLAVOR flavors::get,
    PUT "lbaas/flavors/{}" FLAVOR flavors::put,
    DELETE "lbaas/flavors/{}" FLAVOR flavors::delete,
    GET "lbaas/flavorprofiles" FLAVOR_PROFILE flavors::list,
    POST "lbaas/flavorprofiles" FLAVOR_PROFILE flavors::post,
    GET "lbaas/flavorprofiles/{}" FLAVOR_PROFILE flavors::get,
    PUT "lbaas/flavorprofiles/{}" FLAVOR_PROFILE flavors::put,
    DELETE "lbaas/flavorprofiles/{}" FLAVOR_PROFILE flavors::delete,
    GET "lbaas/availabilityzones" AVAILABILITY_ZONE flavors::list,
    POST "lbaas/availabilityzones" AVAILABILITY_ZONE flavors::post,
    GET "lbaas/availabilityzones/{}" AVAILABILITY_ZONE flavors::get,
    PUT "lbaas/availabilityzones/{}" AVAILABILITY_ZONE flavors::put,
    DELETE "lbaas/availabilityzones/{}" AVAILABILITY_ZONE flavors::delete,
    GET "lbaas/availabilityzoneprofiles" AVAILABILITY_ZONE_PROFILE flavors::list,
    POST "lbaas/availabilityzoneprofiles" AVAILABILITY_ZONE_PROFILE flavors::post,
    GET "lbaas/availabilityzoneprofiles/{}" AVAILABILITY_ZONE_PROFILE flavors::get,
    PUT "lbaas/availabilityzoneprofiles/{}" AVAILABILITY_ZONE_PROFILE flavors::put,
    DELETE "lbaas/availabilityzoneprofiles/{}" AVAILABILITY_ZONE_PROFILE flavors::delete,
    GET "octavia/amphorae" AMPHORA amphorae::list,
    GET "octavia/amphorae/{}" AMPHORA amphorae::get,
    DELETE "octavia/amphorae/{}" AMPHORA amphorae::delete,
    GET "octavia/amphorae/{}/stats" AMPHORA amphorae::stats,
    PUT "octavia/amphorae/{}/config" AMPHORA amphorae::configure,
    PUT "octavia/amphorae/{}/failover" AMPHORA amphorae::failover,
    GET "networks" LOAD_BALANCER networks::networks,
    GET "networks/{}" LOAD_BALANCER networks::networks,
    GET "subnets" LOAD_BALANCER networks::subnets,
    GET "subnets/{}" LOAD_BALANCER networks::subnets,
    GET "ports" LOAD_BALANCER networks::ports,
    POST "ports" LOAD_BALANCER ports::post,
    GET "ports/{}" LOAD_BALANCER networks::ports,
    DELETE "ports/{}" LOAD_BALANCER ports::delete,
    GET "security-groups" LOAD_BALANCER networks::security_groups,
    GET "security-groups/{}" LOAD_BALANCER networks::security_groups,
    GET "floatingips" LOAD_BALANCER networks::floating_ips,
    GET "floatingips/{}" LOAD_BALANCER networks::floating_ips,
    GET "extensions" LOAD_BALANCER networks::extensions,
];

/// What a path is for.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// The versions of the API.
    Versions,
    /// The stream of events.
    Events,
    /// Counters for Prometheus.
    Metrics,
    /// The description of the API.
    Description,
    /// The page for persons: a file, or what it asks for.
    Page(&'a str),
    /// Keystone, and what follows `/v3/`.
    Identity(Vec<&'a str>),
    /// A handler, and what stands where its route has `{}`.
    Route(&'static Route, Vec<String>),
    /// There is such a path, for other methods.
    Methods(Vec<&'static Method>),
    Nothing,
}

/// Finds what a request is for. `HEAD` is as `GET`.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Found<'a> {
    let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let rest = match segments.as_slice() {
        [] | ["v2" | "v2.0"] => return Found::Versions,
        ["v2" | "v2.0", "lbaas", "events"] => return Found::Events,
        ["metrics"] => return Found::Metrics,
        ["v2" | "v2.0", "lbaas", "openapi.json"] => return Found::Description,
        ["page", name] => return Found::Page(name),
        ["v2" | "v2.0", rest @ ..] => rest,
        // Without the version by who has told its client one address for all services.
        ["v3", rest @ ..] | rest @ ["projects", ..] => return Found::Identity(rest.to_vec()),
        _ => return Found::Nothing,
    };
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let mut methods = Vec::new();
    for route in ROUTES {
        let Some(names) = names(route.path, rest) else { continue };
        if route.method == *method {
            return Found::Route(route, names);
        }
        methods.push(&route.method);
    }
    if methods.is_empty() { Found::Nothing } else { Found::Methods(methods) }
}

/// What a request is about, in one of few words.
pub(super) fn word(method: &Method, path: &str) -> &'static str {
    match find(method, path) {
        Found::Versions => "versions",
        Found::Description => "description",
        Found::Events => "events",
        Found::Metrics => "metrics",
        Found::Page(_) => "page",
        Found::Identity(_) => "identity",
        Found::Methods(_) | Found::Nothing => "none",
        Found::Route(route, _) => {
            let mut words = route.path.split('/').filter(|word| !matches!(*word, "lbaas" | "octavia"));
            let first = words.next().unwrap_or("none");
            words.find(|word| matches!(*word, "members" | "rules")).unwrap_or(first)
        }
    }
}

/// What stands where a pattern has `{}`, if a path is of this pattern. Octavia serves all but amphorae without `lbaas` as well.
fn names(pattern: &str, path: &[&str]) -> Option<Vec<String>> {
    let bare = if path.first() == Some(&"lbaas") { None } else { pattern.strip_prefix("lbaas/") };
    let mut path = path.iter();
    let mut names = Vec::new();
    for expected in bare.unwrap_or(pattern).split('/') {
        match (expected, *path.next()?) {
            ("{}", segment) => names.push(decode(segment, false)),
            (expected, segment) if expected == segment => {}
            _ => return None,
        }
    }
    path.next().is_none().then_some(names)
}
