#!/usr/bin/env python3
"""Renders keepalived's texts of listeners of datagrams with Octavia's own template.

Reads a list of load balancers (documents of the native API, JSON) on standard input and writes for each of them a list with an object for
each listener of UDP and SCTP: `{"id": ..., "text": ...}`. Runs in an environment that has the package octavia (12.0.0 to 19.0.0).
"""

import json
import sys

from octavia.common import config  # noqa: F401  registers the options
from octavia.common import data_models as models
from octavia.common.jinja.lvs import jinja_cfg


def pool_model(doc):
    pool = models.Pool(
        id=doc["id"],
        protocol=doc["protocol"],
        lb_algorithm=doc["lb_algorithm"],
        enabled=doc["admin_state_up"],
    )
    persistence = doc.get("session_persistence")
    if persistence:
        pool.session_persistence = models.SessionPersistence(
            type=persistence["type"],
            persistence_timeout=persistence.get("persistence_timeout"),
            persistence_granularity=persistence.get("persistence_granularity"),
        )
    monitor = doc.get("healthmonitor")
    if monitor:
        pool.health_monitor = models.HealthMonitor(
            id=monitor["id"],
            type=monitor["type"],
            delay=monitor["delay"],
            timeout=monitor["timeout"],
            rise_threshold=monitor["max_retries"],
            fall_threshold=monitor["max_retries_down"],
            http_method=monitor.get("http_method"),
            url_path=monitor.get("url_path"),
            expected_codes=monitor.get("expected_codes"),
            enabled=monitor["admin_state_up"],
        )
    pool.members = [
        models.Member(
            id=member["id"],
            ip_address=member["address"],
            protocol_port=member["protocol_port"],
            weight=member["weight"],
            enabled=member["admin_state_up"],
            monitor_address=member.get("monitor_address"),
            monitor_port=member.get("monitor_port"),
        )
        for member in doc["members"]
    ]
    return pool


def render(doc):
    doc = doc["loadbalancer"]
    lb = models.LoadBalancer(
        id=doc["id"],
        enabled=doc["admin_state_up"],
        vip=models.Vip(ip_address=doc["vip_address"]),
        additional_vips=[
            models.AdditionalVip(ip_address=vip["ip_address"]) for vip in doc.get("additional_vips", [])
        ],
    )
    pools = {pool["id"]: pool_model(pool) for pool in doc["pools"]}
    texts = []
    for listener in doc["listeners"]:
        if listener["protocol"] not in ("UDP", "SCTP"):
            continue
        model = models.Listener(
            id=listener["id"],
            load_balancer=lb,
            protocol=listener["protocol"],
            protocol_port=listener["protocol_port"],
            connection_limit=listener.get("amphora", {}).get("member_connection_limit", -1),
            enabled=listener["admin_state_up"],
            default_pool=pools.get(listener.get("default_pool_id")),
        )
        texts.append({"id": listener["id"], "text": jinja_cfg.LvsJinjaTemplater().build_config(model)})
    return texts


def main():
    json.dump([render(doc) for doc in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
