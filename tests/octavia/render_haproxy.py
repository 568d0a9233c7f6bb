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

import objects

CERTIFICATES = "/var/lib/octavia/certs"

# What the templates or HAProxy's tokenizer would not leave as it is.
UNSAFE = re.compile(r"""[&<>'"#\t]|^-""")


def certificates_of(doc):
    """The files that the text is to name, by what the template looks them up by."""
    files = {}
    for pool in doc["pools"]:
        names = {
            "client_cert": pool["tls_certificate_id"],
            "ca_cert": pool["ca_tls_certificate_id"],
            "crl": pool["crl_container_id"],
        }
        files[pool["id"]] = {kind: f"{CERTIFICATES}/{doc['id']}/{name}.pem" for kind, name in names.items() if name}
    for listener in doc["listeners"]:
        for name in (listener["client_ca_tls_certificate_id"], listener["client_crl_container_id"]):
            if name:
                files[name] = f"{name}.pem"
    return files


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
    native = objects.of_native(doc["loadbalancer"])
    cfg.CONF.clear_override("user_log_format", group="haproxy_amphora")
    if doc["log_format"] is not None:
        cfg.CONF.set_override("user_log_format", doc["log_format"], group="haproxy_amphora")
    cfg.CONF.set_override("user_log_facility", doc["facility"], group="amphora_agent")
    lb = objects.load_balancer_model(native)
    lb.topology = doc["topology"]
    lb.amphorae = [
        models.Amphora(id=f"amphora-{n}", vrrp_ip=f"192.0.2.{n}", status=constants.AMPHORA_ALLOCATED)
        for n in (1, 2)
    ]
    templater = jinja_cfg.JinjaTemplater(connection_logging=doc["log_format"] is not None)
    text = templater.build_config(
        models.Amphora(),
        lb.listeners,
        tls_certs=certificates_of(native),
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
