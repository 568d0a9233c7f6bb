#!/usr/bin/env python3
"""Renders a load-balancer document with Octavia's own template.

Reads the fully populated create document (JSON) on standard input and writes the haproxy.cfg that Octavia's
controller would send for it on standard output. Runs in an environment that has the package octavia (19.0.0).

One thing is not Octavia's: the template HTML-escapes values (`&` becomes `&amp;`) and leaves `#`, quotes, tabs and a
leading `-` for HAProxy to stumble over. Where that would change what a rule compares with or where a redirect leads,
the raw value is put back, quoted for HAProxy. With --count the number of such lines goes to standard error.
"""

import json
import sys

from octavia.common import config  # noqa: F401  registers the options
from octavia.common import data_models as models
from octavia.common.jinja.haproxy.combined_listeners import jinja_cfg

from render_haproxy import restored


def pool_model(lb, doc):
    pool = models.Pool(
        id=doc["id"],
        load_balancer=lb,
        protocol=doc["protocol"],
        lb_algorithm=doc["lb_algorithm"],
        enabled=doc.get("admin_state_up", True),
        tls_enabled=False,
    )
    pool.members = [
        models.Member(
            id=member["id"],
            pool=pool,
            ip_address=member["address"],
            protocol_port=member["protocol_port"],
            weight=member.get("weight", 1),
            backup=member.get("backup", False),
            enabled=member.get("admin_state_up", True),
        )
        for member in doc.get("members", [])
    ]
    return pool


def policy_model(listener, pools, doc):
    policy = models.L7Policy(
        id=doc["id"],
        listener=listener,
        action=doc["action"],
        position=doc["position"],
        enabled=doc.get("admin_state_up", True),
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
            invert=rule.get("invert", False),
            enabled=rule.get("admin_state_up", True),
        )
        for rule in doc.get("rules", [])
    ]
    return policy


def load_balancer_model(doc):
    lb = models.LoadBalancer(
        id=doc["id"],
        project_id="project",
        topology="SINGLE",
        enabled=doc.get("admin_state_up", True),
        vip=models.Vip(ip_address=doc["vip_address"]),
        additional_vips=[],
    )
    pools = {pool["id"]: pool_model(lb, pool) for pool in doc.get("pools", [])}
    lb.pools = list(pools.values())
    for listener_doc in doc["listeners"]:
        listener = models.Listener(
            id=listener_doc["id"],
            load_balancer=lb,
            protocol=listener_doc["protocol"],
            protocol_port=listener_doc["protocol_port"],
            connection_limit=listener_doc.get("connection_limit", -1),
            enabled=listener_doc.get("admin_state_up", True),
            default_pool=pools.get(listener_doc.get("default_pool_id")),
            insert_headers=listener_doc.get("insert_headers", {}),
            peer_port=1025,
        )
        # The database hands policies out by position.
        listener.l7policies = sorted(
            (policy_model(listener, pools, policy) for policy in listener_doc.get("l7policies", [])),
            key=lambda policy: policy.position,
        )
        used = [listener.default_pool] + [policy.redirect_pool for policy in listener.l7policies]
        listener.pools = list({pool.id: pool for pool in used if pool}.values())
        lb.listeners.append(listener)
    return lb


def main():
    lb = load_balancer_model(json.load(sys.stdin)["loadbalancer"])
    templater = jinja_cfg.JinjaTemplater(connection_logging=False)
    text = templater.build_config(
        models.Amphora(), lb.listeners, tls_certs=None, haproxy_versions=("2", "6", "12"), amp_details=None
    )
    text, count = restored(text, lb)
    if "--count" in sys.argv[1:]:
        print(count, file=sys.stderr)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
