//! The line that is written for each connection or request of a listener.

/// A flow log: Octavia's `[haproxy_amphora] user_log_format` and `[amphora_agent] user_log_facility`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlowLog {
    /// The format: HAProxy's `log-format` as it is after its quoting, with the ids in place; 1 to 4096 bytes, no control
    /// characters. Which variables there are is not known here.
    pub format: Box<str>,
    /// The syslog facility `local0` to `local7`, by its number.
    pub facility: u8,
}

impl FlowLog {
    /// Octavia's default of `user_log_format`, with the names that the ids come for.
    pub const DEFAULT_FORMAT: &'static str = "{{ project_id }} {{ lb_id }} %f %ci %cp %t %{+Q}r %ST %B %U %[ssl_c_verify] \
        %{+Q}[ssl_c_s_dn] %b %s %Tt %tsc";

    /// The longest format, in bytes.
    pub const MAX_FORMAT: usize = 4096;
}
