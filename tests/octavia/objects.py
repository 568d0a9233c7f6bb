"""Load balancers as Octavia's database has them, made from documents in which what is usual is left out.

    {"id", "vip_address", "additional_vips": [address], "admin_state_up",
     "listeners": [{"id", "protocol", "protocol_port", "default_pool_id", ..., "l7policies": [{..., "rules": [...]}]}],
     "pools": [{"id", "protocol", "lb_algorithm", "members": [...], "healthmonitor", "session_persistence", ...}]}

Fields are called as the API calls them, but for certificates, which are called as in the database (`tls_certificate_id`,
`client_ca_tls_certificate_id` ..): what a certificate manager is asked for. `of_native` makes such a document of one of the API /2.0.
"""

from octavia.common import data_models as models


# Octavia has these from release 13 on.
HSTS = ("hsts_max_age", "hsts_include_subdomains", "hsts_preload")


def of_native(doc):
    """The document of one of the API /2.0: there certificates are references, here they are what the references name."""
    return {
        **doc,
        "additional_vips": [vip["ip_address"] for vip in doc.get("additional_vips", [])],
        "listeners": [listener_of_native(listener) for listener in doc["listeners"]],
        "pools": [pool_of_native(pool) for pool in doc.get("pools", [])],
    }


def listener_of_native(doc):
    certificate = doc.get("default_tls_container_ref")
    terminates = certificate is not None
    known = {name: value for name, value in doc.items() if name not in HSTS or hasattr(models.Listener(), name)}
    return {
        **known,
        "tls_certificate_id": certificate,
        "client_ca_tls_certificate_id": doc.get("client_ca_tls_container_ref"),
        "client_crl_container_id": doc.get("client_crl_container_ref"),
        "client_authentication": doc.get("client_authentication", "NONE"),
        "tls_ciphers": doc.get("tls_ciphers") if terminates else None,
        "tls_versions": doc.get("tls_versions") if terminates else None,
        "alpn_protocols": (doc.get("alpn_protocols") or None) if terminates else None,
        # The text names a file that lists them.
        "sni_containers": [],
    }


def pool_of_native(doc):
    monitor = doc.get("healthmonitor")
    return {
        **doc,
        "tls_certificate_id": doc.get("tls_container_ref"),
        "ca_tls_certificate_id": doc.get("ca_tls_container_ref"),
        "crl_container_id": doc.get("crl_container_ref"),
        "alpn_protocols": doc.get("alpn_protocols") or None,
        "healthmonitor": monitor and monitor_of_native(monitor),
    }


def monitor_of_native(doc):
    same = ("id", "name", "type", "delay", "timeout", "http_method", "url_path", "expected_codes", "domain_name")
    return {
        **given(doc, *same),
        "enabled": doc["admin_state_up"],
        "fall_threshold": doc["max_retries_down"],
        "rise_threshold": doc["max_retries"],
        "http_version": doc.get("http_version"),
    }


def given(doc, *names):
    """Those of the fields that the document has."""
    return {name: doc[name] for name in names if name in doc}


def monitor_model(pool, doc):
    return models.HealthMonitor(**{"pool": pool, "enabled": True, "rise_threshold": 1, "http_version": 1.1, **doc})


def member_model(pool, doc):
    return models.Member(
        id=doc["id"],
        pool=pool,
        ip_address=doc["address"],
        protocol_port=doc["protocol_port"],
        weight=doc.get("weight", 1),
        backup=doc.get("backup", False),
        enabled=doc.get("admin_state_up", True),
        **given(doc, "name", "monitor_address", "monitor_port"),
    )


def pool_model(lb, doc):
    pool = models.Pool(
        id=doc["id"],
        project_id=lb.project_id,
        load_balancer=lb,
        protocol=doc["protocol"],
        lb_algorithm=doc["lb_algorithm"],
        enabled=doc.get("admin_state_up", True),
        tls_enabled=doc.get("tls_enabled", False),
        **given(doc, "name", "tls_certificate_id", "ca_tls_certificate_id", "crl_container_id", "tls_versions", "tls_ciphers", "alpn_protocols"),
    )
    if persistence := doc.get("session_persistence"):
        pool.session_persistence = models.SessionPersistence(pool=pool, **persistence)
    if monitor := doc.get("healthmonitor"):
        pool.health_monitor = monitor_model(pool, monitor)
    pool.members = [member_model(pool, member) for member in doc.get("members", [])]
    return pool


def policy_model(listener, pools, doc):
    policy = models.L7Policy(
        id=doc["id"],
        listener=listener,
        action=doc["action"],
        position=doc["position"],
        enabled=doc.get("admin_state_up", True),
        redirect_pool=pools.get(doc.get("redirect_pool_id")),
        **given(doc, "name", "redirect_url", "redirect_prefix", "redirect_http_code"),
    )
    policy.l7rules = [
        models.L7Rule(
            id=rule["id"],
            l7policy=policy,
            type=rule["type"],
            compare_type=rule["compare_type"],
            value=rule["value"],
            key=rule.get("key"),
            invert=rule.get("invert", False),
            enabled=rule.get("admin_state_up", True),
        )
        for rule in doc.get("rules", [])
    ]
    return policy


def listener_model(lb, pools, doc):
    listener = models.Listener(
        id=doc["id"],
        project_id=lb.project_id,
        load_balancer=lb,
        protocol=doc["protocol"],
        protocol_port=doc["protocol_port"],
        connection_limit=doc.get("connection_limit", -1),
        enabled=doc.get("admin_state_up", True),
        default_pool=pools.get(doc.get("default_pool_id")),
        insert_headers=doc.get("insert_headers", {}),
        peer_port=1025,
        tls_versions=doc.get("tls_versions", ["TLSv1.2", "TLSv1.3"]),
        alpn_protocols=doc.get("alpn_protocols", ["http/1.1"]),
        sni_containers=[models.SNI(listener_id=doc["id"], tls_container_id=sni) for sni in doc.get("sni_containers", [])],
        **given(doc, "name", "tls_certificate_id", "tls_ciphers", "client_ca_tls_certificate_id", "client_authentication", "client_crl_container_id",
                "timeout_client_data", "timeout_member_connect", "timeout_member_data", "timeout_tcp_inspect", *HSTS),
    )
    # The database hands policies out by position.
    policies = [policy_model(listener, pools, policy) for policy in doc.get("l7policies", [])]
    listener.l7policies = sorted(policies, key=lambda policy: policy.position)
    used = [listener.default_pool] + [policy.redirect_pool for policy in listener.l7policies]
    listener.pools = list({pool.id: pool for pool in used if pool}.values())
    return listener


def load_balancer_model(doc):
    lb = models.LoadBalancer(
        id=doc["id"],
        project_id="project",
        enabled=doc.get("admin_state_up", True),
        vip=models.Vip(ip_address=doc["vip_address"]),
        additional_vips=[models.AdditionalVip(ip_address=address) for address in doc.get("additional_vips", [])],
        **given(doc, "name"),
    )
    pools = {pool["id"]: pool_model(lb, pool) for pool in doc.get("pools", [])}
    lb.pools = list(pools.values())
    lb.listeners = [listener_model(lb, pools, listener) for listener in doc["listeners"]]
    return lb
