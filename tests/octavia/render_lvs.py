#!/usr/bin/env python3
"""Renders keepalived's texts of listeners of datagrams with Octavia's own template.

Reads a list of load balancers (documents of the native API, JSON) on standard input and writes for each of them a list with an object for
each listener of UDP and SCTP: `{"id": ..., "text": ...}`. Runs in an environment that has the package octavia (12.0.0 to 19.0.0).
"""

import json
import sys

from octavia.common import config  # noqa: F401  registers the options
from octavia.common.jinja.lvs import jinja_cfg

import objects


def render(doc):
    lb = objects.load_balancer_model(objects.of_native(doc["loadbalancer"]))
    texts = []
    for listener, model in zip(doc["loadbalancer"]["listeners"], lb.listeners):
        if model.protocol not in ("UDP", "SCTP"):
            continue
        model.connection_limit = listener.get("amphora", {}).get("member_connection_limit", -1)
        texts.append({"id": model.id, "text": jinja_cfg.LvsJinjaTemplater().build_config(model)})
    return texts


def main():
    json.dump([render(doc) for doc in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
