//! `amphora-agent translate`.

use std::{
    borrow::Cow,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use amphora_agent::octavia::{
    haproxy_cfg::{self, Certificates, Context, Everything, MAX_TEXT},
    lvs,
};
use amphora_model::{CertificateId, ListenerId, LoadBalancer};

use crate::cli::Translate;

/// Prints the document, or why there is none.
pub(crate) fn run(command: &Translate) -> ExitCode {
    let file = command.file.display();
    let text = match read(&command.file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("amphora-agent: {file}: {error}");
            return ExitCode::FAILURE;
        }
    };
    if text.starts_with(lvs::FIRST.as_bytes()) {
        return match lvs::translate(&text) {
            Ok(lvs::Translated { served: Some(served), .. }) => print(&served),
            Ok(lvs::Translated { listener, .. }) => {
                eprintln!("{file}: listener {listener} is disabled, or has no pool");
                ExitCode::SUCCESS
            }
            Err(fault) => {
                eprintln!("amphora-agent: {file}: {fault}");
                ExitCode::FAILURE
            }
        };
    }
    let directory = command.certificates.clone().map(Directory);
    let certificates: &dyn Certificates = match &directory {
        Some(directory) => directory,
        None => &Everything,
    };
    let context = Context { certificates, vips: &command.vip };
    let translated = match haproxy_cfg::translate(&text, &context) {
        Ok(translated) => translated,
        Err(fault) => {
            eprintln!("amphora-agent: {file}: {fault}");
            return ExitCode::FAILURE;
        }
    };
    for remark in &translated.remarks {
        eprintln!("{file}: line {}: has no effect: {}", remark.line, remark.reason);
    }
    print(&translated.load_balancer)
}

fn print(load_balancer: &LoadBalancer) -> ExitCode {
    match writeln!(io::stdout(), "{:#}", load_balancer.to_json()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("amphora-agent: standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A byte more than is looked at, so that what is too long is told.
#[expect(clippy::disallowed_methods, reason = "there is no runtime")]
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut source: Box<dyn Read> =
        if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(fs::File::open(path)?) };
    let mut text = Vec::new();
    source.by_ref().take(MAX_TEXT as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Certificates and crt-lists in one directory, as on an amphora.
struct Directory(PathBuf);

impl Certificates for Directory {
    fn has(&self, id: &CertificateId) -> bool {
        self.0.join(format!("{id}.pem")).is_file()
    }

    #[expect(clippy::disallowed_methods, reason = "there is no runtime")]
    fn crt_list(&self, listener: ListenerId) -> Option<Cow<'_, [u8]>> {
        fs::read(self.0.join(format!("{listener}.pem"))).ok().map(Cow::Owned)
    }
}
