#!/usr/bin/env python3
"""Renders haproxy.cfg of many load balancers with Octavia's own templates, as its driver does.

Reads a JSON list on standard input and writes one of the same length on standard output: of each element the text, or the
error of Octavia's. With `--lines` it does so for an element on each line, until there are no more. Runs in an environment that has the
package octavia.

    {"loadbalancer": {..}, "topology": "SINGLE", "log_format": null, "facility": 0, "details": {..}}

`loadbalancer` is a document of the API /2.0 in its canonical form. Certificates are named by their ids.

With `"raw": true` there is a second text, of which one thing is not Octavia's: the templates HTML-escape values (`&` becomes `&amp;`)
and leave `#`, quotes, tabs and a leading `-` for HAProxy to stumble over. Where that would change what a rule compares with or where a
redirect leads, the raw value is put back, quoted for HAProxy.
"""

import json
import re
import sys

from oslo_config import cfg

from octavia.common import config  # noqa: F401  registers the options
from octavia.common import constants
from octavia.common import data_models as models
from octavia.common.jinja.haproxy.combined_listeners import jinja_cfg

CERTIFICATES = "/var/lib/octavia/certs"

# What the templates or HAProxy's tokenizer would not leave as it is.
UNSAFE = re.compile(r"""[&<>'"#\t]|^-""")

HSTS = ("hsts_max_age", "hsts_include_subdomains", "hsts_preload")


def monitor_model(doc):
    return models.HealthMonitor(
        id=doc["id"],
        type=doc["type"],
        delay=doc["delay"],
        timeout=doc["timeout"],
        fall_threshold=doc["max_retries_down"],
        rise_threshold=doc["max_retries"],
        enabled=doc["admin_state_up"],
        http_method=doc.get("http_method"),
        url_path=doc.get("url_path"),
        expected_codes=doc.get("expected_codes"),
        http_version=doc.get("http_version"),
        domain_name=doc.get("domain_name"),
    )


def pool_model(lb, doc, certificates):
    tls = doc.get("tls_enabled", False)
    pool = models.Pool(
        id=doc["id"],
        load_balancer=lb,
        protocol=doc["protocol"],
        lb_algorithm=doc["lb_algorithm"],
        enabled=doc["admin_state_up"],
        tls_enabled=tls,
        tls_certificate_id=doc.get("tls_container_ref"),
        ca_tls_certificate_id=doc.get("ca_tls_container_ref"),
        crl_container_id=doc.get("crl_container_ref"),
        tls_ciphers=doc.get("tls_ciphers"),
        tls_versions=doc.get("tls_versions"),
        alpn_protocols=doc.get("alpn_protocols") or None,
    )
    files = {
        "client_cert": doc.get("tls_container_ref"),
        "ca_cert": doc.get("ca_tls_container_ref"),
        "crl": doc.get("crl_container_ref"),
    }
    certificates[pool.id] = {kind: f"{CERTIFICATES}/{lb.id}/{name}.pem" for kind, name in files.items() if name}
    persistence = doc.get("session_persistence")
    if persistence:
        pool.session_persistence = models.SessionPersistence(
            type=persistence["type"], cookie_name=persistence.get("cookie_name")
        )
    if doc.get("healthmonitor"):
        pool.health_monitor = monitor_model(doc["healthmonitor"])
    pool.members = [
        models.Member(
            id=member["id"],
            pool=pool,
            ip_address=member["address"],
            protocol_port=member["protocol_port"],
            weight=member["weight"],
            backup=member["backup"],
            enabled=member["admin_state_up"],
            monitor_address=member.get("monitor_address"),
            monitor_port=member.get("monitor_port"),
        )
        for member in doc["members"]
    ]
    return pool


def policy_model(listener, pools, doc):
    policy = models.L7Policy(
        id=doc["id"],
        listener=listener,
        action=doc["action"],
        position=doc["position"],
        enabled=doc["admin_state_up"],
        redirect_url=doc.get("redirect_url"),
        redirect_prefix=doc.get("redirect_prefix"),
        redirect_http_code=doc.get("redirect_http_code"),
        redirect_pool=pools.get(doc.get("redirect_pool_id")),
    )
    policy.l7rules = [
        models.L7Rule(
            id=rule["id"],
            l7policy=policy,
            type=rule["type"],
            compare_type=rule["compare_type"],
            key=rule.get("key"),
            value=rule["value"],
            invert=rule["invert"],
            enabled=rule["admin_state_up"],
        )
        for rule in doc["rules"]
    ]
    return policy


def listener_model(lb, pools, doc, certificates):
    certificate = doc.get("default_tls_container_ref")
    authorities = doc.get("client_ca_tls_container_ref")
    revocations = doc.get("client_crl_container_ref")
    for name in (authorities, revocations):
        if name:
            certificates[name] = f"{name}.pem"
    terminates = certificate is not None
    listener = models.Listener(
        id=doc["id"],
        load_balancer=lb,
        protocol=doc["protocol"],
        protocol_port=doc["protocol_port"],
        connection_limit=doc["connection_limit"],
        enabled=doc["admin_state_up"],
        default_pool=pools.get(doc.get("default_pool_id")),
        insert_headers=doc.get("insert_headers", {}),
        timeout_client_data=doc["timeout_client_data"],
        timeout_member_connect=doc["timeout_member_connect"],
        timeout_member_data=doc["timeout_member_data"],
        timeout_tcp_inspect=doc["timeout_tcp_inspect"],
        tls_certificate_id=certificate,
        client_ca_tls_certificate_id=authorities,
        client_crl_container_id=revocations,
        client_authentication=doc.get("client_authentication", "NONE"),
        tls_ciphers=doc.get("tls_ciphers") if terminates else None,
        tls_versions=doc.get("tls_versions") if terminates else None,
        alpn_protocols=(doc.get("alpn_protocols") or None) if terminates else None,
        peer_port=1025,
        # Octavia has these from release 13 on.
        **{field: doc[field] for field in HSTS if field in doc and hasattr(models.Listener(), field)},
    )
    listener.l7policies = [policy_model(listener, pools, policy) for policy in doc.get("l7policies", [])]
    used = [listener.default_pool] + [policy.redirect_pool for policy in listener.l7policies]
    listener.pools = list({pool.id: pool for pool in used if pool}.values())
    return listener


def quoted(value):
    return "'" + value.replace("'", "'\\''") + "'"


def restored(text, lb):
    """The text with raw values where the rendering does not carry them, and how many these are."""
    lines = text.split("\n")
    count = 0
    acls = {match[1]: number for number, line in enumerate(lines)
            if (match := re.match(r"\s*acl (\S+) ", line))}
    for listener in lb.listeners:
        for policy in listener.l7policies:
            for rule in policy.l7rules:
                number = acls.get(rule.id)
                if number is None or not UNSAFE.search(rule.value):
                    continue
                head = re.match(r"\s*acl \S+ \S+(?: -i)?(?: -m \S+)? ", lines[number])
                lines[number] = f"{head[0]}-- {quoted(rule.value)}"
                count += 1
    targets = {
        str(jinja_cfg.jinja2.filters.escape(target)): target
        for listener in lb.listeners
        for policy in listener.l7policies
        for target in (policy.redirect_url, policy.redirect_prefix)
        if target and UNSAFE.search(target)
    }
    for number, line in enumerate(lines):
        match = re.match(r"(\s*redirect .*?(?:location|prefix) )(\S+)( if .*)", line)
        if match and match[2] in targets:
            lines[number] = match[1] + quoted(targets[match[2]]) + match[3]
            count += 1
    return "\n".join(lines), count


def render(doc):
    lb_doc = doc["loadbalancer"]
    cfg.CONF.clear_override("user_log_format", group="haproxy_amphora")
    if doc["log_format"] is not None:
        cfg.CONF.set_override("user_log_format", doc["log_format"], group="haproxy_amphora")
    cfg.CONF.set_override("user_log_facility", doc["facility"], group="amphora_agent")
    lb = models.LoadBalancer(
        id=lb_doc["id"],
        project_id="project",
        topology=doc["topology"],
        enabled=lb_doc["admin_state_up"],
        vip=models.Vip(ip_address=lb_doc["vip_address"]),
        additional_vips=[
            models.AdditionalVip(ip_address=vip["ip_address"]) for vip in lb_doc.get("additional_vips", [])
        ],
    )
    lb.amphorae = [
        models.Amphora(id=f"amphora-{n}", vrrp_ip=f"192.0.2.{n}", status=constants.AMPHORA_ALLOCATED)
        for n in (1, 2)
    ]
    certificates = {}
    pools = {pool["id"]: pool_model(lb, pool, certificates) for pool in lb_doc["pools"]}
    lb.pools = list(pools.values())
    lb.listeners = [listener_model(lb, pools, listener, certificates) for listener in lb_doc["listeners"]]
    templater = jinja_cfg.JinjaTemplater(connection_logging=doc["log_format"] is not None)
    text = templater.build_config(
        models.Amphora(),
        lb.listeners,
        tls_certs=certificates,
        haproxy_versions=("2", "6", "12"),
        amp_details=doc["details"],
    )
    if not doc.get("raw"):
        return {"text": text}
    raw, count = restored(text, lb)
    return {"text": text, "raw": raw, "restored": count}


def attempt(doc):
    try:
        return render(doc)
    except Exception as error:  # noqa: BLE001  the test judges it
        return {"error": repr(error)}


def main():
    if "--lines" in sys.argv[1:]:
        for line in sys.stdin:
            print(json.dumps(attempt(json.loads(line))), flush=True)
        return
    json.dump([attempt(doc) for doc in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
