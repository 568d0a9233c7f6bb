//! The command line of `certificate`.

use std::{io::Write, path::PathBuf};

use amphora_model::CertificateId;
use clap::Subcommand;

use super::{Target, block_on};
use crate::{cmd, error::Result};

#[derive(Debug, Subcommand)]
pub(super) enum CertificateCommand {
    /// Keep a key with its certificate and chain, certificates of authorities, or revocation lists
    #[command(after_help = "\
The file is PEM, sections in any order and keys without a passphrase, or PKCS #12. A document names it by the id, in \
default_tls_container_ref and its like. When the load balancer names it, the command ends once every worker serves it; \
putting the same again changes nothing, and what is refused changes nothing either.")]
    Put {
        /// A letter or digit, then at most 127 letters, digits and ._-, or a URL that ends in such, as in a document
        #[arg(value_parser = CertificateId::from_reference)]
        id: CertificateId,
        /// PEM or PKCS #12; `-` is standard input
        file: PathBuf,
        /// A file whose first line is the password of a PKCS #12
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        target: Target,
    },
    /// Show what is kept under an id, and what names it; never a key
    Show {
        /// Its id, or a URL that ends in it
        #[arg(value_parser = CertificateId::from_reference)]
        id: CertificateId,
        /// JSON, one document per amphora
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// List what is kept
    List {
        /// JSON, one document per amphora
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Forget what is kept under an id, if the load balancer does not name it
    Delete {
        /// Its id, or a URL that ends in it
        #[arg(value_parser = CertificateId::from_reference)]
        id: CertificateId,
        #[command(flatten)]
        target: Target,
    },
}

impl CertificateCommand {
    pub(super) fn target(&mut self) -> &mut Target {
        match self {
            Self::Put { target, .. }
            | Self::Show { target, .. }
            | Self::List { target, .. }
            | Self::Delete { target, .. } => target,
        }
    }
}

pub(super) fn run(out: &mut impl Write, command: CertificateCommand) -> Result<()> {
    match command {
        CertificateCommand::Put { id, file, password_file, target } => {
            let credential = cmd::certificate::read(&file, password_file.as_deref())?;
            block_on(cmd::certificate::put(out, &target.clients()?, &id, &credential))
        }
        CertificateCommand::Show { id, json, target } => {
            block_on(cmd::certificate::show(out, &target.clients()?, &id, json))
        }
        CertificateCommand::List { json, target } => {
            block_on(cmd::certificate::list(out, &target.clients()?, json))
        }
        CertificateCommand::Delete { id, target } => {
            block_on(cmd::certificate::delete(out, &target.clients()?, &id))
        }
    }
}
