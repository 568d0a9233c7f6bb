//! What an operator sets up: quotas, flavors, availability zones; and amphorae.

use super::{
    Attribute, Default, Kind, Resource,
    common::{CREATED_AT, DESCRIPTION, ID, UPDATED_AT, text},
};

const fn flag(name: &'static str) -> Attribute {
    Attribute::new(name, Kind::Boolean)
}

const NAME: Attribute = text("name", 255).mandatory().put();
const ENABLED: Attribute = flag("enabled").post(Default::Boolean(true)).put();

pub(in crate::serve::api) static FLAVOR: Resource = Resource {
    table: "flavor",
    one: "flavor",
    many: "flavors",
    links: "flavors_links",
    title: "Flavor",
    key: "id",
    arguments: ("flavor_", "flavor_"),
    quota: None,
    attributes: &[
        ID,
        NAME,
        DESCRIPTION,
        ENABLED,
        Attribute::new("flavor_profile_id", Kind::Uuid).mandatory(),
    ],
};

pub(in crate::serve::api) static FLAVOR_PROFILE: Resource = Resource {
    table: "flavor_profile",
    one: "flavorprofile",
    many: "flavorprofiles",
    links: "flavorprofile_links",
    title: "Flavor Profile",
    key: "id",
    arguments: ("flavor_profile_", "flavor_profile_"),
    quota: None,
    attributes: &[
        ID,
        NAME,
        text("provider_name", 255).mandatory().put(),
        text("flavor_data", 4096).mandatory().put(),
    ],
};

pub(in crate::serve::api) static AVAILABILITY_ZONE: Resource = Resource {
    table: "availability_zone",
    one: "availability_zone",
    many: "availability_zones",
    links: "availability_zones_links",
    title: "Availability Zone",
    key: "name",
    arguments: ("availability_zone_", "availability_zone_"),
    quota: None,
    attributes: &[
        text("name", 255).mandatory(),
        DESCRIPTION,
        ENABLED,
        Attribute::new("availability_zone_profile_id", Kind::Uuid).mandatory(),
    ],
};

pub(in crate::serve::api) static AVAILABILITY_ZONE_PROFILE: Resource = Resource {
    table: "availability_zone_profile",
    one: "availability_zone_profile",
    many: "availability_zone_profiles",
    links: "availability_zone_profile_links",
    title: "Availability Zone Profile",
    key: "id",
    arguments: ("availability_zone_profile_", "availability_zone_profile_"),
    quota: None,
    attributes: &[
        ID,
        NAME,
        text("provider_name", 255).mandatory().put(),
        text("availability_zone_data", 4096).mandatory().put(),
    ],
};

/// -1: no limit.
const LIMIT: Kind = Kind::Integer(-1, 2_000_000_000);

const fn limit(name: &'static str) -> Attribute {
    Attribute::new(name, LIMIT).put()
}

pub(in crate::serve::api) static QUOTA: Resource = Resource {
    table: "quota",
    one: "quota",
    many: "quotas",
    links: "quotas_links",
    title: "Quotas",
    key: "project_id",
    arguments: ("quotas", "quotas"),
    quota: None,
    attributes: &[
        text("project_id", 36),
        text("tenant_id", 36).column("project_id").unfiltered(),
        limit("loadbalancer").column("load_balancer"),
        // The names before Rocky. What is said by both is what these say.
        limit("load_balancer"),
        limit("listener"),
        limit("member"),
        limit("pool"),
        limit("healthmonitor").column("health_monitor"),
        limit("health_monitor"),
        limit("l7policy"),
        limit("l7rule"),
    ],
};

pub(in crate::serve::api) static AMPHORA: Resource = Resource {
    table: "amphora",
    one: "amphora",
    many: "amphorae",
    links: "amphorae_links",
    title: "Amphora",
    key: "id",
    arguments: ("", ""),
    quota: None,
    attributes: &[
        ID,
        Attribute::new("loadbalancer_id", Kind::Uuid).column("load_balancer_id"),
        // A machine is made for one amphora, and its driver calls it by a name made of this.
        Attribute::new("compute_id", Kind::Uuid).sql("amphora.id"),
        Attribute::new("lb_network_ip", Kind::Address),
        Attribute::new("vrrp_ip", Kind::Address),
        Attribute::new("ha_ip", Kind::Address),
        Attribute::new("vrrp_port_id", Kind::Uuid),
        Attribute::new("ha_port_id", Kind::Uuid),
        Attribute::new("cert_expiration", Kind::Time),
        flag("cert_busy"),
        text("role", 16),
        text("status", 32),
        text("vrrp_interface", 16),
        Attribute::new("vrrp_id", Kind::Integer(0, 255)),
        Attribute::new("vrrp_priority", Kind::Integer(0, 255)),
        text("cached_zone", 255),
        CREATED_AT,
        UPDATED_AT,
        text("image_id", 64),
        text("compute_flavor", 255),
        text("project_id", 36)
            .sql("(SELECT project_id FROM load_balancer WHERE id = amphora.load_balancer_id)")
            .hidden(),
    ],
};
