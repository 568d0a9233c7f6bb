//! `amphora-initramfs`: process 1 of the initramfs; otherwise the command that writes one. See the library.

use std::path::Path;
use std::process::ExitCode;

use amphora_initramfs::{init, pack};

const USAGE: &str = "Writes the initramfs of an installed kernel.

Usage: amphora-initramfs KERNEL-VERSION OUTPUT [MODULE...]

  KERNEL-VERSION  a directory of /lib/modules
  OUTPUT          the file to write, as a rule /boot/initrd.img-KERNEL-VERSION
  MODULE          modules to load beside those of the image";

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [version, output, more @ ..] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match pack::write(Path::new("/"), version, Path::new(output), more) {
        Ok(summary) => {
            println!("{output}: {summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("amphora-initramfs: {error}");
            ExitCode::FAILURE
        }
    }
}
