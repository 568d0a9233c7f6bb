//! Draws the screen of a program, of what it has written to a terminal; see `benches/demo-screen`.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    process::ExitCode,
};

use amphora_benches::{Result, exit_code, screen};
use clap::Parser;

/// Reads what a program has written to a terminal, and draws the last screen of it as SVG.
#[derive(Parser)]
#[command(name = "amphora-screen", version)]
struct Args {
    /// Of the screens with these words in them.
    #[arg(long, default_value = "")]
    with: String,
    /// What it is a picture of, for those who do not see it.
    #[arg(long)]
    title: String,
    /// Where the picture goes.
    #[arg(long)]
    svg: PathBuf,
}

fn main() -> ExitCode {
    exit_code("screen", run(&Args::parse()))
}

fn run(args: &Args) -> Result<bool> {
    let mut output = Vec::new();
    io::stdin().read_to_end(&mut output)?;
    let output = String::from_utf8_lossy(&output);
    let frame = screen::last_frame(&output, &args.with).ok_or_else(|| {
        format!("there is no screen with {:?} in it; the end of what there is:\n{}", args.with, tail(&output))
    })?;
    fs::write(&args.svg, screen::svg(frame, &args.title))?;
    eprintln!("screen: written to {}", args.svg.display());
    Ok(true)
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
