-- The names are those of Octavia's API. Lists and maps are JSON. Times are milliseconds since 1970 (UTC).
-- `generation` of an object is its load balancer's at its last change: what was rendered at that generation has it.

CREATE TABLE flavor_profile (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    provider_name TEXT NOT NULL,
    flavor_data TEXT NOT NULL CHECK (json_valid(flavor_data))
) STRICT;

CREATE TABLE flavor (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL DEFAULT '',
    enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    flavor_profile_id TEXT NOT NULL REFERENCES flavor_profile (id)
) STRICT;

CREATE TABLE availability_zone_profile (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    provider_name TEXT NOT NULL,
    availability_zone_data TEXT NOT NULL CHECK (json_valid(availability_zone_data))
) STRICT;

CREATE TABLE availability_zone (
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL DEFAULT '',
    enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    availability_zone_profile_id TEXT NOT NULL REFERENCES availability_zone_profile (id)
) STRICT;

CREATE TABLE quota (
    project_id TEXT PRIMARY KEY,
    load_balancer INTEGER,
    listener INTEGER,
    pool INTEGER,
    member INTEGER,
    health_monitor INTEGER,
    l7policy INTEGER,
    l7rule INTEGER
) STRICT;

CREATE TABLE load_balancer (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    admin_state_up INTEGER NOT NULL DEFAULT 1 CHECK (admin_state_up IN (0, 1)),
    provisioning_status TEXT NOT NULL
        CHECK (provisioning_status IN ('ACTIVE', 'PENDING_CREATE', 'PENDING_UPDATE', 'PENDING_DELETE', 'ERROR')),
    operating_status TEXT NOT NULL DEFAULT 'OFFLINE',
    topology TEXT NOT NULL CHECK (topology IN ('SINGLE', 'ACTIVE_STANDBY')),
    compute_driver TEXT NOT NULL,
    provider TEXT NOT NULL,
    flavor_id TEXT REFERENCES flavor (id),
    availability_zone TEXT REFERENCES availability_zone (name),
    vip_address TEXT NOT NULL,
    vip_port_id TEXT NOT NULL,
    vip_subnet_id TEXT NOT NULL,
    vip_network_id TEXT NOT NULL,
    vip_qos_policy_id TEXT,
    vip_sg_ids TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(vip_sg_ids)),
    vip_vnic_type TEXT NOT NULL DEFAULT 'normal',
    additional_vips TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(additional_vips)),
    tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    generation INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX load_balancer_project ON load_balancer (project_id);

CREATE TABLE pool (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    load_balancer_id TEXT NOT NULL REFERENCES load_balancer (id) ON DELETE CASCADE,
    name TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    admin_state_up INTEGER NOT NULL DEFAULT 1 CHECK (admin_state_up IN (0, 1)),
    provisioning_status TEXT NOT NULL
        CHECK (provisioning_status IN ('ACTIVE', 'PENDING_CREATE', 'PENDING_UPDATE', 'PENDING_DELETE', 'ERROR')),
    operating_status TEXT NOT NULL DEFAULT 'OFFLINE',
    protocol TEXT NOT NULL,
    lb_algorithm TEXT NOT NULL,
    session_persistence TEXT CHECK (session_persistence IS NULL OR json_valid(session_persistence)),
    tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
    tls_container_ref TEXT,
    ca_tls_container_ref TEXT,
    crl_container_ref TEXT,
    tls_enabled INTEGER NOT NULL DEFAULT 0 CHECK (tls_enabled IN (0, 1)),
    tls_ciphers TEXT,
    tls_versions TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tls_versions)),
    alpn_protocols TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(alpn_protocols)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    generation INTEGER NOT NULL
) STRICT;
CREATE INDEX pool_load_balancer ON pool (load_balancer_id);
CREATE INDEX pool_project ON pool (project_id);

CREATE TABLE listener (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    load_balancer_id TEXT NOT NULL REFERENCES load_balancer (id) ON DELETE CASCADE,
    name TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    admin_state_up INTEGER NOT NULL DEFAULT 1 CHECK (admin_state_up IN (0, 1)),
    provisioning_status TEXT NOT NULL
        CHECK (provisioning_status IN ('ACTIVE', 'PENDING_CREATE', 'PENDING_UPDATE', 'PENDING_DELETE', 'ERROR')),
    operating_status TEXT NOT NULL DEFAULT 'OFFLINE',
    protocol TEXT NOT NULL,
    protocol_port INTEGER NOT NULL CHECK (protocol_port BETWEEN 1 AND 65535),
    connection_limit INTEGER NOT NULL DEFAULT -1,
    default_pool_id TEXT REFERENCES pool (id) DEFERRABLE INITIALLY DEFERRED,
    default_tls_container_ref TEXT,
    sni_container_refs TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(sni_container_refs)),
    client_ca_tls_container_ref TEXT,
    client_authentication TEXT NOT NULL DEFAULT 'NONE',
    client_crl_container_ref TEXT,
    insert_headers TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(insert_headers)),
    timeout_client_data INTEGER NOT NULL,
    timeout_member_connect INTEGER NOT NULL,
    timeout_member_data INTEGER NOT NULL,
    timeout_tcp_inspect INTEGER NOT NULL,
    tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
    allowed_cidrs TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(allowed_cidrs)),
    tls_ciphers TEXT,
    tls_versions TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tls_versions)),
    alpn_protocols TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(alpn_protocols)),
    hsts_max_age INTEGER,
    hsts_include_subdomains INTEGER NOT NULL DEFAULT 0 CHECK (hsts_include_subdomains IN (0, 1)),
    hsts_preload INTEGER NOT NULL DEFAULT 0 CHECK (hsts_preload IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    generation INTEGER NOT NULL
) STRICT;
CREATE INDEX listener_load_balancer ON listener (load_balancer_id);
CREATE INDEX listener_project ON listener (project_id);

CREATE TABLE member (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    pool_id TEXT NOT NULL REFERENCES pool (id) ON DELETE CASCADE,
    name TEXT NOT NULL DEFAULT '',
    admin_state_up INTEGER NOT NULL DEFAULT 1 CHECK (admin_state_up IN (0, 1)),
    provisioning_status TEXT NOT NULL
        CHECK (provisioning_status IN ('ACTIVE', 'PENDING_CREATE', 'PENDING_UPDATE', 'PENDING_DELETE', 'ERROR')),
    operating_status TEXT NOT NULL DEFAULT 'NO_MONITOR',
    address TEXT NOT NULL,
    protocol_port INTEGER NOT NULL CHECK (protocol_port BETWEEN 1 AND 65535),
    weight INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0 AND 256),
    backup INTEGER NOT NULL DEFAULT 0 CHECK (backup IN (0, 1)),
    subnet_id TEXT,
    monitor_address TEXT,
    monitor_port INTEGER CHECK (monitor_port BETWEEN 1 AND 65535),
    tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
    vnic_type TEXT NOT NULL DEFAULT 'normal',
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    generation INTEGER NOT NULL,
    UNIQUE (pool_id, address, protocol_port)
) STRICT;
CREATE INDEX member_project ON member (project_id);

CREATE TABLE health_monitor (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    pool_id TEXT NOT NULL UNIQUE REFERENCES pool (id) ON DELETE CASCADE,
    name TEXT NOT NULL DEFAULT '',
    admin_state_up INTEGER NOT NULL DEFAULT 1 CHECK (admin_state_up IN (0, 1)),
    provisioning_status TEXT NOT NULL
        CHECK (provisioning_status IN ('ACTIVE', 'PENDING_CREATE', 'PENDING_UPDATE', 'PENDING_DELETE', 'ERROR')),
    operating_status TEXT NOT NULL DEFAULT 'OFFLINE',
    type TEXT NOT NULL,
    delay INTEGER NOT NULL,
    timeout INTEGER NOT NULL,
    max_retries INTEGER NOT NULL,
    max_retries_down INTEGER NOT NULL DEFAULT 3,
    http_method TEXT,
    url_path TEXT,
    expected_codes TEXT,
    http_version REAL,
    domain_name TEXT,
    tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    generation INTEGER NOT NULL
) STRICT;
CREATE INDEX health_monitor_project ON health_monitor (project_id);

CREATE TABLE l7policy (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    listener_id TEXT NOT NULL REFERENCES listener (id) ON DELETE CASCADE,
    name TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    admin_state_up INTEGER NOT NULL DEFAULT 1 CHECK (admin_state_up IN (0, 1)),
    provisioning_status TEXT NOT NULL
        CHECK (provisioning_status IN ('ACTIVE', 'PENDING_CREATE', 'PENDING_UPDATE', 'PENDING_DELETE', 'ERROR')),
    operating_status TEXT NOT NULL DEFAULT 'OFFLINE',
    action TEXT NOT NULL,
    redirect_pool_id TEXT REFERENCES pool (id) DEFERRABLE INITIALLY DEFERRED,
    redirect_url TEXT,
    redirect_prefix TEXT,
    redirect_http_code INTEGER,
    position INTEGER NOT NULL CHECK (position >= 1),
    tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    generation INTEGER NOT NULL
) STRICT;
CREATE INDEX l7policy_listener ON l7policy (listener_id);
CREATE INDEX l7policy_pool ON l7policy (redirect_pool_id);
CREATE INDEX l7policy_project ON l7policy (project_id);
CREATE INDEX listener_pool ON listener (default_pool_id);

CREATE TABLE l7rule (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    l7policy_id TEXT NOT NULL REFERENCES l7policy (id) ON DELETE CASCADE,
    admin_state_up INTEGER NOT NULL DEFAULT 1 CHECK (admin_state_up IN (0, 1)),
    provisioning_status TEXT NOT NULL
        CHECK (provisioning_status IN ('ACTIVE', 'PENDING_CREATE', 'PENDING_UPDATE', 'PENDING_DELETE', 'ERROR')),
    operating_status TEXT NOT NULL DEFAULT 'OFFLINE',
    type TEXT NOT NULL,
    compare_type TEXT NOT NULL,
    key TEXT,
    value TEXT NOT NULL,
    invert INTEGER NOT NULL DEFAULT 0 CHECK (invert IN (0, 1)),
    tags TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    generation INTEGER NOT NULL
) STRICT;
CREATE INDEX l7rule_policy ON l7rule (l7policy_id);
CREATE INDEX l7rule_project ON l7rule (project_id);

-- An amphora is here before anything of it is made, and until all of it is gone. `load_balancer_id` is NULL for spares,
-- and for those that a failover has replaced.
CREATE TABLE amphora (
    id TEXT PRIMARY KEY,
    load_balancer_id TEXT REFERENCES load_balancer (id) ON DELETE SET NULL,
    status TEXT NOT NULL
        CHECK (status IN ('BOOTING', 'READY', 'ALLOCATED', 'PENDING_DELETE', 'ERROR', 'FAILOVER_STOPPED')),
    role TEXT CHECK (role IN ('STANDALONE', 'MASTER', 'BACKUP')),
    compute_driver TEXT NOT NULL,
    compute_id TEXT NOT NULL UNIQUE,
    compute_flavor TEXT,
    image_id TEXT,
    cached_zone TEXT,
    lb_network_ip TEXT NOT NULL,
    agent_port INTEGER NOT NULL,
    vrrp_ip TEXT,
    vrrp_port_id TEXT,
    vrrp_interface TEXT,
    vrrp_id INTEGER,
    vrrp_priority INTEGER,
    ha_ip TEXT,
    ha_port_id TEXT,
    cert_expiration INTEGER NOT NULL,
    cert_busy INTEGER NOT NULL DEFAULT 0 CHECK (cert_busy IN (0, 1)),
    applied_generation INTEGER NOT NULL DEFAULT 0,
    last_update INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER
) STRICT;
CREATE INDEX amphora_load_balancer ON amphora (load_balancer_id);

-- Every address that is in use, of VIPs, of amphorae and of gateways: none is given twice.
CREATE TABLE port (
    id TEXT PRIMARY KEY,
    network_id TEXT NOT NULL,
    subnet_id TEXT NOT NULL,
    ip_address TEXT NOT NULL,
    mac_address TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    project_id TEXT NOT NULL DEFAULT '',
    device_owner TEXT NOT NULL DEFAULT '',
    device_id TEXT NOT NULL DEFAULT '',
    load_balancer_id TEXT REFERENCES load_balancer (id) ON DELETE CASCADE,
    amphora_id TEXT REFERENCES amphora (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    UNIQUE (subnet_id, ip_address)
) STRICT;
CREATE INDEX port_load_balancer ON port (load_balancer_id);
CREATE INDEX port_amphora ON port (amphora_id);

CREATE TABLE listener_statistics (
    listener_id TEXT NOT NULL REFERENCES listener (id) ON DELETE CASCADE,
    amphora_id TEXT NOT NULL,
    bytes_in INTEGER NOT NULL DEFAULT 0,
    bytes_out INTEGER NOT NULL DEFAULT 0,
    active_connections INTEGER NOT NULL DEFAULT 0,
    total_connections INTEGER NOT NULL DEFAULT 0,
    request_errors INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (listener_id, amphora_id)
) STRICT, WITHOUT ROWID;

-- What is to be done. A row is written in the transaction that makes it necessary, and goes in the one that says that it is done.
CREATE TABLE work (
    kind TEXT NOT NULL CHECK (kind IN ('LOAD_BALANCER', 'LOAD_BALANCER_FAILOVER', 'AMPHORA_FAILOVER', 'AMPHORA_CONFIGURE', 'AMPHORA_DELETE')),
    subject TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX work_time ON work (not_before);

CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    project_id TEXT NOT NULL,
    load_balancer_id TEXT NOT NULL,
    object_type TEXT NOT NULL,
    object_id TEXT NOT NULL,
    attribute TEXT NOT NULL,
    old TEXT,
    new TEXT,
    reason TEXT
) STRICT;
CREATE INDEX event_time ON event (at);
