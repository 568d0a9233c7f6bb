//! `[compute]`.

use std::{path::PathBuf, time::Duration};

use amphora_ini::{
    ConfigError,
    reader::{Reader, bounded, error, parse, path, seconds},
};

use super::networks::{self, Network};
use crate::serve::compute::{Size, qemu::Accel};

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
    /// `image`: what machines of `qemu` boot; without it there are none.
    pub image: Option<PathBuf>,
    /// `qemu_cmd`, `qemu_img_cmd` and `mkisofs_cmd`: programs of `qemu`, by path or by name.
    pub qemu_cmds: [PathBuf; 3],
    /// `memory` and `cpus`: of machines whose flavor does not say.
    pub size: Size,
    /// `accel`; `None` is `auto`.
    pub accel: Option<Accel>,
    /// `qemu_user`: whom QEMU runs as.
    pub qemu_user: Option<String>,
    /// `management_network`: where `serve` and agents in machines reach one another.
    pub management: Network,
    /// `boot_timeout`: how long a machine may take until its agent answers.
    pub boot_timeout: Duration,
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

/// `others` are the networks of load balancers.
pub(super) fn read(read: &Reader<'_>, others: &[Network]) -> Result<Compute, ConfigError> {
    const SECTION: &str = "compute";
    let program = |name| {
        read.required(SECTION, name, |text| match path(text) {
            Ok(path) => Ok(path),
            // `PATH` says where it is.
            Err(_) if !text.is_empty() && !text.contains('/') => Ok(PathBuf::from(text)),
            Err(reason) => Err(reason),
        })
    };
    let number = |name, range: std::ops::RangeInclusive<u32>| {
        read.required(SECTION, name, bounded(*range.start(), *range.end()))
    };
    let driver = read.required(SECTION, "driver", ComputeDriver::parse)?;
    let image = read.optional(SECTION, "image", path)?;
    if driver == ComputeDriver::Qemu && image.is_none() {
        let reason = "driver = qemu takes one: what images/build makes".to_owned();
        return Err(error(SECTION, "image", read.place(SECTION, "driver"), reason));
    }
    Ok(Compute {
        driver,
        agent_ports: read.required(SECTION, "agent_ports", ports)?,
        agent_cmd: read.optional(SECTION, "agent_cmd", path)?,
        proxy_cmd: read.optional(SECTION, "proxy_cmd", path)?,
        vrrp_cmd: read.optional(SECTION, "vrrp_cmd", path)?,
        image,
        qemu_cmds: [program("qemu_cmd")?, program("qemu_img_cmd")?, program("mkisofs_cmd")?],
        size: Size { memory: number("memory", Size::MEMORY)?, cpus: number("cpus", Size::CPUS)? },
        accel: read.required(SECTION, "accel", |text| match text {
            "auto" => Ok(None),
            "kvm" => Ok(Some(Accel::Kvm)),
            "tcg" => Ok(Some(Accel::Tcg)),
            _ => Err(format!("not one of auto, kvm, tcg: {text:?}")),
        })?,
        qemu_user: read.optional(SECTION, "qemu_user", parse)?,
        management: read
            .required(SECTION, "management_network", |text| networks::management(text, others))?,
        boot_timeout: read.required(SECTION, "boot_timeout", seconds(10))?,
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
