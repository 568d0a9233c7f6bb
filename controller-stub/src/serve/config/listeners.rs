//! `[haproxy_amphora]`.

use amphora_ini::{
    ConfigError,
    reader::{Reader, bounded},
};

/// Octavia's `MAX_TIMEOUT`: 24 days.
const MAX_TIMEOUT: u32 = 24 * 24 * 60 * 60 * 1000;

const MILLISECONDS: fn(&str) -> Result<u32, String> = |text| bounded(0, MAX_TIMEOUT)(text);

/// `[haproxy_amphora]`: what a listener has that says nothing. Milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerDefaults {
    /// `timeout_client_data`.
    pub timeout_client_data: u32,
    /// `timeout_member_connect`.
    pub timeout_member_connect: u32,
    /// `timeout_member_data`.
    pub timeout_member_data: u32,
    /// `timeout_tcp_inspect`.
    pub timeout_tcp_inspect: u32,
    /// `default_connection_limit`: of a listener without a limit of its own.
    pub connection_limit: u32,
}

pub(super) fn read(read: &Reader<'_>) -> Result<ListenerDefaults, ConfigError> {
    const SECTION: &str = "haproxy_amphora";
    let timeout = |name| read.required(SECTION, name, MILLISECONDS);
    Ok(ListenerDefaults {
        timeout_client_data: timeout("timeout_client_data")?,
        timeout_member_connect: timeout("timeout_member_connect")?,
        timeout_member_data: timeout("timeout_member_data")?,
        timeout_tcp_inspect: timeout("timeout_tcp_inspect")?,
        connection_limit: read.required(SECTION, "default_connection_limit", bounded(1, 1_000_000))?,
    })
}
