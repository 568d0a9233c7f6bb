"""What schemathesis cannot know: subnets that there are, and what was made before. Without it nearly all would be refused."""

import collections
import json
import os
import threading
import zlib

import schemathesis

SUBNETS = os.environ["SERVE_SUBNETS"].split(",")
KEPT = 40

lock = threading.Lock()
# What was made, by what it is called in bodies.
made = collections.defaultdict(lambda: collections.deque(maxlen=KEPT))
for kind, identity in json.loads(os.environ["SERVE_MADE"]).items():
    made[kind].append(identity)

# Attributes of bodies that name something else, and what.
REFERENCES = {
    "loadbalancer_id": "loadbalancer",
    "listener_id": "listener",
    "default_pool_id": "pool",
    "redirect_pool_id": "pool",
    "pool_id": "pool",
    "flavor_profile_id": "flavorprofile",
    "availability_zone_profile_id": "availability_zone_profile",
    "flavor_id": "flavor",
}

# What only few values of are taken, though the description takes many: one that is.
TAKEN = {
    "provider_name": "amphora",
    "flavor_data": '{"loadbalancer_topology": "SINGLE"}',
    "availability_zone_data": '{"compute_zone": "nova"}',
    "tls_versions": ["TLSv1.3"],
    "tls_ciphers": "TLS_AES_128_GCM_SHA256",
    "insert_headers": {"X-Forwarded-For": "true"},
    "allowed_cidrs": ["10.0.0.0/8"],
    "session_persistence": {"type": "SOURCE_IP"},
    "expected_codes": "200",
    "default_tls_container_ref": "shop",
    "sni_container_refs": ["shop"],
    "client_ca_tls_container_ref": "ca",
    "client_crl_container_ref": None,
    "tls_container_ref": "shop",
    "ca_tls_container_ref": "ca",
    "crl_container_ref": None,
    "subnet_id": SUBNETS[0],
    "request_sriov": False,
    "name": "some",
}


# What is taken as it stands, but for what it names: half of what is made begins with it, and has one attribute more of those that were
# thought of.
SOUND = {
    "loadbalancer": lambda n: {},
    "listener": lambda n: {"protocol": ["HTTP", "TCP", "UDP", "TERMINATED_HTTPS"][n % 4], "protocol_port": 1024 + n % 60000,
                           **({"default_tls_container_ref": "shop"} if n % 4 == 3 else {})},
    "pool": lambda n: {"protocol": "HTTP", "lb_algorithm": ["ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP"][n % 3]},
    "member": lambda n: {"address": f"10.60.{n % 250 + 1}.{n // 250 % 250 + 1}", "protocol_port": 80},
    "healthmonitor": lambda n: {"type": ["HTTP", "TCP", "HTTPS"][n % 3], "delay": 5, "timeout": 3, "max_retries": 2},
    "l7policy": lambda n: {"action": "REJECT"},
    "rule": lambda n: {"type": "PATH", "compare_type": "STARTS_WITH", "value": f"/{n}"},
    "ratelimitpolicy": lambda n: {"action": "DENY"},
}
PARENTS = {
    "listener": {"loadbalancer_id": "loadbalancer"},
    "pool": {"loadbalancer_id": "loadbalancer"},
    "healthmonitor": {"pool_id": "pool"},
    "l7policy": {"listener_id": "listener"},
    "ratelimitpolicy": {"listener_id": "listener"},
}


def sound(name, object, choice):
    """A body that is taken, with one attribute of one that may not be."""
    begun = SOUND[name](choice)
    for attribute, kind in PARENTS.get(name, {}).items():
        if made[kind]:
            begun[attribute] = made[kind][choice % len(made[kind])]
    more = sorted(object.keys() - begun.keys() - {"listener_id", "loadbalancer_id"})
    if more and choice % 3:
        begun[more[choice % len(more)]] = object[more[choice % len(more)]]
    return begun


def digest(value):
    return zlib.crc32(repr(value).encode("utf-8", "surrogatepass"))


@schemathesis.hook
def map_body(ctx, body):
    if not isinstance(body, dict):
        return body
    # One of four stays as it was made.
    choice = digest(body)
    if choice % 4 == 0:
        return body
    for name, object in body.items():
        if not isinstance(object, dict):
            continue
        is_limit = "ratelimitpolicies" in ctx.operation.path and name == "rule"
        if ctx.operation.method.upper() == "POST" and choice // 4 % 2 and name in SOUND and not is_limit:
            object = body[name] = sound(name, object, choice)
        for attribute, kind in REFERENCES.items():
            known = made[kind]
            if object.get(attribute) is not None and known:
                object[attribute] = known[choice % len(known)]
        for attribute, value in TAKEN.items():
            if attribute in object and digest((attribute, choice)) % 8 and name != "availability_zone":
                object[attribute] = value
        if name == "loadbalancer" and ctx.operation.method.upper() == "POST":
            for attribute in ["vip_port_id", "vip_network_id", "vip_qos_policy_id", "vip_sg_ids", "vip_address"]:
                object.pop(attribute, None)
            for attribute in ["flavor_id", "availability_zone", "provider", "additional_vips"]:
                if choice % 8:
                    object.pop(attribute, None)
            object["vip_subnet_id"] = SUBNETS[choice % len(SUBNETS)]
    return body


# What path parameters are called, and what they are of.
KINDS = {
    "l7rule_id": "rule",
    "flavor_profile_id": "flavorprofile",
    "rate_limit_policy_id": "ratelimitpolicy",
    "rate_limit_rule_id": "limit",
}


@schemathesis.hook
def map_path_parameters(ctx, parameters):
    if not parameters:
        return parameters
    choice = digest(parameters)
    # Few of what others are in end, or nothing would be in any.
    outer = {"loadbalancer_id", "listener_id", "pool_id", "l7policy_id", "rate_limit_policy_id"} & parameters.keys()
    if ctx.operation.method.upper() == "DELETE" and len(parameters) == 1 and outer and choice % 16:
        return parameters
    for name in parameters:
        kind = KINDS.get(name, name.removesuffix("_id"))
        known = made[kind]
        if known and choice % 4:
            parameters[name] = known[choice % len(known)]
    return parameters


@schemathesis.hook
def after_call(ctx, case, response):
    if case.method.upper() != "POST" or response.status_code != 201:
        return
    with lock:
        for name, object in response.json().items():
            if isinstance(object, dict):
                name = "limit" if name == "rule" and "ratelimitpolicies" in case.path else name
                made[name].append(object.get("id") or object.get("name"))
