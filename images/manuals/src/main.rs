//! `amphora-manuals DIR`: writes the manual pages of the programs to `DIR/man`, and their completions to `DIR/bash`, `DIR/zsh` and
//! `DIR/fish`. Packages are made with it, so that the programs need not carry either.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

// The command lines of those whose library has none: that of the agent and of the proxy are in their programs, and the VRRP
// daemon's is its own business. They are compiled once more rather than made public.
#[allow(dead_code, unreachable_pub, reason = "described here, not parsed")]
#[path = "../../../agent/src/cli.rs"]
mod agent;
#[allow(dead_code, unreachable_pub, reason = "described here, not parsed")]
#[path = "../../../proxy/src/cli.rs"]
mod proxy;
#[allow(dead_code, unreachable_pub, reason = "described here, not parsed")]
#[path = "../../../vrrp/src/cli.rs"]
mod vrrp;

/// A program, and the section of its manual page.
struct Program {
    command: Command,
    section: &'static str,
}

fn programs() -> Vec<Program> {
    let daemon = |name, command: Command| Program { command: command.name(name), section: "8" };
    vec![
        daemon("amphora-agent", agent::Arguments::command()),
        daemon("amphora-proxy", proxy::Options::command()),
        daemon("amphora-vrrp", vrrp::Options::command()),
        Program { command: amphora_controller::cli::command(), section: "1" },
    ]
}

/// Writes a program's page and those of its commands: `amphora-controller-vrrp-failover(1)`.
fn write_pages(directory: &Path, command: &Command, section: &str) -> io::Result<()> {
    Man::new(command.clone()).section(section).manual("Amphora").generate_to(directory)?;
    for inner in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write_pages(directory, inner, section)?;
    }
    Ok(())
}

fn write(directory: &Path) -> io::Result<()> {
    let shells = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];
    let pages = directory.join("man");
    fs::create_dir_all(&pages)?;
    for (name, _) in shells {
        fs::create_dir_all(directory.join(name))?;
    }
    for Program { command, section } in programs() {
        let mut command = command.disable_help_subcommand(true);
        let name = command.get_name().to_owned();
        for (directory_name, shell) in shells {
            generate_to(shell, &mut command, &name, directory.join(directory_name))?;
        }
        command.build();
        write_pages(&pages, &command, section)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: amphora-manuals DIR");
        return ExitCode::from(2);
    };
    let directory = PathBuf::from(directory);
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("amphora-manuals: {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_program_and_command_has_a_page_and_every_program_completions() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let read = |path: &str| fs::read_to_string(directory.path().join(path)).unwrap();
        for program in ["agent", "proxy", "vrrp"] {
            let page = read(&format!("man/amphora-{program}.8"));
            assert!(page.contains(&format!(".SH NAME\namphora\\-{program} \\- ")), "{page}");
        }
        assert!(read("man/amphora-agent.8").contains("config\\-dir"));
        assert!(read("man/amphora-controller.1").contains("Exit codes:"));
        assert!(
            read("man/amphora-controller-vrrp-failover.1").contains("amphora\\-controller vrrp failover")
        );
        for program in ["amphora-agent", "amphora-proxy", "amphora-vrrp", "amphora-controller"] {
            assert!(read(&format!("bash/{program}.bash")).contains(&format!(" {program}\n")));
            assert!(read(&format!("zsh/_{program}")).starts_with(&format!("#compdef {program}")));
            assert!(read(&format!("fish/{program}.fish")).contains(program));
        }
        let hidden = fs::read_dir(directory.path().join("man")).unwrap().map(|e| e.unwrap().file_name());
        assert_eq!(hidden.filter(|name| name.to_string_lossy().contains("demo-")).count(), 0);
    }
}
