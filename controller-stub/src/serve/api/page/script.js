// The page for persons. What comes from the server gets into the document by textContent alone.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const auth = document.documentElement.dataset.auth;
  const KEPT_EVENTS = 200;
  // How long a page that is not seen goes on as if it were.
  const HIDDEN = 60_000;
  // The server says something every 15 s.
  const SILENCE = 40_000;

  /** An element with properties and children; texts become text nodes. */
  const el = (tag, properties = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const short = (id) => id.slice(0, 8);
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const many = (count, one, several) => `${count} ${count === 1 ? one : several}`;

  // ---- who one is -------------------------------------------------------------------------------------------------------------

  let token = auth === "keystone" ? sessionStorage.getItem("token") : null;

  class SignedOut extends Error {}

  class Refused extends Error {}

  const ask = async (path, options = {}) => {
    const headers = { Accept: "application/json", ...(token ? { "X-Auth-Token": token } : {}), ...options.headers };
    const response = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options, headers });
    if (response.status === 401) {
      signOut(token ? "Please sign in again." : "");
      throw new SignedOut();
    }
    if (response.status === 400) throw new Refused((await response.json()).faultstring);
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return response;
  };

  const authenticate = async (identity, project) => {
    const scope = project ? { scope: { project: { name: project, domain: { id: "default" } } } } : {};
    const response = await fetch("/v3/auth/tokens", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ auth: { identity, ...scope } }),
    });
    if (response.status === 401) throw new Error("User, password or project is wrong.");
    if (!response.ok) throw new Error(`The server answered ${response.status}.`);
    token = response.headers.get("X-Subject-Token");
    const told = (await response.json()).token;
    sessionStorage.setItem("token", token);
    sessionStorage.setItem("user", `${told.user.name} in ${told.project.name}`);
  };

  const signOut = (why) => {
    if (auth !== "keystone") return;
    token = null;
    sessionStorage.clear();
    running?.abort();
    running = null;
    ready = false;
    $("board").hidden = true;
    $("who").hidden = true;
    $("signin").hidden = false;
    $("refused").textContent = why;
    $("refused").hidden = !why;
    tell("wait", "Signed out");
    $("name").focus();
  };

  $("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const user = { name: $("name").value, domain: { id: "default" }, password: $("password").value };
    try {
      await authenticate({ methods: ["password"], password: { user } }, $("project").value.trim());
      $("password").value = "";
      begin();
    } catch (error) {
      $("refused").textContent = error.message;
      $("refused").hidden = false;
      $("password").select();
    }
  });
  $("signout").addEventListener("click", () => {
    // Nobody is to find it and go on with it.
    const headers = { "X-Auth-Token": token, "X-Subject-Token": token };
    fetch("/v3/auth/tokens", { method: "DELETE", headers, keepalive: true }).catch(() => {});
    signOut("");
  });

  // A token is good for an hour.
  setInterval(() => {
    if (token) authenticate({ methods: ["token"], token: { id: token } }).catch(() => {});
  }, 40 * 60_000);

  const tell = (state, text) => {
    $("live").dataset.state = state;
    $("live").textContent = text;
  };

  // ---- words ------------------------------------------------------------------------------------------------------------------

  const TONES = {
    ACTIVE: "ok", ONLINE: "ok", ALLOCATED: "ok", READY: "ok",
    PENDING_CREATE: "busy", PENDING_UPDATE: "busy", PENDING_DELETE: "busy", BOOTING: "busy",
    DEGRADED: "warn", DRAINING: "warn", ERROR: "bad",
  };
  const tone = (word) => TONES[word] ?? "off";
  const mark = (kind) => el("span", { className: `mark ${kind}`, "aria-hidden": "true" });
  /** A state in its tone; what is as it should be is quiet. */
  const state = (word, quiet = false) => {
    const kind = tone(word);
    const plain = (quiet && kind === "ok") || word === "NO_MONITOR";
    return el("span", { className: `state ${plain ? "quiet" : kind}` }, plain ? null : mark(kind), word ?? "–");
  };
  /** Both states of an object. */
  const states = (object) => {
    const both = el("span", { className: "states" });
    if (object.admin_state_up === 0) both.append(el("span", { className: "state" }, "DISABLED"));
    if (object.provisioning_status !== "ACTIVE") both.append(state(object.provisioning_status));
    both.append(state(object.operating_status));
    return both;
  };
  const overall = (lb) => {
    const [made, runs] = [tone(lb.provisioning_status), tone(lb.operating_status)];
    return ["bad", "busy", "warn"].find((kind) => made === kind || runs === kind) ?? runs;
  };
  /** Where a member is. */
  const place = ({ address, protocol_port: port }) => (address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`);
  const title = (object) => object.name || short(object.id);

  // ---- what there is ----------------------------------------------------------------------------------------------------------

  let balancers = new Map();
  let operator = false;
  /** By id: any object, and its load balancer's id. */
  let objects = new Map();
  const rows = new Map();
  let shown = "all";
  /** By id of an amphora: whether it holds the addresses of its pair, as it says itself. */
  const holders = new Map();

  const parts = function* (lb) {
    yield ["loadbalancer", lb];
    for (const listener of lb.listeners) {
      yield ["listener", listener];
      for (const policy of listener.l7policies) {
        yield ["l7policy", policy];
        for (const rule of policy.rules) yield ["l7rule", rule];
      }
    }
    for (const pool of lb.pools) {
      yield ["pool", pool];
      for (const monitor of pool.healthmonitors) yield ["healthmonitor", monitor];
      for (const member of pool.members) yield ["member", member];
    }
    for (const amphora of lb.amphorae) yield ["amphora", amphora];
  };

  const keep = (lb, seen) => {
    lb.seen = seen;
    balancers.set(lb.id, lb);
    for (const [kind, object] of parts(lb)) objects.set(object.id, { kind, object, lb: lb.id });
  };

  /** Load balancers that have to be read again. */
  const dirty = new Set();
  let all = false;
  let reading = false;
  /** Set once the first of all was read. */
  let ready = false;
  let timer = 0;

  const readSoon = (id) => {
    if (id) dirty.add(id);
    else all = true;
    if (ready && !timer && !reading) timer = setTimeout(() => { timer = 0; read().catch(() => {}); }, 250);
  };

  const read = async () => {
    reading = true;
    const begun = performance.now();
    const wanted = [...dirty];
    const whole = all || wanted.length > 20;
    dirty.clear();
    all = false;
    try {
      if (whole) {
        const tree = await (await ask("/page/tree")).json();
        operator = tree.operator;
        balancers = new Map();
        objects = new Map();
        for (const lb of tree.loadbalancers) keep(lb, tree.last_event_id);
        paintAll();
        return tree.last_event_id;
      }
      for (const id of wanted) {
        const tree = await (await ask(`/page/tree?loadbalancer_id=${encodeURIComponent(id)}`)).json();
        if (tree.loadbalancers.length === 0) balancers.delete(id);
        for (const lb of tree.loadbalancers) keep(lb, tree.last_event_id);
      }
      paintAll();
      return null;
    } catch (error) {
      if (!(error instanceof SignedOut)) { wanted.forEach((id) => dirty.add(id)); all ||= whole; }
      throw error;
    } finally {
      // Of a server that takes long less is asked.
      const pause = Math.min(Math.max(1000, 4 * (performance.now() - begun)), 15_000);
      setTimeout(() => { reading = false; if (ready && (dirty.size || all)) readSoon(dirty.values().next().value); }, pause);
    }
  };

  // ---- the tree ---------------------------------------------------------------------------------------------------------------

  const FILTERS = [
    ["all", "All", () => true],
    ["bad", "Error", (lb) => overall(lb) === "bad"],
    ["busy", "Pending", (lb) => tone(lb.provisioning_status) === "busy"],
    ["warn", "Degraded", (lb) => tone(lb.operating_status) === "warn"],
    ["off", "Offline", (lb) => tone(lb.operating_status) === "off"],
  ];

  const counts = new Map();
  for (const [key, name] of FILTERS) {
    const count = el("b", {}, "0");
    const button = el("button", { type: "button", "aria-pressed": String(key === shown) });
    if (key !== "all") button.append(mark(key));
    button.append(name, " ", count);
    button.addEventListener("click", () => { shown = key; paintAll(); });
    counts.set(key, { button, count });
    $("filters").append(button);
  }
  $("search").addEventListener("input", () => paintAll());

  const addresses = (lb) => [lb.vip_address, ...(lb.additional_vips ?? []).map((vip) => vip.ip_address)].filter(Boolean);

  const isWanted = (lb, text) => !text || [lb.name, lb.id, lb.project_id, ...addresses(lb)].some((one) => (one ?? "").toLowerCase().includes(text));

  const contents = (lb) => {
    const members = lb.pools.flatMap((pool) => pool.members);
    const down = members.filter((member) => ["ERROR", "OFFLINE"].includes(member.operating_status)).length;
    const made = el("span", { className: "facts" }, many(lb.listeners.length, "listener", "listeners"), ", ", many(members.length, "member", "members"));
    if (down) made.append(" ", el("span", { className: "bad" }, `(${down} down)`));
    return made;
  };

  const amphorae = (lb) => {
    const made = el("span", { className: "amps" });
    // Who is master, or as long as nobody has been asked, who is to be.
    const holder = lb.amphorae.filter((amphora) => holders.get(amphora.id));
    const named = holder.length ? holder : lb.amphorae.filter((amphora) => amphora.role === "MASTER" || amphora.role === "STANDALONE");
    if (!operator) made.append(lb.topology === "ACTIVE_STANDBY" ? "a pair" : "one");
    else if (lb.amphorae.length === 0) made.append("none");
    else if (named.length === 0) made.append(many(lb.amphorae.length, "amphora", "amphorae"));
    else {
      const isPair = lb.topology === "ACTIVE_STANDBY";
      const backups = lb.amphorae.filter((amphora) => amphora !== named[0] && ["MASTER", "BACKUP"].includes(amphora.role) && amphora.status === "ALLOCATED").length;
      made.append(el("span", {}, isPair ? "master " : "", el("b", { className: "mono" }, short(named[0].id))));
      if (isPair) made.append(" ", el("span", backups ? {} : { className: "warn" }, backups ? `+ ${many(backups, "backup", "backups")}` : "no backup"));
    }
    return made;
  };

  const newRow = (id) => {
    const summary = el("summary");
    const body = el("div", { className: "body", hidden: true });
    const details = el("details", {}, summary, body);
    details.dataset.key = id;
    details.addEventListener("toggle", () => {
      body.hidden = !details.open;
      if (details.open && balancers.has(id)) {
        paintBody(rows.get(id), balancers.get(id));
        askMaster(balancers.get(id)).catch(() => {});
      } else {
        // Of one that is closed nobody asks, and what was so may be so no more.
        for (const { id: one } of balancers.get(id)?.amphorae ?? []) if (holders.delete(one)) paintSoon(id);
      }
    });
    const row = { item: el("li", { className: "lb" }, details), details, summary, body };
    rows.set(id, row);
    return row;
  };

  const paint = (lb) => {
    const row = rows.get(lb.id) ?? newRow(lb.id);
    row.item.dataset.tone = overall(lb);
    const name = el("span", { className: "name" }, el("b", {}, title(lb)), el("span", { className: "mono" }, addresses(lb).join(", ")));
    const made = el("span", { className: "provisioning" }, state(lb.provisioning_status, true));
    const runs = el("span", { className: "operating" }, state(lb.operating_status));
    row.summary.replaceChildren(name, contents(lb), amphorae(lb), made, runs);
    if (row.details.open) paintBody(row, lb);
    return row;
  };

  const paintAll = () => {
    const text = $("search").value.trim().toLowerCase();
    const found = [...balancers.values()].filter((lb) => isWanted(lb, text));
    for (const [key, , test] of FILTERS) {
      const { button, count } = counts.get(key);
      count.textContent = found.filter(test).length;
      button.toggleAttribute("data-none", count.textContent === "0");
      button.setAttribute("aria-pressed", String(key === shown));
    }
    const test = FILTERS.find(([key]) => key === shown)[2];
    const wanted = found.filter(test).sort((a, b) => title(a).localeCompare(title(b), undefined, { numeric: true }) || (a.id < b.id ? -1 : 1));
    for (const [id, row] of rows) if (!balancers.has(id)) { row.item.remove(); rows.delete(id); }
    const items = wanted.map((lb) => paint(lb).item);
    // What stays where it is keeps its focus.
    const tree = $("tree");
    items.forEach((item, at) => { if (tree.children[at] !== item) tree.insertBefore(item, tree.children[at] ?? null); });
    while (tree.children.length > items.length) tree.lastChild.remove();
    const none = $("none");
    none.hidden = wanted.length > 0;
    if (balancers.size === 0) {
      none.replaceChildren("There is no load balancer yet. Make one:", el("br"), el("code", {}, "openstack loadbalancer create --name web --vip-subnet-id SUBNET"));
    } else if (wanted.length === 0) none.textContent = "None is like that.";
    const faulty = [...balancers.values()].filter((lb) => overall(lb) === "bad").length;
    document.title = faulty ? `(${faulty} in ERROR) Load balancers` : "Load balancers";
  };

  const paintLater = new Set();
  const paintSoon = (id) => {
    if (paintLater.size === 0) {
      setTimeout(() => {
        const some = [...paintLater].some((one) => balancers.has(one));
        paintLater.clear();
        if (some) paintAll();
      }, 60);
    }
    paintLater.add(id);
  };

  const row = (what, object, more) => {
    const line = [el("span", { className: "what" }, ...what), object.status ? el("span", { className: "states" }, state(object.status)) : states(object)];
    if (!more) return el("li", {}, el("div", { className: "row" }, ...line));
    const details = el("details", {}, el("summary", { className: "row" }, ...line), more);
    details.dataset.key = object.id;
    return el("li", {}, details);
  };
  const quiet = (text) => el("span", { className: "muted" }, text);
  const part = (name, items) => items.length === 0 ? null : el("section", { className: "part" }, el("h3", {}, name), el("ul", { className: "rows" }, ...items));

  const paintBody = (row_, lb) => {
    const { body } = row_;
    // What was open and what was focused stay so.
    const open = new Set([...body.querySelectorAll("details[open]")].map((one) => one.dataset.key));
    const isNew = body.childElementCount === 0;
    const focused = body.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key ?? "scope" : null;

    const about = el("dl", { className: "about" });
    const fact = (name, value, mono) => value && about.append(el("div", {}, el("dt", {}, name), el("dd", mono ? { className: "mono" } : {}, value)));
    fact("ID", lb.id, true);
    fact("Project", lb.project_id, true);
    fact("Topology", lb.topology);
    fact("Flavor", lb.flavor_id, true);
    fact("Made", new Date(lb.created_at).toLocaleString());
    fact("About", lb.description);
    const traffic = el("button", { type: "button" }, scope === lb.id ? "Show traffic of all" : "Show its traffic");
    traffic.addEventListener("click", () => setScope(scope === lb.id ? null : lb.id));
    about.append(traffic);

    const pools = new Map(lb.pools.map((pool) => [pool.id, pool]));
    const poolName = (id) => (pools.has(id) ? title(pools.get(id)) : short(id));
    const shares = (several) => several?.map((share) => `${poolName(share.pool_id)} ${share.weight}`).join(", ");
    const policy = (one) => {
      const rules = one.rules.map((rule) => row([`${rule.invert ? "not " : ""}${rule.type} ${rule.compare_type} `, el("code", {}, rule.key ? `${rule.key}: ${rule.value}` : rule.value)], rule));
      const to = one.redirect_pool_id ? poolName(one.redirect_pool_id) : shares(one.redirect_pools) ?? one.redirect_url ?? one.redirect_prefix ?? "";
      return row([el("b", {}, one.name || `Policy ${one.position}`), " ", quiet(`${one.action}${to ? ` → ${to}` : ""}`)], one, rules.length ? el("ul", { className: "inner" }, ...rules) : null);
    };
    const listener = (one) => {
      const policies = one.l7policies.map(policy);
      const to = one.default_pool_id ? poolName(one.default_pool_id) : shares(one.default_pools);
      return row([el("b", {}, title(one)), " ", el("span", { className: "mono" }, `${one.protocol}:${one.protocol_port}`), " ", quiet(to ? `→ ${to}` : "no default pool")],
        one, policies.length ? el("ul", { className: "inner" }, ...policies) : null);
    };
    const member = (one) => {
      const more = [one.name, one.weight === 1 ? "" : `weight ${one.weight}`, one.backup ? "backup" : ""].filter(Boolean).join(", ");
      return row([el("span", { className: "mono" }, place(one)), " ", quiet(more)], one);
    };
    const pool = (one) => {
      const monitor = one.healthmonitors[0];
      const up = one.members.filter((m) => ["ONLINE", "NO_MONITOR", "DRAINING"].includes(m.operating_status)).length;
      const text = `${one.protocol} ${one.lb_algorithm}, ${up} of ${many(one.members.length, "member", "members")} up${monitor ? `, ${monitor.type} every ${monitor.delay} s` : ", no health monitor"}`;
      const made = row([el("b", {}, title(one)), " ", quiet(text)], one, one.members.length ? el("ul", { className: "inner" }, ...one.members.map(member)) : null);
      const details = made.querySelector("details");
      if (details && isNew && one.members.length <= 8) details.open = true;
      return made;
    };
    const amphora = (one) => row([
      el("span", { className: `role ${one.role === "MASTER" && holders.get(one.id) !== false ? "master" : ""}` }, one.role ?? "NO ROLE"), " ", el("span", { className: "mono" }, one.id), " ", holders.get(one.id) ? el("b", { className: "holds" }, "is master ") : null,
      quiet([one.vrrp_ip ?? one.lb_network_ip, one.compute_driver].filter(Boolean).join(", "))], one);

    const reason = lb.reason ? el("p", { className: "reason" }, el("b", {}, many(lb.attempts, "attempt", "attempts"), " failed: "), lb.reason) : null;
    body.replaceChildren(...[reason, about, part("Listeners", lb.listeners.map(listener)), part("Pools and members", lb.pools.map(pool)), part("Amphorae", lb.amphorae.map(amphora))].filter(Boolean));
    for (const details of body.querySelectorAll("details")) if (open.has(details.dataset.key)) details.open = true;
    if (focused === "scope") traffic.focus();
    else if (focused) [...body.querySelectorAll("details")].find((one) => one.dataset.key === focused)?.querySelector("summary").focus();
  };

  const askMaster = async (lb) => {
    if (!operator || lb.topology !== "ACTIVE_STANDBY") return;
    const { masters } = await (await ask(`/page/masters?loadbalancer_id=${encodeURIComponent(lb.id)}`)).json();
    const changed = lb.amphorae.some(({ id }) => holders.get(id) !== masters[id]);
    for (const [id, is] of Object.entries(masters)) holders.set(id, is);
    if (changed) paintSoon(lb.id);
  };

  /** Of those that are open, for who is master may change without a change of rows. */
  const askMasters = () => {
    const open = [...rows].filter(([id, row_]) => row_.details.open && row_.item.isConnected && balancers.has(id));
    for (const [id] of open.slice(0, 8)) askMaster(balancers.get(id)).catch(() => {});
  };

  const reveal = (id) => {
    const lb = balancers.get(id);
    if (!lb) return;
    if (!rows.get(id)?.item.isConnected) { shown = "all"; $("search").value = ""; paintAll(); }
    const { details, summary } = rows.get(id);
    details.open = true;
    summary.focus();
    summary.scrollIntoView({ block: "center" });
  };

  // Arrows go through what is open, as in any tree.
  $("tree").addEventListener("keydown", (event) => {
    const now = event.target.closest("summary");
    if (!now || event.altKey || event.ctrlKey || event.metaKey) return;
    const visible = () => [...$("tree").querySelectorAll("summary")].filter((one) => one.checkVisibility());
    const go = (one) => { if (one) { event.preventDefault(); one.focus(); } };
    const details = now.parentElement;
    if (event.key === "ArrowDown") go(visible()[visible().indexOf(now) + 1]);
    else if (event.key === "ArrowUp") go(visible()[visible().indexOf(now) - 1]);
    else if (event.key === "Home") go(visible()[0]);
    else if (event.key === "End") go(visible().at(-1));
    else if (event.key === "ArrowRight") { event.preventDefault(); details.open = true; }
    else if (event.key === "ArrowLeft") {
      event.preventDefault();
      if (details.open) details.open = false;
      else details.parentElement.closest("details")?.querySelector("summary").focus();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !["INPUT", "TEXTAREA"].includes(document.activeElement?.tagName)) {
      event.preventDefault();
      $("search").focus();
    }
  });

  // ---- traffic ----------------------------------------------------------------------------------------------------------------

  const number = (value, unit) => {
    const binary = unit === "B/s";
    const step = binary ? 1024 : 1000;
    const prefixes = binary ? ["", "Ki", "Mi", "Gi", "Ti"] : ["", "k", "M", "G"];
    let at = 0;
    while (value >= step && at < prefixes.length - 1) { value /= step; at += 1; }
    const digits = value === 0 || value >= 100 || (at === 0 && Number.isInteger(value)) ? 0 : value >= 10 ? 1 : 2;
    return [value.toFixed(digits), `${at ? prefixes[at] : ""}${unit}`];
  };

  const [WIDTH, HEIGHT] = [300, 60];
  const CHARTS = [
    { name: "New connections", unit: "/s", series: [["connections", ""]] },
    { name: "Open connections", unit: "", series: [["open_connections", ""]] },
    { name: "Bytes", unit: "B/s", series: [["bytes_in", "in"], ["bytes_out", "out"]] },
    { name: "Request errors", unit: "/s", series: [["errors", ""]] },
  ];
  for (const chart of CHARTS) {
    chart.peak = el("span", { className: "peak" });
    chart.values = el("div", { className: "values" });
    chart.plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    chart.from = el("span");
    chart.until = el("span", {}, "now");
    chart.plot.addEventListener("pointermove", (event) => {
      const box = chart.plot.getBoundingClientRect();
      draw(chart, Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
    });
    chart.plot.addEventListener("pointerleave", () => draw(chart, null));
    $("charts").append(el("figure", { className: "chart" }, el("figcaption", {}, chart.name, chart.peak), chart.values, chart.plot, el("div", { className: "axis" }, chart.from, chart.until)));
  }

  let rates = null;
  let scope = null;

  const ago = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s ago` : `${Math.round(seconds / 60)} min ago`);

  const draw = (chart, pointed) => {
    if (!rates) return;
    const spans = Math.max(rates.spans, 2);
    // The newest is at the right, whenever the server began.
    const along = (at, length) => ((spans - length + at) / (spans - 1)) * WIDTH;
    const lines = chart.series.map(([key]) => rates[key]);
    const peak = Math.max(0, ...lines.flat());
    const height = (value) => HEIGHT - 1 - (peak ? (value / peak) * (HEIGHT - 4) : 0);
    const length = lines[0].length;
    const at = pointed === null ? length - 1 : Math.round(pointed * (spans - 1)) - (spans - length);
    chart.values.replaceChildren(...chart.series.map(([, name], n) => {
      const value = lines[n][at];
      const [text, unit] = value === undefined ? ["–", ""] : number(value, chart.unit);
      const key = lines.length > 1 ? [el("span", { className: "key" })] : [];
      return el("span", { className: n ? "value second" : "value" }, ...key, text, " ", el("small", {}, [unit, name].filter(Boolean).join(" ")));
    }));
    chart.peak.textContent = peak ? `peak ${number(peak, chart.unit).join(" ")}` : "";
    chart.from.textContent = ago(spans * rates.every_seconds);
    chart.until.textContent = pointed === null || at < 0 ? "now" : ago((length - at) * rates.every_seconds);
    const shapes = [svg("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - .5, y2: HEIGHT - .5 })];
    lines.forEach((values, n) => {
      if (values.length < 2) return;
      const points = values.map((value, i) => `${along(i, length).toFixed(1)},${height(value).toFixed(1)}`);
      if (n === 0) shapes.push(svg("polygon", { class: "area", points: `${along(0, length).toFixed(1)},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` }));
      shapes.push(svg("polyline", { class: n ? "line b" : "line", points: points.join(" ") }));
    });
    if (pointed !== null && at >= 0) shapes.push(svg("line", { class: "cursor", x1: along(at, length), x2: along(at, length), y1: 0, y2: HEIGHT }));
    chart.plot.replaceChildren(...shapes);
    const last = lines.map((values) => number(values.at(-1) ?? 0, chart.unit).join(" ")).join(" and ");
    chart.plot.setAttribute("aria-label", `${chart.name}: ${last} now, at most ${number(peak, chart.unit).join(" ")} within ${ago(spans * rates.every_seconds).replace(" ago", "")}`);
  };

  const readRates = async () => {
    const query = scope ? `?loadbalancer_id=${encodeURIComponent(scope)}` : "";
    rates = await (await ask(`/page/rates${query}`)).json();
    CHARTS.forEach((chart) => draw(chart, null));
  };

  const setScope = (id) => {
    scope = id;
    $("scope-name").textContent = id ? `of ${balancers.has(id) ? title(balancers.get(id)) : short(id)}` : "of all load balancers";
    $("scope-all").hidden = !id;
    readRates().catch(() => {});
    for (const [one, row_] of rows) if (row_.details.open && balancers.has(one)) paintBody(row_, balancers.get(one));
  };
  $("scope-all").addEventListener("click", () => setScope(null));

  // ---- events -----------------------------------------------------------------------------------------------------------------

  let last = 0;
  const log = $("events");

  const note = (text) => log.prepend(el("li", { className: "note" }, text));

  const show = (event) => {
    const known = objects.get(event.object_id);
    const lb = balancers.get(event.loadbalancer_id);
    const at = new Date(event.at);
    const what = el("span", { className: "what" });
    if (lb) {
      const link = el("button", { type: "button", className: "link" }, title(lb));
      link.addEventListener("click", () => reveal(lb.id));
      what.append(link);
    } else what.append(el("b", {}, short(event.loadbalancer_id || event.object_id)));
    if (event.object_type !== "loadbalancer") {
      const name = known ? known.object.name || (known.object.address ? place(known.object) : short(event.object_id)) : short(event.object_id);
      what.append(` ${event.object_type} ${name}`);
    }
    what.append(el("span", { className: "of" }, `, ${event.attribute.replace("_status", "")}`));
    const plain = (word) => (word ? el("span", {}, word) : null);
    const change = el("span", { className: "change" }, plain(event.old), el("span", { className: "to" }, event.old ? "→" : null,
        event.attribute === "role" ? el("b", {}, event.new ?? "none") : state(event.new ?? "none")));
    const item = el("li", {}, el("time", { dateTime: event.at, title: at.toLocaleString() }, at.toLocaleTimeString([], { hour12: false })), what, change);
    if (event.reason) item.append(el("span", { className: "why" }, event.reason));
    log.prepend(item);
    while (log.children.length > KEPT_EVENTS) log.lastChild.remove();
  };

  const apply = (event) => {
    const lb = balancers.get(event.loadbalancer_id);
    if (lb && event.id <= lb.seen) return;
    const known = objects.get(event.object_id);
    if (known && lb && event.new !== "DELETED" && event.old !== null) {
      known.object[event.attribute] = event.new;
      paintSoon(lb.id);
      // What a change was about is to be seen once it is so.
      if (event.attribute !== "provisioning_status" || event.new.startsWith("PENDING")) return;
    }
    if (event.loadbalancer_id) readSoon(event.loadbalancer_id);
  };

  const take = (text) => {
    let kind = "message";
    let data = "";
    for (const line of text.split("\n")) {
      if (line.startsWith("event: ")) kind = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (!data) return;
    const told = JSON.parse(data);
    if (kind === "history") {
      if (last > 0 && told.first_id > 1) { note("Earlier events are not kept."); readSoon(); }
      last = told.first_id - 1;
      return;
    }
    last = told.id;
    show(told);
    apply(told);
  };

  let running = null;
  /** Ends the stream that there is. */
  let hangUp = () => {};
  /** A page that nobody sees takes no connection from those that are seen: browsers have six for a server. */
  const isSeen = () => !document.hidden || performance.now() - hidden < HIDDEN;
  let hidden = performance.now();

  const follow = async (signal) => {
    let wait = 1000;
    while (!signal.aborted) {
      const attempt = new AbortController();
      const end = () => attempt.abort();
      if (!isSeen()) {
        await sleep(500);
        continue;
      }
      hangUp = end;
      signal.addEventListener("abort", end);
      let watchdog = setTimeout(end, SILENCE);
      try {
        const response = await ask(`/v2/lbaas/events?last_event_id=${last}`, { headers: { Accept: "text/event-stream" }, signal: attempt.signal });
        tell("live", "Live");
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        let rest = "";
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          clearTimeout(watchdog);
          watchdog = setTimeout(end, SILENCE);
          wait = 1000;
          const frames = (rest + value).split("\n\n");
          rest = frames.pop();
          frames.forEach(take);
        }
      } catch (error) {
        if (error instanceof SignedOut) return;
      } finally {
        clearTimeout(watchdog);
        signal.removeEventListener("abort", end);
      }
      if (signal.aborted) return;
      if (!isSeen()) continue;
      tell("lost", "Reconnecting");
      await sleep(wait);
      wait = Math.min(wait * 2, 15_000);
    }
  };

  // ---- all of it --------------------------------------------------------------------------------------------------------------

  const begin = async () => {
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    $("signin").hidden = true;
    $("who").hidden = auth !== "keystone";
    $("user").textContent = sessionStorage.getItem("user") ?? "";
    log.replaceChildren();
    ready = false;
    tell("wait", "Connecting");
    let wait = 1000;
    while (!signal.aborted) {
      try {
        all = true;
        const newest = await read();
        $("board").hidden = false;
        ready = true;
        // Some of what was before, to begin with.
        last = Math.max(0, newest - 30);
        break;
      } catch (error) {
        if (error instanceof SignedOut) return;
        tell("lost", error instanceof Refused ? error.message : "No answer");
        await sleep(wait);
        wait = Math.min(wait * 2, 15_000);
      }
    }
    readRates().catch(() => {});
    await follow(signal);
  };

  setInterval(() => {
    if (!ready || document.hidden) return;
    readRates().catch(() => {});
    askMasters();
  }, 5000);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hidden = performance.now();
    else if (ready) readRates().catch(() => {});
  });
  // The title tells of faults all the same.
  setInterval(() => {
    if (!ready || isSeen()) return;
    hangUp();
    readSoon();
  }, HIDDEN);

  if (auth === "keystone" && !token) signOut("");
  else begin();
})();
