//! `amphora-first-boot`: see `docs/first-boot.md`.

use std::{path::PathBuf, process::ExitCode};

use amphora_first_boot::{
    remarks::Remarks,
    run::{self, Place},
    source::Service,
};
use clap::{Parser, Subcommand};

/// Gives a machine what OpenStack has for it: files, keys, name, network and the rest of its config drive.
///
/// Without a command it reads the config drive, before there is a network. What is for a machine's first boot is done once for
/// an instance; name and network are seen to at every boot.
#[derive(Debug, Parser)]
#[command(name = "amphora-first-boot", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// A config drive that is mounted already, with `openstack` in it; without it, block devices are looked at.
    #[arg(long, value_name = "DIR")]
    drive: Option<PathBuf>,
    /// The root of the file system that is written to.
    #[arg(long, value_name = "DIR", default_value = "/", global = true)]
    root: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks the metadata service, after the network is up, where there was no config drive.
    Metadata {
        /// The service.
        #[arg(long, value_name = "URL", default_value = "http://169.254.169.254", value_parser = Service::parse)]
        url: Service,
    },
    /// Runs the commands of user data (`runcmd`), after the agent is up; for at most 300 s, once.
    Runcmd,
}

fn main() -> ExitCode {
    let Arguments { drive, root, command } = Arguments::parse();
    let place = Place { root, drive };
    let mut remarks = Remarks::default();
    let done = match command {
        None => run::boot(&place, &mut remarks),
        Some(Command::Metadata { url }) => run::metadata(&place, url, &mut remarks),
        Some(Command::Runcmd) => run::commands(&place, &mut remarks),
    };
    if let Err(error) = &done {
        remarks.error(error);
    }
    run::tell(&mut remarks);
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
