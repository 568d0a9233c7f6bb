//! `vrrp` on the command line.

use std::{io::Write, net::IpAddr, path::PathBuf, time::Duration};

use amphora_agent::vrrp_client::VrrpAction;
use clap::Subcommand;

use super::{
    Target, block_on,
    numbers::{seconds, whole},
};
use crate::{
    cmd::{self, peers::Plan},
    error::{Error, Result},
    vrrp_document::VrrpDocument,
};

const PAIR: &str = "\
The first amphora gets priority 100 and becomes master, the second gets 90. With
`unicast`, `peers` are the addresses of both in the same order; each amphora is
given its own as `source` and the other as its peer. Without, they use multicast.

The proxies are told of each other as well, by the same addresses and with a new
key each time, so that they keep session persistence alike. With multicast the
document does not say the addresses: --peers does.

In YAML:

  instances:
  - name: lb
    interface: eth1
    vrid: 1
    interval_ms: 1000
    preempt: false
    unicast: {peers: [198.51.100.5, 198.51.100.6]}
    addresses:
    - {address: 198.51.100.10/32}
    track: {fall: 2, rise: 2}";

#[derive(Debug, Subcommand)]
pub(super) enum VrrpCommand {
    /// Make a configuration run as it is
    #[command(after_help = "\
The native document as JSON or YAML, or keepalived.conf. Applying the same again changes nothing; a refused one
changes nothing either, and each fault is told with its place.")]
    Apply {
        /// JSON, YAML or keepalived.conf; `-` is standard input
        file: PathBuf,
        #[command(flatten)]
        target: Target,
    },
    /// Make both amphorae of a pair run one native document, with roles and peers of their own
    #[command(after_help = PAIR)]
    Pair {
        /// JSON or YAML; `-` is standard input
        file: PathBuf,
        /// The amphorae's own addresses in their order, over which the proxies keep session persistence alike
        #[arg(long, value_name = "ADDRESS,ADDRESS", value_parser = addresses, conflicts_with = "no_peers")]
        peers: Option<[IpAddr; 2]>,
        /// Leave session persistence as it is
        #[arg(long)]
        no_peers: bool,
        /// The port on which each proxy listens for the other
        #[arg(long, value_name = "PORT", default_value_t = cmd::peers::PORT, value_parser = whole(1_u16, u16::MAX))]
        peer_port: u16,
        #[command(flatten)]
        target: Target,
    },
    /// Let the master of a pair hand over to the other, and wait until that is master
    #[command(after_help = "\
The master serves until it hears its successor, so that no request is lost. It
does not take the address back by its priority until `resume`. Nothing is done
when the other is not a fit backup.")]
    Failover {
        /// Seconds until the other must be master
        #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
        within: Duration,
        #[command(flatten)]
        target: Target,
    },
    /// Let the virtual routers take their places by priority again, after a failover
    Resume {
        #[command(flatten)]
        target: Target,
    },
    /// Let the virtual routers take part
    Start {
        #[command(flatten)]
        target: Target,
    },
    /// Let the virtual routers of each amphora that is named take no part, until start or until their daemon ends: a peer
    /// that is not named takes over at once
    Stop {
        #[command(flatten)]
        target: Target,
    },
    /// Remove the configuration: the virtual routers stop, and session persistence is kept alike no more
    Delete {
        #[command(flatten)]
        target: Target,
    },
}

impl VrrpCommand {
    pub(super) fn target(&mut self) -> &mut Target {
        match self {
            Self::Apply { target, .. }
            | Self::Pair { target, .. }
            | Self::Failover { target, .. }
            | Self::Resume { target }
            | Self::Start { target }
            | Self::Stop { target }
            | Self::Delete { target } => target,
        }
    }
}

pub(super) fn run(out: &mut impl Write, command: VrrpCommand) -> Result<()> {
    let mut act = |target: Target, action| block_on(cmd::vrrp::act(out, &target.clients()?, action));
    match command {
        VrrpCommand::Apply { file, target } => {
            let document = VrrpDocument::read(&file)?;
            block_on(cmd::vrrp::apply(out, &target.clients()?, &document))
        }
        VrrpCommand::Pair { file, peers, no_peers, peer_port, target } => {
            let document = VrrpDocument::read(&file)?;
            let pair = document.pair().map_err(|reason| Error::file(&file, reason))?;
            let plan = match peers.or_else(|| document.addresses()) {
                _ if no_peers => Plan::LeftAlone,
                Some(addresses) => Plan::Alike(addresses, peer_port),
                None => Plan::Unknown,
            };
            block_on(cmd::vrrp::pair(out, &target.clients()?, &pair, plan))
        }
        VrrpCommand::Failover { within, target } => {
            block_on(cmd::vrrp::failover(out, &target.clients()?, within))
        }
        VrrpCommand::Resume { target } => act(target, VrrpAction::Resume),
        VrrpCommand::Start { target } => act(target, VrrpAction::Start),
        VrrpCommand::Stop { target } => act(target, VrrpAction::Stop),
        VrrpCommand::Delete { target } => block_on(cmd::vrrp::delete(out, &target.clients()?)),
    }
}

/// Two addresses of hosts, of one family.
fn addresses(text: &str) -> Result<[IpAddr; 2], String> {
    let parsed = text.split_once(',').and_then(|(one, other)| {
        Some([one.trim().parse::<IpAddr>().ok()?, other.trim().parse::<IpAddr>().ok()?])
    });
    parsed
        .filter(|[one, other]| one != other && one.is_ipv4() == other.is_ipv4())
        .ok_or_else(|| "expected two addresses of one family with a comma between them".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_addresses_of_a_pair_are_two() {
        let expected = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(addresses("192.0.2.1, 192.0.2.2"), Ok(expected));
        assert!(addresses("2001:db8::1,2001:db8::2").is_ok());
        for wrong in [
            "",
            "192.0.2.1",
            "192.0.2.1,192.0.2.1",
            "192.0.2.1,2001:db8::1",
            "a,b",
            "192.0.2.1,192.0.2.2,192.0.2.3",
        ] {
            assert!(addresses(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_document_in_the_help_is_one_for_a_pair() {
        let (_, yaml) = PAIR.split_once("In YAML:").unwrap();
        let yaml = yaml.replace("\n  ", "\n");
        assert!(VrrpDocument::parse(&yaml).unwrap().pair().is_ok());
    }
}
