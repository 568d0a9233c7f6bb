//! What options have that nobody sets.

/// The ciphers that Octavia gives a listener or a pool that names none (`CIPHERS_OWASP_SUITE_B`).
const CIPHERS: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:\
    ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
    ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
    DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305";

/// The default of each option that has one.
pub(super) const DEFAULTS: &[(&str, &str, &str)] = &[
    ("DEFAULT", "debug", "false"),
    ("api_settings", "bind_host", "127.0.0.1"),
    ("api_settings", "bind_port", "9876"),
    ("api_settings", "auth_strategy", "noauth"),
    ("api_settings", "allow_pagination", "true"),
    ("api_settings", "allow_sorting", "true"),
    ("api_settings", "allow_filtering", "true"),
    ("api_settings", "allow_field_selection", "true"),
    ("api_settings", "pagination_max_limit", "1000"),
    ("api_settings", "allow_tls_terminated_listeners", "true"),
    ("api_settings", "allow_ping_health_monitors", "true"),
    ("api_settings", "allow_prometheus_listeners", "true"),
    ("api_settings", "udp_connect_min_interval_health_monitor", "3"),
    ("api_settings", "default_listener_ciphers", CIPHERS),
    ("api_settings", "default_pool_ciphers", CIPHERS),
    ("api_settings", "tls_cipher_prohibit_list", ""),
    ("api_settings", "default_listener_tls_versions", "TLSv1.2, TLSv1.3"),
    ("api_settings", "default_pool_tls_versions", "TLSv1.2, TLSv1.3"),
    ("api_settings", "minimum_tls_version", ""),
    ("api_settings", "default_listener_alpn_protocols", "h2, http/1.1, http/1.0"),
    ("api_settings", "default_pool_alpn_protocols", "h2, http/1.1, http/1.0"),
    ("api_settings", "metrics_auth", "true"),
    ("api_settings", "strict_immutable", "false"),
    ("controller_worker", "loadbalancer_topology", "SINGLE"),
    ("controller_worker", "workers", "8"),
    ("health_manager", "bind_ip", "127.0.0.1"),
    ("health_manager", "bind_port", "5555"),
    ("health_manager", "heartbeat_interval", "3"),
    ("health_manager", "heartbeat_timeout", "12"),
    ("health_manager", "health_check_interval", "1"),
    ("house_keeping", "cert_interval", "3600"),
    ("house_keeping", "cert_expiry_buffer", "1209600"),
    ("house_keeping", "event_expiry_age", "604800"),
    ("house_keeping", "load_balancer_expiry_age", "604800"),
    ("house_keeping", "spare_amphora_pool_size", "0"),
    ("certificates", "cert_validity_time", "2592000"),
    ("certificates", "ca_validity_time", "315360000"),
    ("haproxy_amphora", "timeout_client_data", "50000"),
    ("haproxy_amphora", "timeout_member_connect", "5000"),
    ("haproxy_amphora", "timeout_member_data", "50000"),
    ("haproxy_amphora", "timeout_tcp_inspect", "0"),
    ("haproxy_amphora", "default_connection_limit", "50000"),
    ("compute", "driver", "namespaces"),
    ("compute", "agent_ports", "19443-20442"),
    ("compute", "qemu_cmd", "qemu-system-x86_64"),
    ("compute", "qemu_img_cmd", "qemu-img"),
    ("compute", "mkisofs_cmd", "genisoimage"),
    ("compute", "memory", "1024"),
    ("compute", "cpus", "1"),
    ("compute", "accel", "auto"),
    ("compute", "management_network", "10.251.0.0/22"),
    ("compute", "boot_timeout", "300"),
    ("quotas", "default_load_balancer_quota", "-1"),
    ("quotas", "default_listener_quota", "-1"),
    ("quotas", "default_pool_quota", "-1"),
    ("quotas", "default_member_quota", "-1"),
    ("quotas", "default_health_monitor_quota", "-1"),
    ("quotas", "default_l7policy_quota", "-1"),
    ("quotas", "default_l7rule_quota", "-1"),
];

/// Options whose meaning somebody would rely on, and that nothing comes of.
pub(super) const ABSENT: &[(&str, &str)] = &[
    ("api_settings", "tls1_3_supported_ciphers"),
    ("house_keeping", "amphora_expiry_age"),
    ("networking", "allow_vip_network_id"),
];
