//! Providers: there is one, with the old name that Octavia keeps for it.

use serde_json::{Map, Value, json};

use super::{
    super::{
        attributes::Object, attributes::Resource, fault::Fault, lists::fields, request::Answer, scope::Scope,
    },
    Names,
};
use crate::serve::{compute::Size, policies::Rule};

/// The provider of who names none.
pub(super) const DEFAULT: &str = "amphora";

const PROVIDERS: [(&str, &str); 2] = [
    ("amphora", "The Octavia Amphora driver."),
    ("octavia", "Deprecated alias of the Octavia Amphora driver."),
];

const TOPOLOGIES: [&str; 2] = ["SINGLE", "ACTIVE_STANDBY"];
const DRIVERS: [&str; 2] = ["namespaces", "qemu"];

/// Any one: what a flavor does not say is the configuration's.
const SIZE: Size = Size { memory: *Size::MEMORY.start(), cpus: 1 };

const FLAVOR: [(&str, &str); 3] = [
    (
        "loadbalancer_topology",
        "The load balancer topology. One of: SINGLE - One amphora per load balancer. ACTIVE_STANDBY - Two amphora \
         per load balancer.",
    ),
    ("compute_flavor", "The size of an amphora of qemu, as memory=MIB,cpus=N."),
    ("compute_driver", "What amphorae are. One of: namespaces, qemu."),
];

const ZONE: [(&str, &str); 2] = [
    ("compute_zone", "The compute availability zone."),
    (
        "valid_vip_networks",
        "List of network IDs that are allowed for VIP use. This overrides/replaces the list of allowed networks \
         configured in `octavia.conf`.",
    ),
];

/// Refuses a provider that there is not.
pub(super) fn is_enabled(name: &str) -> Result<(), Fault> {
    if PROVIDERS.iter().any(|(provider, _)| *provider == name) {
        return Ok(());
    }
    Err(Fault::new(400, format!("Provider '{name}' is not enabled.")))
}

fn told(scope: &Scope<'_>, name: &str, all: &[(&str, &str)]) -> Value {
    let told: Vec<_> = all
        .iter()
        .map(|(name, description)| {
            let map = [("name", *name), ("description", *description)];
            let map: Map<_, _> = map.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
            fields(scope, Object(map))
        })
        .collect();
    json!({name: told})
}

pub(in crate::serve::api) fn list(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.permit_own(Rule::Read)?;
    Ok(Answer::new(200, told(scope, "providers", &PROVIDERS)))
}

pub(in crate::serve::api) fn flavor_capabilities(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    capabilities(scope, names, "flavor_capabilities", &FLAVOR)
}

pub(in crate::serve::api) fn zone_capabilities(
    scope: &Scope<'_>,
    _resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    capabilities(scope, names, "availability_zone_capabilities", &ZONE)
}

fn capabilities(
    scope: &Scope<'_>,
    names: &Names<'_>,
    name: &str,
    all: &[(&str, &str)],
) -> Result<Answer, Fault> {
    scope.permit_own(Rule::Admin)?;
    is_enabled(names.first().copied().unwrap_or_default())?;
    let query = &scope.request.query;
    let wanted: Vec<_> = all
        .iter()
        .copied()
        .filter(|(name, description)| {
            query.get("name").is_none_or(|wanted| wanted == *name)
                && query.get("description").is_none_or(|wanted| wanted == *description)
        })
        .collect();
    Ok(Answer::new(200, told(scope, name, &wanted)))
}

/// The data of a flavor profile.
pub(super) fn flavor_data(scope: &Scope<'_>, provider: &str, text: &str) -> Result<(), Fault> {
    let data = object(text, "flavor_data")?;
    for (name, value) in &data {
        let is_sound = match name.as_str() {
            "loadbalancer_topology" => value.as_str().is_some_and(|text| TOPOLOGIES.contains(&text)),
            "compute_driver" => value.as_str().is_some_and(|text| DRIVERS.contains(&text)),
            "compute_flavor" => value.as_str().is_some_and(|text| SIZE.parse(text).is_ok()),
            "amp_image_tag" => {
                return Err(unsupported(
                    provider,
                    "amp_image_tag: all amphorae are of one image, [compute] image",
                ));
            }
            _ => return Err(unexpected(provider, name)),
        };
        sound(provider, name, value, is_sound)?;
    }
    if data.get("compute_driver").is_some_and(|driver| driver == "qemu")
        && scope.config.compute.image.is_none()
    {
        return Err(unsupported(provider, "'compute_driver' is qemu, and [compute] image is not set"));
    }
    Ok(())
}

/// The data of a profile of availability zones.
pub(super) fn zone_data(provider: &str, text: &str) -> Result<(), Fault> {
    let data = object(text, "availability_zone_data")?;
    for (name, value) in &data {
        let is_sound = match name.as_str() {
            // Whatever it is called, it is this host.
            "compute_zone" | "volume_zone" | "management_network" => value.is_string(),
            "valid_vip_networks" => {
                value.as_array().is_some_and(|networks| networks.iter().all(serde_json::Value::is_string))
            }
            _ => return Err(unexpected(provider, name)),
        };
        sound(provider, name, value, is_sound)?;
    }
    Ok(())
}

fn object(text: &str, option: &str) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(Fault::option(text, option)),
    }
}

fn unexpected(provider: &str, name: &str) -> Fault {
    unsupported(provider, &format!("Additional properties are not allowed ('{name}' was unexpected)"))
}

fn sound(provider: &str, name: &str, value: &Value, is_sound: bool) -> Result<(), Fault> {
    if is_sound {
        return Ok(());
    }
    Err(unsupported(provider, &format!("{value} is not a value of '{name}'")))
}

/// `ProviderUnsupportedOptionError`.
fn unsupported(provider: &str, reason: &str) -> Fault {
    Fault::new(501, format!("Provider '{provider}' does not support a requested option: {reason}"))
}
