//! `[networking]`: which VIPs may be asked for.

use std::net::IpAddr;

use amphora_ini::{
    ConfigError,
    reader::{Reader, boolean},
};

use super::list;

/// The section.
const SECTION: &str = "networking";

/// `[networking]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networking {
    /// `allow_vip_network_id`.
    pub allow_vip_network_id: bool,
    /// `allow_vip_subnet_id`.
    pub allow_vip_subnet_id: bool,
    /// `allow_vip_port_id`.
    pub allow_vip_port_id: bool,
    /// `valid_vip_networks`: identifiers of networks; without any, all may be asked for. An availability zone may have its own.
    pub valid_vip_networks: Vec<String>,
    /// `reserved_ips`: no members.
    pub reserved_ips: Vec<IpAddr>,
}

pub(super) fn read(read: &Reader<'_>) -> Result<Networking, ConfigError> {
    let switch = |name| read.required(SECTION, name, boolean);
    Ok(Networking {
        allow_vip_network_id: switch("allow_vip_network_id")?,
        allow_vip_subnet_id: switch("allow_vip_subnet_id")?,
        allow_vip_port_id: switch("allow_vip_port_id")?,
        valid_vip_networks: read.required(SECTION, "valid_vip_networks", |text| Ok(list(text)))?,
        reserved_ips: read.required(SECTION, "reserved_ips", |text| {
            let address = |text: String| text.parse().map_err(|_| format!("not an address: {text:?}"));
            list(text).into_iter().map(address).collect()
        })?,
    })
}
