"""Every command of python-octaviaclient, as a person types it."""

import contextlib
import importlib.metadata
import io
import json
import shlex

from openstackclient import shell

from serve import PASSWORD

# What is typed after `openstack loadbalancer`. `{NAME}` is what a line before has kept as NAME: behind `>` stand a name and the
# attribute whose value it is of. Behind `#` stands what must be in the answer.
SCRIPT = """
provider list # Octavia Amphora driver
provider capability list amphora # loadbalancer_topology
provider capability list amphora --flavor # compute_driver
provider capability list amphora --availability-zone # compute_zone
flavorprofile create --name pair --provider amphora --flavor-data '{{"loadbalancer_topology": "ACTIVE_STANDBY"}}' > profile id
flavorprofile list # pair
flavorprofile show pair # ACTIVE_STANDBY
flavorprofile set pair --flavor-data '{{"loadbalancer_topology": "SINGLE"}}' --name single
flavor create --name small --flavorprofile single --description text --enable # small
flavor list --name small # small
flavor show small # text
flavor set small --description other --disable
flavor set small --enable
flavor unset small --description
availabilityzoneprofile create --name here --provider amphora --availability-zone-data '{{"compute_zone": "nova"}}' # nova
availabilityzoneprofile list # here
availabilityzoneprofile show here # nova
availabilityzoneprofile set here --availability-zone-data '{{"compute_zone": "other"}}'
availabilityzone create --name zone --availabilityzoneprofile here --description text --enable # zone
availabilityzone list --name zone # zone
availabilityzone show zone # text
availabilityzone set zone --description other
availabilityzone unset zone --description
create --name one --vip-subnet-id vip-subnet --additional-vip subnet-id=vip-subnet-2 --flavor small --availability-zone zone --description text --provider amphora --tag a --tag b --wait > balancer id
list --name one --flavor small --provider amphora --tags a # one
show one # ACTIVE
set one --name first --description other --tag c --wait
unset first --description --wait
listener create first --name http --protocol HTTP --protocol-port 80 --connection-limit 100 --insert-headers X-Forwarded-For=true --timeout-client-data 1000 --timeout-member-connect 1000 --timeout-member-data 1000 --timeout-tcp-inspect 0 --allowed-cidr 10.0.0.0/8 --allowed-cidr 192.0.2.0/24 --wait # X-Forwarded-For
listener create first --name tcp --protocol TCP --protocol-port 81 --disable --wait # TCP
listener create first --name metrics --protocol PROMETHEUS --protocol-port 82 --wait # PROMETHEUS
listener list --loadbalancer first # metrics
listener show http # 10.0.0.0/8
listener set http --connection-limit 200 --description text --wait
listener unset http --connection-limit --allowed-cidrs --wait
listener stats show http # bytes_in
pool create --name pool --listener http --protocol HTTP --lb-algorithm LEAST_CONNECTIONS --session-persistence type=HTTP_COOKIE --wait # HTTP_COOKIE
pool create --name spare --loadbalancer first --protocol HTTP --lb-algorithm ROUND_ROBIN --enable-tls --tls-version TLSv1.3 --wait # TLSv1.3
pool list --loadbalancer first # spare
pool show pool # LEAST_CONNECTIONS
pool set pool --lb-algorithm SOURCE_IP --description text --wait
pool unset pool --session-persistence --description --wait
member create pool --name m1 --address 10.60.9.1 --protocol-port 80 --weight 5 --subnet-id vip-subnet --monitor-port 8080 --wait # 10.60.9.1
member create pool --name m2 --address 10.60.9.2 --protocol-port 80 --enable-backup --disable --wait # 10.60.9.2
member list pool # m2
member show pool m1 # 8080
member set pool m1 --weight 7 --monitor-address 10.60.9.3 --wait
member unset pool m1 --monitor-port --monitor-address --weight --wait
healthmonitor create pool --name monitor --type HTTP --delay 5 --timeout 3 --max-retries 2 --url-path /health --expected-codes 200-204 --http-method HEAD --http-version 1.1 --domain-name shop.example --wait # shop.example
healthmonitor list # monitor
healthmonitor show monitor # /health
healthmonitor set monitor --delay 6 --max-retries-down 4 --wait
healthmonitor unset monitor --domain-name --http-version --max-retries-down --wait
l7policy create http --name redirect --action REDIRECT_PREFIX --redirect-prefix https://shop.example --redirect-http-code 308 --wait # 308
l7policy create http --name pooled --action REDIRECT_TO_POOL --redirect-pool spare --position 1 --wait # spare|REDIRECT_TO_POOL
l7policy list --listener http # pooled
l7policy show redirect # https://shop.example
l7policy set redirect --description text --position 1 --wait
l7policy unset redirect --description --redirect-http-code --wait
l7rule create redirect --type PATH --compare-type STARTS_WITH --value /cart --wait > rule id
l7rule create redirect --type HEADER --compare-type REGEX --key X-Kind --value ^a+$ --invert --wait # X-Kind
l7rule list redirect # /cart
l7rule show redirect {rule} # STARTS_WITH
l7rule set redirect {rule} --value /basket --wait
l7rule unset redirect {rule} --invert --wait
status show first # pool
stats show first # total_connections
amphora list --loadbalancer {balancer} > amphora id
amphora show {amphora} # STANDALONE
amphora configure {amphora} --wait
amphora stats show {amphora} !
amphora failover {amphora} --wait
failover first --wait
amphora list --loadbalancer {balancer} > after id
amphora delete {after} !
quota defaults show # load_balancer
quota set primary --loadbalancer 7 --listener 8 --pool 9 --member 10 --healthmonitor 11 --l7policy 12 --l7rule 13 # 7
quota list --project primary # 13
quota show primary # 12
quota unset primary --loadbalancer
quota reset primary
l7rule delete redirect {rule} --wait
l7policy delete redirect --wait
l7policy delete pooled --wait
healthmonitor delete monitor --wait
member delete pool m1 --wait
listener delete tcp --wait
pool delete spare --wait
delete first !
delete first --cascade --wait
flavor delete small
flavorprofile delete single
availabilityzone delete zone
availabilityzoneprofile delete here
"""


def copies(_given):
    return 1


def arguments(_parser):
    pass


def typed(serve, line):
    """Status, answer and complaint of a command."""
    words = ["--os-auth-url", f"{serve.url}/v3", "--os-username", "admin", "--os-password", PASSWORD]
    words += ["--os-project-name", "admin", "--os-user-domain-name", "Default", "--os-project-domain-name", "Default"]
    words += ["loadbalancer", *shlex.split(line)]
    is_told = {"list", "show", "create"} & set(words) or line.startswith("quota set")
    if is_told and not line.startswith("status show"):
        words += ["-f", "json"]
    out, complaint = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaint):
        try:
            status = shell.OpenStackShell().run(words)
        except SystemExit as end:
            status = end.code
    return status, out.getvalue(), complaint.getvalue()


def run(serve, place, _given):
    distribution = importlib.metadata.distribution("python-octaviaclient")
    points = [point.name for point in distribution.entry_points if point.group == "openstack.load_balancer.v2"]
    unused = {point.removeprefix("loadbalancer_").replace("_", " ") for point in points}
    kept, passed, failed = {}, 0, 0
    for line in SCRIPT.strip().splitlines():
        command, _, expected = line.partition(" # ")
        command, _, keep = command.partition(" > ")
        is_refused = command.endswith(" !")
        command = command.removesuffix(" !").format(**kept)
        unused -= {name for name in unused if f"{command} ".startswith(f"{name} ")}
        status, out, complaint = typed(serve, command)
        good = bool(status) == is_refused and (not expected or any(one in out for one in expected.split("|")))
        if good and keep:
            name, attribute = keep.split()
            answer = json.loads(out)
            kept[name] = (answer[0] if isinstance(answer, list) else answer)[attribute]
        passed, failed = passed + good, failed + (not good)
        if not good:
            print(f"FAILED loadbalancer {command}: {status}\n{out}{complaint[-2000:]}", flush=True)
    for name in sorted(unused):
        failed += 1
        print(f"FAILED nobody has typed loadbalancer {name}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
