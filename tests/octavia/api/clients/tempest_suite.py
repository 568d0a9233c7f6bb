"""octavia-tempest-plugin's tests of the API, as they are: passed, failed, skipped, and why."""

import collections
import io
import os
import subprocess

from keystone import Keystone
from serve import PASSWORD, USERS, suffixes

TESTS = "octavia_tempest_plugin.tests.api"

CONFIGURATION = """\
[DEFAULT]
log_file = {place}/tempest.log
[auth]
use_dynamic_credentials = false
test_accounts_file = {place}/accounts.yaml
admin_username = admin
admin_project_name = admin
admin_password = {password}
admin_domain_name = Default
[identity]
auth_version = v3
uri_v3 = {url}/v3
[identity-feature-enabled]
api_v2_admin = false
[oslo_concurrency]
lock_path = {place}/locks
[service_available]
nova = true
glance = true
neutron = true
cinder = false
swift = false
[network]
project_networks_reachable = true
[validation]
run_validation = false
[load_balancer]
RBAC_test_type = keystone_default_roles
log_user_roles = false
# Networks are of the configuration.
test_network_override = {network}
test_with_ipv6 = false
provider = amphora
availability_zone = nova
availability_zone2 = nova2
availability_zone3 = nova3
enabled_provider_drivers = amphora:The Octavia Amphora driver.,octavia:Deprecated alias of the Octavia Amphora driver.
check_interval = 0.2
check_timeout = 60
lb_build_interval = 0.2
lb_build_timeout = 60
build_interval = 0.2
build_timeout = 60
"""


def arguments(parser):
    parser.add_argument("--regex", default=TESTS, help=f"which tests; {TESTS}")
    parser.add_argument("--workers", type=int, default=2, help="how many at a time")


def copies(given):
    """How many of each account: a worker takes one of each."""
    return given.workers


def account(name, suffix):
    """One of the accounts that tempest gives to its workers."""
    project, roles = USERS[name]
    kind = "types: [admin]" if roles == "admin" else f"roles: [{roles}]"
    return (
        f"- username: {name}{suffix}\n  project_name: {project}{suffix}\n  password: {PASSWORD}\n"
        f"  domain_name: Default\n  {kind}\n"
    )


def run(serve, place, given):
    accounts = [account(name, suffix) for suffix in suffixes(given.workers) for name in USERS]
    (place / "accounts.yaml").write_text("".join(accounts))
    keystone = Keystone(serve, given.workers)
    text = CONFIGURATION.format(
        place=place, password=PASSWORD, url=keystone.url, network=serve.network("vip")["id"]
    )
    (place / "tempest.conf").write_text(text)
    workspace = place / "workspace"
    environment = {
        **os.environ,
        "TEMPEST_CONFIG": str(place / "tempest.conf"),
        "OS_TEST_TIMEOUT": "600",
        "HOME": str(place),
    }
    subprocess.run(["tempest", "init", workspace], env=environment, check=True, stdout=subprocess.DEVNULL)
    command = ["tempest", "run", "--regex", given.regex, "--concurrency", str(given.workers)]
    command += ["--config-file", place / "tempest.conf"]
    subprocess.run(command, cwd=workspace, env=environment, check=False)
    last = subprocess.run(
        ["stestr", "last", "--subunit"], cwd=workspace, env=environment, check=False, capture_output=True
    ).stdout
    return told(last)


def told(stream):
    """Counts the tests of a stream of subunit, and says which have not passed, and why not."""
    import subunit
    import testtools

    outcomes = collections.defaultdict(list)

    def take(test):
        details = test["details"]
        reason = details.get("reason") or details.get("traceback")
        lines = reason.as_text().strip().splitlines() if reason else [""]
        outcomes[test["status"]].append((test["id"], lines[-1][:300]))

    result = testtools.StreamToDict(take)
    result.startTestRun()
    subunit.ByteStreamToStreamResult(io.BytesIO(stream), non_subunit_name="stdout").run(result)
    result.stopTestRun()
    reasons = collections.Counter(reason for _, reason in outcomes["skip"])
    for reason, count in reasons.most_common():
        print(f"skipped {count}: {reason}")
    for name, reason in outcomes["fail"]:
        print(f"FAILED {name.split('.', 4)[-1]}: {reason}")
    passed, failed, skipped = (len(outcomes[status]) for status in ("success", "fail", "skip"))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0
