//! placeholder
use crate::error::Result;
use clap::Args;
/// o
#[derive(Args, Debug)]
pub struct Options {
    /// one
    #[arg(long)]
    once: bool,
}
/// o
#[derive(Args, Debug)]
pub struct MemberOptions {}
/// x
pub fn run(_: &Options) -> Result<()> {
    Ok(())
}
/// x
pub fn run_member(_: &MemberOptions) -> Result<()> {
    Ok(())
}
