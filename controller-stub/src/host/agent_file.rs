//! The configuration of an agent that runs on this host.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// What is said to an agent.
#[derive(Clone, Debug)]
pub(crate) struct AgentFile<'a> {
    /// Its REST API.
    pub(crate) bind: SocketAddr,
    /// Who it is.
    pub(crate) id: &'a str,
    /// `state` and `run` are in it.
    pub(crate) dir: &'a Path,
    /// The authority of controllers.
    pub(crate) ca: PathBuf,
    /// Its own key and certificate.
    pub(crate) certificate: PathBuf,
    /// Where heartbeats go, what signs them, and the seconds between two.
    pub(crate) heartbeats: Option<(SocketAddr, &'a str, u64)>,
    /// One of a pair, with VRRP.
    pub(crate) paired: bool,
    /// The network namespace of the data plane.
    pub(crate) netns: Option<&'a str>,
    /// Whom proxy and VRRP daemon run as; `None` leaves it to the agent.
    pub(crate) user: Option<&'a str>,
    /// Seconds that stopping waits for requests under way; `None` leaves it to the agent.
    pub(crate) drain_timeout: Option<u64>,
    /// The programs, where they are not beside the agent.
    pub(crate) proxy: Option<&'a Path>,
    /// As above.
    pub(crate) vrrp: Option<&'a Path>,
}

impl AgentFile<'_> {
    /// The text of the file.
    pub(crate) fn text(&self) -> String {
        let dir = self.dir.display();
        let mut text = format!(
            "[haproxy_amphora]\nbase_path = {dir}/state\nbind_host = {}\nbind_port = {}\n",
            self.bind.ip(),
            self.bind.port()
        );
        let mut say = |what: std::fmt::Arguments<'_>| {
            // Into a string nothing fails.
            let _ = writeln!(text, "{what}");
        };
        if let Some((address, key, interval)) = self.heartbeats {
            say(format_args!("[health_manager]\ncontroller_ip_port_list = {address}"));
            // `$name` is replaced by another option's value.
            say(format_args!("heartbeat_interval = {interval}\nheartbeat_key = {}", key.replace('$', "$$")));
        }
        say(format_args!("[amphora_agent]\namphora_id = {}", self.id));
        say(format_args!("agent_server_ca = {}", self.ca.display()));
        say(format_args!("agent_server_cert = {}", self.certificate.display()));
        let topology = if self.paired { "ACTIVE_STANDBY" } else { "SINGLE" };
        say(format_args!("[controller_worker]\nloadbalancer_topology = {topology}"));
        say(format_args!("[amphora]\nrun_dir = {dir}/run"));
        if let Some(seconds) = self.drain_timeout {
            say(format_args!("drain_timeout = {seconds}"));
        }
        if let Some(user) = self.user {
            say(format_args!("proxy_user = {user}\nvrrp_user = {user}"));
        }
        if let Some(netns) = self.netns {
            say(format_args!("network_namespace = {netns}"));
        }
        for (option, program) in [("proxy_cmd", self.proxy), ("vrrp_cmd", self.vrrp)] {
            if let Some(program) = program {
                say(format_args!("{option} = {}", program.display()));
            }
        }
        text
    }
}
