//! `[compute]`.

use std::path::PathBuf;

use amphora_ini::{
    ConfigError,
    reader::{Reader, path},
};

/// `[compute]`: where amphorae are.
#[derive(Clone, Debug, PartialEq)]
pub struct Compute {
    /// `driver`.
    pub driver: ComputeDriver,
    /// `agent_ports`: of `namespaces`, the ports of agents on this host, first and last.
    pub agent_ports: (u16, u16),
    /// `agent_cmd`, `proxy_cmd`, `vrrp_cmd`: programs of `namespaces`; without them those beside this program.
    pub agent_cmd: Option<PathBuf>,
    /// As above.
    pub proxy_cmd: Option<PathBuf>,
    /// As above.
    pub vrrp_cmd: Option<PathBuf>,
}

/// `[compute] driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComputeDriver {
    /// A network namespace of this host each.
    Namespaces,
    /// A virtual machine each.
    Qemu,
}

impl ComputeDriver {
    /// As in the configuration and in rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Qemu => "qemu",
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn parse(text: &str) -> Result<Self, String> {
        [Self::Namespaces, Self::Qemu]
            .into_iter()
            .find(|driver| driver.as_str() == text)
            .ok_or_else(|| format!("not one of namespaces, qemu: {text:?}"))
    }
}

pub(super) fn read(read: &Reader<'_>) -> Result<Compute, ConfigError> {
    const SECTION: &str = "compute";
    Ok(Compute {
        driver: read.required(SECTION, "driver", ComputeDriver::parse)?,
        agent_ports: read.required(SECTION, "agent_ports", ports)?,
        agent_cmd: read.optional(SECTION, "agent_cmd", path)?,
        proxy_cmd: read.optional(SECTION, "proxy_cmd", path)?,
        vrrp_cmd: read.optional(SECTION, "vrrp_cmd", path)?,
    })
}

/// `first-last`.
fn ports(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("not a range of ports, like 19443-20442: {text:?}");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let (first, last) =
        (first.trim().parse().map_err(|_| wrong())?, last.trim().parse().map_err(|_| wrong())?);
    if first == 0 || first > last { Err(wrong()) } else { Ok((first, last)) }
}
