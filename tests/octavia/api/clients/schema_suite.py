"""schemathesis, by the description that `serve` tells: no answer of 5xx, and none that is not described."""

import json
import os
import pathlib
import subprocess
import time

# Few load balancers, so that what is made is about the same ones, and the machine is not filled with amphorae.
SETTINGS = {"quotas": {"default_load_balancer_quota": 12}}

# WSME takes `"1"` for 1 and `"yes"` for true, and so does serve: what is no value by the description may be taken all the same.
# What is deleted is there until amphorae have let it go, and much of what is well written is refused for what it is about.
NOT_OF_OCTAVIA = [
    "negative_data_rejection",
    "positive_data_acceptance",
    "use_after_free",
    "ensure_resource_availability",
]


# What Octavia's driver has not either is told so: `SOURCE_IP_PORT`, IPv6 among members of UDP.
CONFIGURATION = """\
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501]
"""


def copies(_given):
    return 1


def arguments(parser):
    parser.add_argument("--seeds", default="1", help="one run for each, between commas")
    parser.add_argument("--examples", type=int, default=50, help="of each operation, at most")
    parser.add_argument("--phases", default="coverage,fuzzing,stateful", help="those of schemathesis")
    parser.add_argument("--seconds", type=int, help="how long a run may take")


def certificates(place):
    """A certificate with its key, and an authority's, where references lead to."""
    there = place / "data/certificates"
    there.mkdir(parents=True, exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    command += ["-subj", "/CN=shop.example", "-keyout", there / "shop.key", "-out", there / "ca.pem"]
    subprocess.run(command, check=True, capture_output=True)
    (there / "shop.pem").write_bytes((there / "ca.pem").read_bytes() + (there / "shop.key").read_bytes())


def first(serve):
    """One of everything, in what the rest is to be: by what it is called in bodies."""
    made = {}

    def make(path, name, body):
        status, answer = serve.call("POST", path, {name: body})
        if status != 201:
            raise SystemExit(f"POST {path}: {status} {answer}")
        made[name] = answer[name]["id"]

    subnet = serve.subnets(serve.network("vip"))[0]["id"]
    make("/v2/lbaas/loadbalancers", "loadbalancer", {"vip_subnet_id": subnet})
    while serve.call("GET", f"/v2/lbaas/loadbalancers/{made['loadbalancer']}")[1]["loadbalancer"]["provisioning_status"] != "ACTIVE":
        time.sleep(0.1)
    own = {"loadbalancer_id": made["loadbalancer"]}
    make("/v2/lbaas/listeners", "listener", {**own, "protocol": "HTTP", "protocol_port": 80})
    make("/v2/lbaas/pools", "pool", {**own, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"})
    make(f"/v2/lbaas/pools/{made['pool']}/members", "member", {"address": "10.60.0.9", "protocol_port": 80})
    monitor = {"pool_id": made["pool"], "type": "TCP", "delay": 5, "timeout": 3, "max_retries": 2}
    make("/v2/lbaas/healthmonitors", "healthmonitor", monitor)
    make("/v2/lbaas/l7policies", "l7policy", {"listener_id": made["listener"], "action": "REJECT"})
    rule = {"type": "PATH", "compare_type": "EQUAL_TO", "value": "/"}
    make(f"/v2/lbaas/l7policies/{made['l7policy']}/rules", "rule", rule)
    # What nobody makes by the API.
    network = serve.network("vip")
    amphorae = serve.call("GET", f"/v2/octavia/amphorae?loadbalancer_id={made['loadbalancer']}")[1]["amphorae"]
    made.update(network=network["id"], subnet=subnet, project="primary", provider="amphora")
    made.update({"amphora": amphora["id"] for amphora in amphorae})
    return made


def run(serve, place, given):
    certificates(place)
    configuration = place / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    failed = []
    for seed in given.seeds.split(","):
        environment = {
            **os.environ,
            "SCHEMATHESIS_HOOKS": "schema_hooks",
            "PYTHONPATH": str(pathlib.Path(__file__).parent),
            "SERVE_MADE": json.dumps(first(serve)),
            "SERVE_SUBNETS": ",".join(subnet["id"] for subnet in serve.subnets(serve.network("vip"))),
        }
        command = ["schemathesis", "--config-file", configuration, "run", f"{serve.url}/v2/lbaas/openapi.json"]
        command += ["--header", f"X-Auth-Token: {serve.token()}", "--seed", seed]
        command += ["--exclude-checks", ",".join(NOT_OF_OCTAVIA)]
        # A stream of events does not end.
        command += ["--phases", given.phases, "--exclude-path", "/lbaas/events"]
        command += ["--max-examples", str(given.examples), "--continue-on-failure", "--request-timeout", "20"]
        command += ["--report", "ndjson", "--report-ndjson-path", place / f"seed-{seed}.ndjson"]
        if given.seconds:
            command += ["--max-time", str(given.seconds)]
        print(f"seed {seed}", flush=True)
        done = subprocess.run(command, cwd=place, env=environment, check=False)
        if done.returncode or not serve.is_up():
            failed.append(seed)
        serve.empty()
    panics = [line for line in serve.log.read_text().splitlines() if "panicked" in line]
    print(*panics, sep="\n")
    print(f"{len(given.seeds.split(','))} runs, {len(failed)} failed, {len(panics)} panics")
    return 1 if failed or panics else 0
