//! `vrrp` on the command line.

use std::{io::Write, path::PathBuf, time::Duration};

use amphora_agent::vrrp_client::VrrpAction;
use clap::Subcommand;

use super::{Target, block_on, seconds};
use crate::{
    cmd,
    error::{Error, Result},
    vrrp_document::VrrpDocument,
};

const PAIR: &str = "\
The first amphora gets priority 100 and becomes master, the second gets 90. With
`unicast`, `peers` are the addresses of both in the same order; each amphora is
given its own as `source` and the other as its peer. Without, they use multicast.

In YAML:

  instances:
  - name: lb
    interface: eth1
    vrid: 1
    interval_ms: 1000
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
    /// Let the virtual routers take no part, until start or until their daemon ends: a peer takes over at once
    Stop {
        #[command(flatten)]
        target: Target,
    },
    /// Remove the configuration: the virtual routers stop
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
        VrrpCommand::Pair { file, target } => {
            let pair = VrrpDocument::read(&file)?.pair().map_err(|reason| Error::file(&file, reason))?;
            block_on(cmd::vrrp::pair(out, &target.clients()?, &pair))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_document_in_the_help_is_one_for_a_pair() {
        let (_, yaml) = PAIR.split_once("In YAML:").unwrap();
        let yaml = yaml.replace("\n  ", "\n");
        assert!(VrrpDocument::parse(&yaml).unwrap().pair().is_ok());
    }
}
