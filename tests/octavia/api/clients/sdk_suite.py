"""Every method that openstacksdk has for load balancers."""

import inspect
import traceback

import openstack
from openstack import exceptions
from openstack.load_balancer.v2 import _proxy

from serve import PASSWORD

NOWHERE = "00000000-0000-4000-8000-000000000000"


def copies(_given):
    return 1


def arguments(_parser):
    pass


def without_nulls(value):
    """What an answer says nothing of, as who asks does not."""
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


class Recorder:
    """The methods, and which of them were called."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.called = set()

    def __getattr__(self, name):
        self.called.add(name)
        return getattr(self.proxy, name)


def methods():
    """What the release has: one that this script does not know is a failure."""
    every = inspect.getmembers(_proxy.Proxy, inspect.isfunction)
    return {name for name, method in every if not name.startswith("_") and method.__module__ == _proxy.__name__}


class Tour:
    """Makes, reads, changes and deletes one of everything."""

    def __init__(self, serve, cloud):
        self.subnet = serve.subnets(serve.network("vip"))[0]["id"]
        self.balancing = Recorder(cloud.load_balancer)
        self.project = cloud.current_project_id
        self.balancer = None
        self.passed = 0
        self.failed = []

    def check(self, what, good):
        self.passed += bool(good)
        if not good:
            self.failed.append(what)
            print(f"FAILED {what}", flush=True)

    def settle(self):
        """Waits until what was changed is so."""
        if self.balancer:
            self.balancing.wait_for_load_balancer(self.balancer.id, interval=0.1, wait=60)

    def make(self, one, *parent, **said):
        """`create_..`: what is said is told again."""
        made = getattr(self.balancing, f"create_{one}")(*parent, **said)
        told = {name: without_nulls(getattr(made, name)) for name in said}
        self.check(f"create_{one}: {told} for {said}", told == said)
        self.settle()
        return made

    def read_and_change(self, one, many, made, *parent, name="name", **changes):
        """`get_..`, `find_..`, the list and `update_..`."""
        balancing, is_zone = self.balancing, one == "availability_zone"
        identity = made.name if is_zone else made.id
        same = lambda other: other is not None and (other.name if is_zone else other.id) == identity
        get, find, change = (getattr(balancing, f"{verb}_{one}") for verb in ("get", "find", "update"))
        self.check(f"get_{one}", same(get(identity, *parent)))
        try:
            get(NOWHERE, *parent)
            self.check(f"get_{one} of none", False)
        except exceptions.NotFoundException:
            self.passed += 1
        self.check(f"find_{one} by id", same(find(identity, *parent)))
        value = getattr(made, name)
        if name == "name":
            self.check(f"find_{one} by name", same(find(value, *parent)))
        self.check(f"find_{one} of none", find("none-such", *parent) is None)
        every = getattr(balancing, many)
        self.check(f"{many}", any(map(same, every(*parent))))
        self.check(f"{many} by {name}", [*map(same, every(*parent, **{name: value}))] == [True])
        # A zone has no identifier but its name.
        changed = change(identity if is_zone else made, *parent, **changes)
        self.settle()
        for changed in (changed, get(identity, *parent)):
            told = {name: getattr(changed, name) for name in changes}
            self.check(f"update_{one}: {told} for {changes}", told == changes)

    def delete(self, one, made, *parent, **more):
        """`delete_..`: it is gone, and to delete it again is no error unless one asks for that."""
        delete = getattr(self.balancing, f"delete_{one}")
        delete(made, *parent, **more)
        self.settle()
        delete(made, *parent, **more)
        try:
            delete(made, *parent, ignore_missing=False, **more)
            self.check(f"delete_{one} of none", False)
        except exceptions.NotFoundException:
            self.passed += 1

    def go(self):
        """All of it."""
        deployment = self.deployment()
        self.balancer = self.make(
            "load_balancer", name="balancer", vip_subnet_id=self.subnet, flavor_id=deployment["flavor"].id,
            availability_zone="zone", description="text", is_admin_state_up=True,
        )
        self.settle()
        self.read_and_change("load_balancer", "load_balancers", self.balancer, name="name", description="other")
        self.check("tags", self.balancing.get_load_balancer(self.balancer.id).tags == [])
        self.balanced()
        self.statistics()
        self.amphorae()
        balancer, self.balancer = self.balancer, None
        self.balancing.delete_load_balancer(balancer, cascade=True)
        self.balancing.wait_for_delete(balancer, interval=0.1, wait=60)
        self.delete("load_balancer", balancer, cascade=True)
        self.quotas()
        for one in ("flavor", "flavor_profile", "availability_zone", "availability_zone_profile"):
            self.delete(one, deployment[one].name if one == "availability_zone" else deployment[one])

    def deployment(self):
        """Flavors, zones and their profiles."""
        balancing, made = self.balancing, {}
        self.check("providers", "amphora" in [provider.name for provider in balancing.providers()])
        capabilities = [one.name for one in balancing.provider_flavor_capabilities("amphora")]
        self.check("provider_flavor_capabilities", "loadbalancer_topology" in capabilities)
        for kind, data, said in (
            ("flavor", "flavor_data", '{"loadbalancer_topology": "SINGLE"}'),
            ("availability_zone", "availability_zone_data", '{"compute_zone": "nova"}'),
        ):
            name = "small" if kind == "flavor" else "zone"
            one = f"{kind}_profile"
            profile = self.make(one, name=f"{name}-profile", provider_name="amphora", **{data: said})
            self.read_and_change(one, f"{one}s", profile, name="name", provider_name="amphora")
            made[one] = profile
            said = {"name": name, f"{one}_id": profile.id, "is_enabled": True, "description": "text"}
            made[kind] = self.make(kind, **said)
            self.read_and_change(kind, f"{kind}s", made[kind], description="other")
        return made

    def balanced(self):
        """Listeners and pools, and what is theirs."""
        balancer = self.balancer.id
        listener = self.make(
            "listener", name="listener", load_balancer_id=balancer, protocol="HTTP", protocol_port=80, connection_limit=100,
            insert_headers={"X-Forwarded-For": "true"}, allowed_cidrs=["10.0.0.0/8"], timeout_client_data=1000,
        )
        self.read_and_change("listener", "listeners", listener, connection_limit=200, description="text")
        pool = self.make(
            "pool", name="pool", listener_id=listener.id, protocol="HTTP", lb_algorithm="LEAST_CONNECTIONS",
            session_persistence={"type": "HTTP_COOKIE"},
        )
        self.read_and_change("pool", "pools", pool, lb_algorithm="SOURCE_IP", is_admin_state_up=False)
        member = self.make("member", pool, name="member", address="10.60.9.1", protocol_port=80, weight=5, subnet_id=self.subnet)
        self.read_and_change("member", "members", member, pool, weight=7, monitor_port=8080)
        monitor = self.make(
            "health_monitor", name="monitor", pool_id=pool.id, type="HTTP", delay=5, timeout=3, max_retries=2,
            url_path="/health", expected_codes="200-204", http_method="HEAD",
        )
        self.read_and_change("health_monitor", "health_monitors", monitor, delay=6, max_retries_down=4)
        policy = self.make(
            "l7_policy", name="policy", listener_id=listener.id, action="REDIRECT_TO_URL", position=1,
            redirect_url="https://shop.example/",
        )
        self.read_and_change("l7_policy", "l7_policies", policy, description="text", redirect_url="https://other.example/")
        rule = self.make("l7_rule", policy, type="HEADER", compare_type="EQUAL_TO", key="X-Kind", rule_value="7", invert=True)
        self.read_and_change("l7_rule", "l7_rules", rule, policy, name="key", rule_value="8")
        self.delete("l7_rule", rule, policy)
        self.delete("l7_policy", policy)
        self.delete("health_monitor", monitor)
        self.delete("member", member, pool)
        self.delete("pool", pool)
        self.delete("listener", listener)
        self.make("listener", name="stays", load_balancer_id=balancer, protocol="TCP", protocol_port=81)

    def statistics(self):
        """Counters, of which there are none yet."""
        listener = next(self.balancing.listeners(name="stays"))
        for told in (
            self.balancing.get_load_balancer_statistics(self.balancer.id),
            self.balancing.get_listener_statistics(listener.id),
        ):
            self.check(f"statistics {told}", (told.bytes_in, told.total_connections, told.request_errors) == (0, 0, 0))
        self.balancing.wait_for_status(
            listener, "ONLINE", failures=["ERROR"], interval=0.1, wait=60, attribute="operating_status"
        )

    def amphorae(self):
        """What operators do with them."""
        own = {"loadbalancer_id": self.balancer.id}
        (amphora,) = self.balancing.amphorae(**own)
        self.check("get_amphora", self.balancing.get_amphora(amphora.id).status == "ALLOCATED")
        self.check("find_amphora", self.balancing.find_amphora(amphora.id).id == amphora.id)
        self.check("find_amphora of none", self.balancing.find_amphora(NOWHERE) is None)
        self.balancing.configure_amphora(amphora.id)
        self.settle()
        self.balancing.failover_amphora(amphora.id)
        self.settle()
        (replacement,) = self.balancing.amphorae(status="ALLOCATED", **own)
        self.check("failover_amphora", replacement.id != amphora.id)
        self.balancing.failover_load_balancer(self.balancer.id)
        self.settle()
        (last,) = self.balancing.amphorae(status="ALLOCATED", **own)
        self.check("failover_load_balancer", last.id != replacement.id)

    def quotas(self):
        """Of the own project."""
        self.check("get_quota_default", self.balancing.get_quota_default().load_balancers == -1)
        changed = self.balancing.update_quota(self.project, load_balancers=7, members=8)
        self.check("update_quota", (changed.load_balancers, changed.members) == (7, 8))
        self.check("get_quota", self.balancing.get_quota(self.project).load_balancers == 7)
        self.check("quotas", [quota.project_id for quota in self.balancing.quotas()] == [self.project])
        self.balancing.delete_quota(self.project)
        # Octavia keeps the row, in which nothing is set.
        self.check("delete_quota", [quota.load_balancers for quota in self.balancing.quotas()] == [-1])


def run(serve, _place, _given):
    cloud = openstack.connect(
        load_envvars=False, load_yaml_config=False, auth_url=f"{serve.url}/v3", username="admin", password=PASSWORD,
        project_name="admin", user_domain_name="Default", project_domain_name="Default",
    )
    tour = Tour(serve, cloud)
    try:
        tour.go()
    except Exception:  # what it is said by is the result
        tour.check(traceback.format_exc(), False)
    for name in sorted(methods() - tour.balancing.called):
        tour.check(f"nobody has called {name}", False)
    print(f"{len(methods())} methods: {tour.passed} passed, {len(tour.failed)} failed")
    return 1 if tour.failed else 0
