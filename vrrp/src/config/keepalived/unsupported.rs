//! Why a keyword is refused.

use amphora_model::Faults;

use super::lexer::Statement;

const SCRIPTS: &str = "no script is run";
const SYNC: &str = "instances are independent of each other";
const VMAC: &str = "addresses stay with the interface's own hardware address";
const TRACK: &str = "only interfaces and the data plane are tracked";
const STATIC: &str = "addresses, routes and rules come and go with an instance";
const MAIL: &str = "no mail is sent";
const MULTICAST: &str = "multicast has the group of RFC 9568 and comes from the interface's own address";
const STRICT: &str = "strict mode would not accept packets to the addresses";

/// Keywords of keepalived's that a reader may expect to work.
const REASONS: &[(&str, &str)] = &[
    ("no_accept", "a load balancer must accept packets to its addresses"),
    ("strict_mode", STRICT),
    ("vrrp_strict", STRICT),
    ("vrrp_sync_group", SYNC),
    ("track_group", SYNC),
    ("use_vmac", VMAC),
    ("use_vmac_addr", VMAC),
    ("vmac_xmit_base", VMAC),
    ("use_ipvlan", VMAC),
    ("vrf", "the instance is in the network namespace of the daemon"),
    ("net_namespace", "the namespace is given when the daemon is started"),
    ("mcast_src_ip", MULTICAST),
    ("mcast_dst_ip", MULTICAST),
    ("vrrp_mcast_group4", MULTICAST),
    ("vrrp_mcast_group6", MULTICAST),
    ("unicast_ttl", "advertisements leave with a TTL of 255 (RFC 9568 section 5.1.1.3)"),
    ("track_src_ip", TRACK),
    ("track_file", TRACK),
    ("vrrp_track_file", TRACK),
    ("track_process", TRACK),
    ("vrrp_track_process", TRACK),
    ("track_bfd", TRACK),
    ("dont_track_primary", "without its interface an instance could not advertise"),
    ("init_fail", "the data plane is asked before the instance starts"),
    ("down_timer_adverts", "a master is down after three advertisements (RFC 9568 section 6.1)"),
    ("vrrp_down_timer_adverts", "a master is down after three advertisements (RFC 9568 section 6.1)"),
    ("lower_prio_no_advert", "a lower priority is always answered"),
    ("vrrp_lower_prio_no_advert", "a lower priority is always answered"),
    ("higher_prio_send_advert", "a higher priority is always answered, once"),
    ("vrrp_higher_prio_send_advert", "a higher priority is always answered, once"),
    ("skip_check_adv_addr", "the addresses of every advertisement are compared"),
    ("vrrp_skip_check_adv_addr", "the addresses of every advertisement are compared"),
    ("smtp_alert", MAIL),
    ("notification_email", MAIL),
    ("static_ipaddress", STATIC),
    ("static_routes", STATIC),
    ("static_rules", STATIC),
    ("lvs_sync_daemon", "IPVS is not used"),
    ("lvs_sync_daemon_interface", "IPVS is not used"),
    ("virtual_server", "IPVS is not used"),
    ("virtual_server_group", "IPVS is not used"),
    ("startup_script", SCRIPTS),
    ("shutdown_script", SCRIPTS),
];

/// Notes that the keyword is refused where it stands: in the block named `block`, or outside of any.
pub(super) fn refuse(statement: &Statement, block: &str, faults: &Faults) {
    let keyword = statement.keyword();
    let known = REASONS.iter().find(|(known, _)| *known == keyword).map(|(_, reason)| *reason);
    let reason = if keyword.starts_with("notify") { Some(SCRIPTS) } else { known };
    match (reason, block) {
        (Some(reason), _) => statement.fault(faults, format_args!("is not supported: {reason}")),
        (None, "") => statement.fault(faults, "is not a known block"),
        (None, block) => statement.fault(faults, format_args!("is not a known keyword in {block}")),
    }
}
