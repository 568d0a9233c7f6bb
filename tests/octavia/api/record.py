"""Asks Octavia's API and ours the same, tells what differs, and writes what both answer alike to octavia.jsonl:
controller-stub/src/serve/api/tests/octavia.rs asks it again.

    octavia_api.py 19990 &
    target/debug/examples/api 127.0.0.1:19991 FILE &    # FILE: [networks], public = 192.0.2.0/24, 2001:db8::/64
    python3 record.py SUBNET NETWORK                    # their ids: curl 127.0.0.1:19991/v2.0/subnets
"""

import copy
import json
import sys

import beside
from beside import SIDES, both, names, plain, records

subnet, net = sys.argv[1:3]
for s in SIDES:
    names[s]["subnet"] = subnet
    names[s]["net"] = net
L = "/v2/lbaas/"
both("GET", "/")
both("GET", L + "loadbalancers")
both("POST", L + "loadbalancers", {"loadbalancer": {"name": "lb1", "vip_subnet_id": "<subnet>", "tags": ["a", "b"]}}, "lb")
both("GET", L + "loadbalancers/{lb}")
both("GET", L + "loadbalancers")
both("GET", L + "loadbalancers/{lb}/status")
both("GET", L + "loadbalancers/{lb}/stats")
both("PUT", L + "loadbalancers/{lb}", {"loadbalancer": {"name": "lb2", "description": None, "admin_state_up": None, "tags": []}})
both("PUT", L + "loadbalancers/{lb}", {"loadbalancer": {"admin_state_up": True, "tags": ["x"]}})
both("PUT", L + "loadbalancers/{lb}", {"loadbalancer": {}})
for b in [
    {},
    {"loadbalancer": None},
    {"loadbalancers": {}},
    {"loadbalancer": {"foo": 1}},
    {"loadbalancer": {"name": 5}},
    {"loadbalancer": {"name": "x" * 256}},
    {"loadbalancer": {"vip_subnet_id": "x"}},
    {"loadbalancer": {"admin_state_up": "maybe", "vip_subnet_id": "<subnet>"}},
    {"loadbalancer": {"tags": "a"}},
    {"loadbalancer": {"tags": [5]}},
    {"loadbalancer": {}},
    {"loadbalancer": {"vip_address": "300.1.1.1", "vip_subnet_id": "<subnet>"}},
    {"loadbalancer": {"vip_subnet_id": "<subnet>", "provider": "foo"}},
    {"loadbalancer": {"vip_subnet_id": "<subnet>", "flavor_id": "<net>"}},
    {"loadbalancer": {"vip_subnet_id": "<subnet>", "availability_zone": "nope"}},
    {"loadbalancer": {"vip_subnet_id": "<subnet>", "availability_zone": ""}},
    {"loadbalancer": {"vip_subnet_id": "<subnet>", "additional_vips": [{"subnet_id": "<subnet>"}]}},
    {"loadbalancer": {"vip_subnet_id": "<subnet>", "additional_vips": [{}]}},
    {"loadbalancer": {"vip_subnet_id": "<subnet>", "listeners": [{"protocol": "HTTP"}]}},
    {"loadbalancer": {"vip_subnet_id": "<subnet>", "listeners": [{"protocol": "HTTP", "protocol_port": 80, "foo": 1}]}},
    "",
    "[1]",
    '{"a',
    "5",
]:
    both("POST", L + "loadbalancers", b)
for b in [{"loadbalancer": {"vip_address": "1.2.3.4"}}, {"loadbalancer": {"vip_sg_ids": None}}, {"loadbalancer": {"project_id": "x"}}]:
    both("PUT", L + "loadbalancers/{lb}", b)
both("GET", L + "loadbalancers/{subnet}")
both("PUT", L + "loadbalancers/{subnet}", {"loadbalancer": {"name": "x"}})
both("DELETE", L + "loadbalancers/{subnet}")
both("GET", L + "loadbalancers/nope")
both("GET", "/v2/lbaas/foo")
both("GET", "/v3")
both("POST", "/v2/lbaas/loadbalancers/{lb}", {})
both("DELETE", "/v2/lbaas/loadbalancers")
both("GET", "/v2/lbaas")
both("GET", "/v2")
both("GET", "/v2.0/lbaas/loadbalancers/{lb}")
both("GET", "/v2/loadbalancers/{lb}")
both("DELETE", L + "loadbalancers/{lb}?foo=1")
both("GET", L + "loadbalancers/{lb}/")
# listeners
both("POST", L + "listeners", {"listener": {"loadbalancer_id": "<lb>", "protocol": "HTTP", "protocol_port": 80, "name": "l1", "insert_headers": {"X-Forwarded-For": "true"}, "allowed_cidrs": ["10.0.0.1/8", "192.168.0.0/255.255.0.0"]}}, "l")
both("GET", L + "listeners/{l}")
both("GET", L + "listeners/{l}/stats")
both("GET", L + "loadbalancers/{lb}")
both("GET", L + "loadbalancers/{lb}/status")
both("POST", L + "listeners", {"listener": {"loadbalancer_id": "<lb>", "protocol": "TCP", "protocol_port": 80}})
both("POST", L + "listeners", {"listener": {"loadbalancer_id": "<lb>", "protocol": "UDP", "protocol_port": 80}}, "u")
both("POST", L + "listeners", {"listener": {"loadbalancer_id": "<lb>", "protocol": "PROMETHEUS", "protocol_port": 8088, "admin_state_up": False}}, "prom")


def li(**k):
    return {"listener": dict({"loadbalancer_id": "<lb>", "protocol": "HTTP", "protocol_port": 8080}, **k)}


for b in [
    li(protocol="X"),
    li(protocol_port=0),
    li(protocol_port=65536),
    li(protocol_port="abc"),
    li(protocol_port="8081"),
    li(protocol_port=None),
    li(connection_limit=-2),
    li(timeout_client_data=2073600001),
    li(timeout_client_data=-1),
    li(loadbalancer_id="<subnet>"),
    li(loadbalancer_id="zz"),
    li(default_pool_id="<subnet>"),
    li(insert_headers={"X-Foo": "true"}),
    li(insert_headers={"X-Forwarded-For": 5}),
    li(insert_headers=[]),
    li(insert_headers={"X-SSL-Client-DN": "true"}),
    li(protocol="TCP", insert_headers={"X-Forwarded-For": "true"}),
    li(protocol="UDP", insert_headers={"X-Forwarded-For": "true"}),
    li(protocol="TERMINATED_HTTPS"),
    li(default_tls_container_ref="x"),
    li(protocol="UDP", default_tls_container_ref="x"),
    li(client_authentication="MANDATORY"),
    li(client_authentication="X"),
    li(client_ca_tls_container_ref="x"),
    li(client_crl_container_ref="x"),
    li(allowed_cidrs=["foo"]),
    li(allowed_cidrs=["2001:db8::/32"]),
    li(tls_ciphers="a b"),
    li(alpn_protocols=["x"]),
    li(hsts_max_age=5),
    li(hsts_preload=True),
    li(hsts_max_age=-1),
    li(sni_container_refs="x"),
    {"listener": {"protocol": "HTTP"}},
    {"listener": {"protocol_port": 80}},
    li(default_pool={"name": "x"}),
    li(tags=["a"] * 2),
]:
    both("POST", L + "listeners", b)
for b in [
    {"name": None, "description": "d"},
    {"connection_limit": None, "timeout_client_data": None, "timeout_member_data": 5, "timeout_tcp_inspect": None},
    {"connection_limit": 5},
    {"allowed_cidrs": None},
    {"allowed_cidrs": []},
    {"insert_headers": None},
    {"insert_headers": {"X-Forwarded-Port": "false"}},
    {"protocol": "TCP"},
    {"protocol_port": 1},
    {"tls_ciphers": None},
    {"tls_versions": []},
    {"tls_versions": ["TLSv1.2"]},
    {"alpn_protocols": []},
    {"default_pool_id": "<subnet>"},
    {"default_tls_container_ref": "x"},
    {"client_authentication": "OPTIONAL"},
    {"hsts_max_age": 4},
    {"hsts_include_subdomains": True},
    {"tags": None},
    {"tags": ["q"]},
    {"admin_state_up": False},
    {"sni_container_refs": None},
    {},
]:
    both("PUT", L + "listeners/{l}", {"listener": b})
both("PUT", L + "listeners/{l}", {"listener": None})
both("PUT", L + "listeners/{l}", "")
both("PUT", L + "listeners/{u}", {"listener": {"insert_headers": {"X-Forwarded-For": "true"}}})
# pools
both("POST", L + "pools", {"pool": {"loadbalancer_id": "<lb>", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "name": "p1", "session_persistence": {"type": "APP_COOKIE", "cookie_name": "c"}}}, "p")
both("POST", L + "pools", {"pool": {"listener_id": "<l>", "protocol": "HTTP", "lb_algorithm": "SOURCE_IP"}}, "p2")
both("POST", L + "pools", {"pool": {"loadbalancer_id": "<lb>", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "tls_enabled": True}}, "p3")
both("POST", L + "pools", {"pool": {"listener_id": "<u>", "protocol": "UDP", "lb_algorithm": "SOURCE_IP"}}, "pu")
both("GET", L + "pools/{p}")
both("GET", L + "pools/{p2}")
both("GET", L + "listeners/{l}")


def po(**k):
    return {"pool": dict({"loadbalancer_id": "<lb>", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}, **k)}


for b in [
    po(protocol="X"),
    po(lb_algorithm=None),
    po(lb_algorithm="SOURCE_IP_PORT"),
    {"pool": {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}},
    {"pool": {"loadbalancer_id": "<lb>", "protocol": "HTTP"}},
    {"pool": {"listener_id": "<l>", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN"}},
    {"pool": {"listener_id": "<l>", "protocol": "TCP", "lb_algorithm": "ROUND_ROBIN"}},
    {"pool": {"listener_id": "<prom>", "protocol": "TCP", "lb_algorithm": "ROUND_ROBIN"}},
    po(loadbalancer_id="<subnet>"),
    po(session_persistence={}),
    po(session_persistence={"type": "X"}),
    po(session_persistence={"type": "APP_COOKIE"}),
    po(session_persistence={"type": "HTTP_COOKIE", "cookie_name": "x"}),
    po(session_persistence={"type": "APP_COOKIE", "cookie_name": "a b"}),
    po(session_persistence={"type": "APP_COOKIE", "cookie_name": "a@b"}),
    po(session_persistence={"type": "SOURCE_IP", "persistence_timeout": 5}),
    po(session_persistence={"type": "SOURCE_IP", "foo": 5}),
    po(protocol="UDP", session_persistence={"type": "HTTP_COOKIE"}),
    po(protocol="UDP", session_persistence={"type": "APP_COOKIE", "cookie_name": "x"}),
    po(protocol="UDP", session_persistence={"type": "SOURCE_IP", "cookie_name": "x"}),
    po(protocol="SCTP", session_persistence={"type": "SOURCE_IP", "persistence_timeout": 5, "persistence_granularity": "255.255.0.0"}),
    po(crl_container_ref="x"),
    po(tls_enabled=True, tls_versions=[]),
    po(tls_enabled=True, tls_versions=["SSLv4"]),
    po(tls_enabled=True, alpn_protocols=[]),
    po(tls_ciphers="?"),
]:
    both("POST", L + "pools", b)
for b in [
    {"name": "n", "description": None},
    {"session_persistence": None},
    {"session_persistence": {"type": "SOURCE_IP"}},
    {"session_persistence": {"cookie_name": "x"}},
    {"session_persistence": {"type": "APP_COOKIE", "cookie_name": "x"}},
    {"session_persistence": {"cookie_name": "y"}},
    {"session_persistence": {}},
    {"lb_algorithm": "LEAST_CONNECTIONS"},
    {"lb_algorithm": "SOURCE_IP_PORT"},
    {"protocol": "TCP"},
    {"tls_ciphers": None},
    {"tls_versions": None},
    {"tls_enabled": True},
    {"alpn_protocols": None},
    {"alpn_protocols": ["h2"]},
    {"crl_container_ref": "x"},
    {"tags": ["z"]},
    {},
]:
    both("PUT", L + "pools/{p}", {"pool": b})
# members
M = L + "pools/{p}/members"


def me(**k):
    return {"member": dict({"address": "10.0.0.1", "protocol_port": 80}, **k)}


both("POST", M, me(), "m")
both("GET", M + "/{m}")
both("GET", M)
both("POST", M, me())
both("POST", M, me(protocol_port=81, weight=0, backup=True, subnet_id="<subnet>", monitor_port=8, monitor_address="10.0.0.2", name="x", tags=["t"]), "m2")
for b in [
    me(address="x"),
    me(address=None),
    me(weight=257),
    me(weight=-1),
    me(protocol_port=0),
    me(address="169.254.169.254"),
    me(monitor_port=0),
    me(monitor_address="x"),
    me(subnet_id="x"),
    me(backup="x"),
    me(request_sriov=True),
    {"member": {"address": "1.1.1.1"}},
    me(pool_id="x"),
    me(address="2001:db8::1", protocol_port=99),
    me(address=5),
]:
    both("POST", M, b)
both("POST", L + "pools/{pu}/members", me(address="2001:db8::1"))
for b in [{"weight": 5}, {"weight": None, "backup": None, "name": None, "monitor_port": None}, {"address": "1.1.1.1"}, {"admin_state_up": False}, {"weight": 300}, {}]:
    both("PUT", M + "/{m}", {"member": b})
both("GET", M + "/{subnet}")
both("GET", L + "pools/{p2}/members/{m}")
both("PUT", L + "pools/{p2}/members/{m}", {"member": {"weight": 1}})
both("GET", L + "pools/{subnet}/members")
both("POST", L + "pools/{subnet}/members", me())
both("PUT", M, {"members": [{"address": "10.0.0.1", "protocol_port": 80, "weight": 7}, {"address": "10.0.0.9", "protocol_port": 80}]})
both("GET", M)
both("PUT", M + "?additive_only=True", {"members": [{"address": "10.0.0.10", "protocol_port": 80}]})
both("GET", M)
both("PUT", M, {"members": [{"address": "10.0.0.1", "protocol_port": 80, "weight": 7}, {"address": "10.0.0.1", "protocol_port": 80}]})
both("PUT", M, {"members": [{"address": "10.0.0.77", "protocol_port": 80, "weight": 7}, {"address": "10.0.0.77", "protocol_port": 80}]})
both("PUT", M, {"members": [{"address": "10.0.0.1"}]})
both("PUT", M, {"members": 5})
both("PUT", M, {"members": []})
both("GET", M)
both("PUT", M, {"members": []})
both("POST", M, me(), "m")
both("DELETE", M + "/{m}")
both("GET", M + "/{m}")
both("DELETE", M + "/{m}")
# hm
H = L + "healthmonitors"


def hm(**k):
    return {"healthmonitor": dict({"pool_id": "<p>", "type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 2}, **k)}


both("POST", H, hm(name="h"), "h")
both("POST", H, hm())
both("GET", H + "/{h}")
both("GET", L + "pools/{p}")
both("POST", M, me(), "m")
for b in [
    hm(pool_id="<p2>", type="X"),
    hm(pool_id="<p2>", type="UDP-CONNECT"),
    hm(pool_id="<pu>", type="HTTPS"),
    hm(pool_id="<pu>", type="UDP-CONNECT", delay=2),
    hm(pool_id="<p2>", type="TCP", url_path="/"),
    hm(pool_id="<p2>", type="TCP", http_method="GET"),
    hm(pool_id="<p2>", type="PING", expected_codes="200"),
    hm(pool_id="<p2>", url_path="x"),
    hm(pool_id="<p2>", url_path="//x"),
    hm(pool_id="<p2>", url_path="/a b"),
    hm(pool_id="<p2>", expected_codes="20"),
    hm(pool_id="<p2>", expected_codes="200,"),
    hm(pool_id="<p2>", http_method="FOO"),
    hm(pool_id="<p2>", max_retries=0),
    hm(pool_id="<p2>", max_retries=11),
    hm(pool_id="<p2>", delay=-1),
    hm(pool_id="<p2>", delay=None),
    hm(pool_id="<p2>", http_version=2.0),
    hm(pool_id="<p2>", http_version="x"),
    hm(pool_id="<p2>", domain_name="a.b"),
    hm(pool_id="<p2>", domain_name="-a"),
    hm(pool_id="<p2>", domain_name="a.b", http_version=1.0),
    hm(pool_id="<subnet>"),
    hm(pool_id="<p2>", domain_name=""),
    {"healthmonitor": {"pool_id": "<p2>"}},
]:
    both("POST", H, b)
both("POST", H, hm(pool_id="<p2>", type="PING"), "h2")
both("POST", H, hm(pool_id="<p3>", http_version=1.1, domain_name="a.example", expected_codes="200, 202", url_path="/x?y=1", http_method="HEAD", max_retries_down=4), "h3")
both("GET", H + "/{h3}")
for b in [
    {"name": "x", "delay": 7},
    {"delay": None},
    {"max_retries": None},
    {"timeout": None},
    {"http_method": None, "url_path": None, "expected_codes": None, "max_retries_down": None},
    {"expected_codes": "200-204"},
    {"domain_name": "a.b"},
    {"http_version": 1.0},
    {"domain_name": "a.b", "http_version": 1.1},
    {"http_version": 1.0},
    {"type": "TCP"},
    {"url_path": "x"},
    {},
]:
    both("PUT", H + "/{h}", {"healthmonitor": b})
both("PUT", H + "/{h2}", {"healthmonitor": {"url_path": "/"}})
both("PUT", H + "/{h2}", {"healthmonitor": {"expected_codes": None}})
# l7
P = L + "l7policies"


def lp(**k):
    return {"l7policy": dict({"listener_id": "<l>", "action": "REJECT"}, **k)}


both("POST", P, lp(name="a"), "a")
both("POST", P, lp(name="b", action="REDIRECT_TO_URL", redirect_url="http://x/"), "b")
both("POST", P, lp(name="c", action="REDIRECT_TO_POOL", redirect_pool_id="<p>", position=1), "c")
both("POST", P, lp(name="d", action="REDIRECT_PREFIX", redirect_prefix="https://x/y", redirect_http_code=301, position=2), "d")
both("GET", P)
both("GET", P + "/{c}")
both("GET", L + "pools/{p}")
both("GET", L + "loadbalancers/{lb}/status")
for b in [
    lp(action="X"),
    lp(action="REDIRECT_TO_URL"),
    lp(action="REDIRECT_TO_POOL"),
    lp(action="REDIRECT_PREFIX"),
    lp(action="REDIRECT_TO_URL", redirect_url="x"),
    lp(action="REDIRECT_TO_URL", redirect_url="ftp://x"),
    lp(action="REDIRECT_TO_URL", redirect_url="http://a b"),
    lp(action="REDIRECT_TO_URL", redirect_url="http://x", redirect_http_code=300),
    lp(action="REDIRECT_TO_POOL", redirect_pool_id="<subnet>"),
    lp(action="REDIRECT_TO_POOL", redirect_pool_id="<pu>"),
    lp(position=0),
    lp(listener_id="<subnet>"),
    lp(listener_id="<prom>"),
    lp(redirect_url="http://x"),
    lp(redirect_pool_id="<p>", redirect_url="http://x", action="REDIRECT_TO_URL"),
    lp(redirect_pool="x"),
    {"l7policy": {"action": "REJECT"}},
]:
    both("POST", P, b)

for b in [
    {"name": "x"},
    {"position": 1},
    {"position": 100},
    {"action": "REJECT"},
    {"redirect_url": "http://y/"},
    {"redirect_pool_id": "<p2>"},
    {"action": "REDIRECT_TO_URL"},
    {"action": None},
    {"redirect_prefix": "http://z/"},
    {"redirect_http_code": 307},
    {"listener_id": "<l>"},
    {},
    {"position": None},
    {"action": "REDIRECT_TO_POOL", "redirect_pool_id": "<p>"},
]:
    both("PUT", P + "/{a}", {"l7policy": b})
    both("GET", P)
R = P + "/{b}/rules"


def ru(**k):
    return {"rule": dict({"type": "PATH", "compare_type": "STARTS_WITH", "value": "/a"}, **k)}


both("POST", R, ru(), "r")
both("GET", R)
both("GET", R + "/{r}")
both("GET", P + "/{b}")
both("POST", R, ru(type="HEADER", key="X-A", compare_type="REGEX", value="a.*", invert=True), "r2")
for b in [
    ru(type="X"),
    ru(compare_type="X"),
    ru(value=None),
    ru(value=""),
    ru(value="a b"),
    ru(value="a\nb"),
    ru(type="HEADER"),
    ru(type="HEADER", key="a b"),
    ru(type="HEADER", key="a", value='"a b"'),
    ru(type="COOKIE", key="c", value="a;b"),
    ru(type="FILE_TYPE"),
    ru(type="FILE_TYPE", compare_type="EQUAL_TO", value="gif"),
    ru(type="SSL_CONN_HAS_CERT", value="x"),
    ru(type="SSL_CONN_HAS_CERT", compare_type="EQUAL_TO", value="True"),
    ru(type="SSL_VERIFY_RESULT", value="x"),
    ru(type="SSL_VERIFY_RESULT", value="5"),
    ru(type="SSL_DN_FIELD", value="x"),
    ru(type="SSL_DN_FIELD", value="x", key="1"),
    ru(type="SSL_DN_FIELD", value="x", key="CN"),
    ru(type="SSL_CONN_HAS_CERT", key="x", value="x"),
    {"rule": {"type": "PATH"}},
]:
    both("POST", R, b)
for b in [{"value": "/b"}, {"type": "HEADER"}, {"type": "HEADER", "key": "K"}, {"type": "HOST_NAME"}, {"invert": None}, {"value": None}, {"compare_type": "EQUAL_TO", "tags": ["x"]}, {"admin_state_up": False}, {}]:
    both("PUT", R + "/{r}", {"rule": b})
both("GET", P + "/{subnet}/rules")
both("GET", R + "/{subnet}")
both("DELETE", L + "pools/{p}")
both("DELETE", R + "/{r}")
both("DELETE", P + "/{c}")
both("GET", P)
# lists
for q in [
    "name=l1",
    "name=zz",
    "protocol=HTTP",
    "admin_state_up=true",
    "admin_state_up=False",
    "foo=1",
    "tags=q",
    "tags=q,z",
    "tags-any=q,z",
    "not-tags=q",
    "not-tags-any=q,z",
    "loadbalancer_id={lb}",
    "sort=name:desc",
    "sort=name",
    "sort=foo",
    "sort=name:x",
    "sort=protocol_port:asc,name:desc",
    "sort_key=protocol_port&sort_dir=desc",
    "sort_key=protocol_port",
    "limit=1",
    "limit=1&sort=protocol_port:desc",
    "limit=2&marker={l}",
    "limit=1&marker={u}&page_reverse=True",
    "limit=0",
    "limit=-1",
    "limit=x",
    "marker=zz",
    "fields=id",
    "fields=id&fields=name",
    "project_id=x",
    "project_id=pppppppppppppppppppppppppppppppp",
    "protocol_port=80",
    "default_pool_id={p2}",
    "name=a&name=b",
    "id={l}",
    "connection_limit=-1",
    "limit=infinite",
]:
    both("GET", L + "listeners?" + q)
for q in ["vip_subnet_id={subnet}", "provider=amphora", "name=lb2", "vip_port_id=x", "flavor_id=x", "operating_status=ONLINE", "provisioning_status=ACTIVE", "topology=SINGLE", "sort=vip_address", "fields=name"]:
    both("GET", L + "loadbalancers?" + q)
for q in ["lb_algorithm=ROUND_ROBIN", "healthmonitor_id={h}", "loadbalancer_id={lb}", "listener_id={l}", "protocol=UDP", "sort=healthmonitor_id"]:
    both("GET", L + "pools?" + q)
for q in ["pool_id={p}", "type=PING", "max_retries=2", "delay=7", "http_version=1.1", "name=h", "max_retries_down=3"]:
    both("GET", H + "?" + q)
for q in ["listener_id={l}", "action=REJECT", "redirect_pool_id={p2}", "position=1", "sort=position:desc", "redirect_url=http://y/"]:
    both("GET", P + "?" + q)
for q in ["address=10.0.0.1", "weight=1", "backup=false", "name=x"]:
    both("GET", M + "?" + q)
both("GET", L + "listeners/{l}?fields=id")
both("DELETE", L + "loadbalancers/{lb}")
both("DELETE", H + "/{h}")
both("GET", H)
both("DELETE", L + "listeners/{prom}")
# full
full = {
    "loadbalancer": {
        "name": "full",
        "vip_subnet_id": "<subnet>",
        "listeners": [
            {
                "name": "fl",
                "protocol": "HTTP",
                "protocol_port": 80,
                "default_pool": {"name": "fp", "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": [{"address": "10.0.0.1", "protocol_port": 80}, {"address": "10.0.0.2", "protocol_port": 80, "weight": 3}], "healthmonitor": {"type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 2}},
                "l7policies": [{"action": "REDIRECT_TO_POOL", "redirect_pool": {"name": "fp2"}, "rules": [{"type": "PATH", "compare_type": "STARTS_WITH", "value": "/x"}]}, {"action": "REJECT", "name": "rej"}],
            }
        ],
        "pools": [{"name": "fp2", "protocol": "HTTP", "lb_algorithm": "SOURCE_IP", "tags": ["x"]}],
    }
}
both("POST", L + "loadbalancers", full, "f")
both("GET", L + "loadbalancers/{f}/status")


def mod(fn):
    c = copy.deepcopy(full)
    fn(c["loadbalancer"])
    return c


for fn in [
    lambda l: l["pools"][0].pop("name"),
    lambda l: l["pools"][0].update(name="fp"),
    lambda l: l["listeners"][0]["default_pool"].pop("name"),
    lambda l: l["listeners"][0]["default_pool"].pop("protocol"),
    lambda l: l["listeners"][0]["l7policies"][0]["redirect_pool"].update(name="zz"),
    lambda l: l["listeners"][0].update(protocol="TCP"),
    lambda l: l["listeners"][0].update(protocol="PROMETHEUS"),
    lambda l: l["listeners"].append({"protocol": "TCP", "protocol_port": 80}),
    lambda l: l["listeners"][0]["default_pool"]["members"].append({"address": "10.0.0.1", "protocol_port": 80}),
    lambda l: l["listeners"][0]["default_pool"]["healthmonitor"].update(type="UDP-CONNECT"),
    lambda l: l["listeners"][0]["l7policies"][0]["rules"][0].update(value="a b"),
    lambda l: l["listeners"][0]["l7policies"][1].update(action="REDIRECT_TO_URL"),
    lambda l: l["listeners"][0].update(loadbalancer_id="<lb>"),
    lambda l: l["listeners"][0].update(hsts_preload=True),
]:
    both("POST", L + "loadbalancers", mod(fn))
both("DELETE", L + "loadbalancers/{f}")
both("DELETE", L + "loadbalancers/{f}?cascade=true")
both("GET", L + "loadbalancers/{f}")
both("GET", L + "loadbalancers")
both("PUT", L + "loadbalancers/{lb}/failover")
both("PUT", L + "loadbalancers/{subnet}/failover")
# deployment
Q = L + "quotas"
both("GET", Q)
both("GET", Q + "/xx")
both("PUT", Q + "/xx", {"quota": {"loadbalancer": 5, "health_monitor": 3}})
both("GET", Q + "/xx")
both("GET", Q)
both("PUT", Q + "/xx", {"quota": {"loadbalancer": None}})
both("PUT", Q + "/xx", {"quota": {"pool": -2}})
both("PUT", Q + "/xx", {"quota": {"foo": 2}})
both("GET", Q + "/xx/default")
both("DELETE", Q + "/xx")
both("DELETE", Q + "/xx")
both("GET", Q)
both("GET", L + "providers")
both("GET", L + "providers/foo/flavor_capabilities")
both("GET", L + "providers/amphora/flavor_capabilities?name=loadbalancer_topology")
both("GET", L + "providers/amphora/availability_zone_capabilities?name=compute_zone")
for n, d, one in (("flavorprofiles", "flavor_data", "flavorprofile"), ("availabilityzoneprofiles", "availability_zone_data", "availability_zone_profile")):
    both("POST", L + n, {one: {"name": "fp", "provider_name": "amphora", d: "{}"}}, "fp")
    both("GET", L + n + "/{fp}")
    both("GET", L + n)
    both("POST", L + n, {one: {"name": "fp", "provider_name": "x", d: "{}"}})
    both("POST", L + n, {one: {"name": "fp", "provider_name": "amphora", d: "x"}})
    both("POST", L + n, {one: {"name": "fp", "provider_name": "amphora", d: '{"foo":1}'}})
    both("POST", L + n, {one: {"name": "fp"}})
    both("PUT", L + n + "/{fp}", {one: {"name": "y"}})
    both("PUT", L + n + "/{fp}", {one: {"name": None}})
    both("PUT", L + n + "/{subnet}", {one: {"name": "y"}})
    both("GET", L + n + "/{subnet}")
    both("DELETE", L + n + "/{subnet}")
    z, o, ref = ("flavors", "flavor", "flavor_profile_id") if n == "flavorprofiles" else ("availabilityzones", "availability_zone", "availability_zone_profile_id")
    both("POST", L + z, {o: {"name": "f1", ref: "<fp>"}}, "fl")
    for s in SIDES:
        if o != "flavor":
            names[s]["fl"] = "f1"
    both("POST", L + z, {o: {"name": "f1", ref: "<fp>"}})
    both("GET", L + z)
    both("GET", L + z + "/{fl}")
    both("PUT", L + z + "/{fl}", {o: {"enabled": False, "description": "q"}})
    both("PUT", L + z + "/{fl}", {o: {"foo": 1}})
    both("GET", L + z + "/nope")
    both("DELETE", L + n + "/{fp}")
    both("PUT", L + n + "/{fp}", {one: {d: "{}"}})
    if o == "flavor":
        both("POST", L + "loadbalancers", {"loadbalancer": {"vip_subnet_id": "<subnet>", "flavor_id": "<fl>"}})
    else:
        both("POST", L + "loadbalancers", {"loadbalancer": {"vip_subnet_id": "<subnet>", "availability_zone": "f1"}})
    both("DELETE", L + z + "/{fl}")
    both("DELETE", L + z + "/{fl}")
    both("DELETE", L + n + "/{fp}")
both("GET", "/v2/octavia/amphorae")
both("GET", "/v2/octavia/amphorae/{subnet}")
both("GET", "/v2/octavia/amphorae/{subnet}/stats")
both("DELETE", "/v2/octavia/amphorae/{subnet}")
both("PUT", "/v2/octavia/amphorae/{subnet}/failover")

kept = [x for x in records if "PORT" not in json.dumps(x) and x[1] != "/" and not (x[0] == "GET" and x[3] < 300 and len(json.dumps(x)) > 1500)]
with open("octavia.jsonl", "w") as f:
    for x in map(plain, kept):
        f.write(json.dumps(x, separators=(",", ":"), sort_keys=True) + "\n")
print(beside.total, "requests,", beside.bad, "differ,", len(kept), "kept")
