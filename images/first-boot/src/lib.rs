//! What OpenStack hands to a machine, and what becomes of it: read from the config drive, or from the metadata service where
//! there is no drive.
//!
//! | module | what |
//! | --- | --- |
//! | [`plan`] | all of it as a list of actions |
//! | [`meta_data`] | `meta_data.json`: identity, host name, keys, files |
//! | [`network`] | `network_data.json` as files of systemd-networkd |
//! | [`user_data`] | the parts of user data: gzip, base64, MIME |
//! | [`cloud_config`] | `#cloud-config`: files, commands, time zone, keys |
//! | [`path`] | paths that stay where they belong |
//! | [`remarks`] | what is said about it |
//! | [`drive`] | which block device is the drive; mounting it |
//! | [`source`] | a drive's files, and the metadata service's |
//! | [`root`] | the file system that is written to |
//! | [`apply`] | carrying the actions out |
//! | [`command`] | the commands of user data, later |
//! | [`run`] | a whole boot |
//!
//! The first seven have no I/O; what they take came from outside the machine, and nothing of it makes them panic, grow without
//! bound, or leave the root. `docs/first-boot.md` is the manual.

pub mod apply;
pub mod cloud_config;
pub mod command;
pub mod drive;
#[doc(hidden)]
pub mod fuzz;
pub mod meta_data;
pub mod network;
pub mod path;
pub mod plan;
pub mod remarks;
pub mod root;
pub mod run;
pub mod source;
mod sys;
pub mod user_data;
