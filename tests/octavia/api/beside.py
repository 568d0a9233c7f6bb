"""What asks both, and tells and keeps how they answer."""

import json, re, sys, time, urllib.error, urllib.request

SIDES = {"octavia": "http://127.0.0.1:19990", "ours": "http://127.0.0.1:19991"}
names = {s: {} for s in SIDES}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?")


def call(side, method, path, body):
    path = re.sub(r"\{(\w+)\}", lambda m: names[side].get(m[1], m[0]), path)
    data = None
    if body is not None:
        text = body if isinstance(body, str) else json.dumps(body)
        text = re.sub(r"<(\w+)>", lambda m: names[side].get(m[1], m[0]), text)
        data = text.encode()
    r = urllib.request.Request(SIDES[side] + path, method=method, data=data, headers={"content-type": "application/json", "X-Project-Id": "p" * 32})
    try:
        with urllib.request.urlopen(r) as a:
            status, text = a.status, a.read()
    except urllib.error.HTTPError as e:
        status, text = e.code, e.read()
    try:
        return status, json.loads(text) if text else None
    except ValueError:
        return status, text.decode()


def norm(side, v, key=None):
    inv = {i: n for n, i in names[side].items()}
    if isinstance(v, dict):
        v.pop("updated_at", None)
    if isinstance(v, dict):
        return {k: norm(side, x, k) for k, x in v.items()}
    if isinstance(v, list):
        l = [norm(side, x, key) for x in v]
        return sorted(l, key=lambda x: json.dumps(x, sort_keys=True)) if key in ("listeners", "pools", "members", "l7policies", "rules", "allowed_cidrs", "tags", "loadbalancers") else l
    if isinstance(v, str):
        if key in ("vip_address", "vip_network_id", "vip_port_id", "provisioning_status", "operating_status", "updated_at", "created_at", "ip_address", "network_id", "port_id"):
            return "~" if v else v
        v = UUID.sub(lambda m: inv.get(m[0], "<id>"), v)
        v = TIME.sub("<time>", v).replace("19990", "PORT").replace("19991", "PORT")
        if "should be one of" in v:
            v = v[: v.index("should be one of")]
        if "Value: '{" in v:
            v = re.sub(r"Value: '\{.*\}'\.", "Value: BODY.", v)
        return v
    return v


records = []
total = bad = 0


def both(method, path, body=None, save=None, quiet=False):
    global total, bad
    got = {}
    for s in SIDES:
        got[s] = call(s, method, path, body)
        if save and isinstance(got[s][1], dict):
            for v in got[s][1].values():
                if isinstance(v, dict) and "id" in v:
                    names[s][save] = v["id"]
        if s == "ours" and method != "GET":
            time.sleep(0.03)
    n = {s: (got[s][0], norm(s, got[s][1])) for s in SIDES}
    total += 1
    o, r = n["octavia"], n["ours"]
    if o == r and not (method == "GET" and "?" in path and isinstance(o[1], dict) and len(json.dumps(o[1])) > 4000):
        a = o[1]
        if isinstance(a, dict):
            a = {k: v for k, v in a.items() if not k.endswith("_links")}
        if o[0] >= 400 and isinstance(a, dict) and "faultstring" in a:
            a = a["faultstring"]
        elif method == "PUT" and isinstance(a, dict) and isinstance(body, dict) and o[0] == 200:
            one = next(iter(a))
            a = {one: {k: v for k, v in a[one].items() if k in (body.get(one) or {}) or k in ("id", "action", "redirect_url", "redirect_http_code", "redirect_pool_id", "redirect_prefix", "key")}}
        rec = [method, path, body, o[0], a]
        if save:
            rec.append(save)
        records.append(rec)
    elif save or (method != "GET" and r[0] < 300):
        records.append([method, path, body, r[0], None] + ([save] if save else []))
    if n["octavia"] != n["ours"]:
        bad += 1
        print("DIFF", method, path, json.dumps(body)[:150])
        a, b = n["octavia"], n["ours"]
        if a[0] != b[0]:
            print("   status", a[0], b[0])
        show(a[1], b[1], "   ")


def show(a, b, ind):
    if isinstance(a, dict) and isinstance(b, dict):
        for k in sorted(set(a) | set(b)):
            if a.get(k, "ABSENT") != b.get(k, "ABSENT"):
                x, y = a.get(k, "ABSENT"), b.get(k, "ABSENT")
                if isinstance(x, (dict, list)) and isinstance(y, (dict, list)) and x and y:
                    print(ind, k)
                    show(x, y, ind + "  ")
                else:
                    print(ind, k, "octavia:", json.dumps(x)[:300], "ours:", json.dumps(y)[:300])
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for x, y in zip(a, b):
            if x != y:
                show(x, y, ind + "  ")
    else:
        print(ind, "octavia:", json.dumps(a)[:400], "\n" + ind, "ours:   ", json.dumps(b)[:400])


LEFT_OUT = ("vip_address", "vip_network_id", "vip_port_id", "provisioning_status", "operating_status", "updated_at", "created_at", "ip_address", "network_id", "port_id")


def left(v, key=None):
    if isinstance(v, dict):
        return {k: left(x, k) for k, x in v.items() if k not in LEFT_OUT}
    if isinstance(v, list):
        return [left(x, key) for x in v]
    return "~" if key == "tls_ciphers" and v else v


def plain(record):
    return record[:4] + [left(record[4])] + record[5:]
