//! What the page shows in a browser: none, three and three hundred load balancers, in both themes, on a telephone and on a desk.

use std::time::Instant;

use super::{browser::Browser, *};

const DESK: (u32, u32) = (1440, 900);
const TELEPHONE: (u32, u32) = (375, 812);

/// The name of one that a tenant has chosen with care.
const EVIL: &str = "<img src=x onerror=alert(1)>&amp;\"'";

const LISTENER: &str = "3c9f2c57-1d5e-4b53-9d80-7c0d9a1f9a22";

/// Load balancers with a listener, a pool, two members and a pair of amphorae each.
async fn filled(served: &Served, count: usize) {
    let mut text = String::new();
    for n in 0..count {
        let name = if n == 1 { EVIL.replace('\'', "''") } else { format!("lb-{n}") };
        let (made, runs) = match n % 10 {
            2 => ("ERROR", "OFFLINE"),
            5 => ("PENDING_UPDATE", "ONLINE"),
            7 => ("ACTIVE", "DEGRADED"),
            _ => ("ACTIVE", "ONLINE"),
        };
        let listener = if n == 0 { LISTENER.to_owned() } else { format!("listener-{n}") };
        text.push_str(&format!(
            "INSERT INTO load_balancer (id, project_id, name, provisioning_status, operating_status, topology, compute_driver, provider,
                vip_address, vip_port_id, vip_subnet_id, vip_network_id, created_at)
                VALUES ('lb-{n}', 'p', '{name}', '{made}', '{runs}', 'ACTIVE_STANDBY', 'namespaces', 'amphora', '192.0.2.{n}', '', '', '', 0);
             INSERT INTO pool (id, project_id, load_balancer_id, name, provisioning_status, operating_status, protocol, lb_algorithm, created_at,
                generation) VALUES ('pool-{n}', 'p', 'lb-{n}', 'pool', 'ACTIVE', 'ONLINE', 'HTTP', 'ROUND_ROBIN', 0, 1);
             INSERT INTO member (id, project_id, pool_id, provisioning_status, operating_status, address, protocol_port, created_at, generation)
                VALUES ('m-{n}-1', 'p', 'pool-{n}', 'ACTIVE', 'ONLINE', '192.0.2.8', 80, 0, 1),
                ('m-{n}-2', 'p', 'pool-{n}', 'ACTIVE', 'ERROR', '2001:db8::9', 80, 0, 1);
             INSERT INTO listener (id, project_id, load_balancer_id, name, provisioning_status, operating_status, protocol, protocol_port,
                default_pool_id, timeout_client_data, timeout_member_connect, timeout_member_data, timeout_tcp_inspect, created_at, generation)
                VALUES ('{listener}', 'p', 'lb-{n}', 'web', 'ACTIVE', 'ONLINE', 'HTTP', 80, 'pool-{n}', 1, 1, 1, 0, 0, 1);
             INSERT INTO amphora (id, load_balancer_id, status, role, compute_driver, compute_id, lb_network_ip, agent_port, cert_expiration,
                created_at) VALUES ('one-{n}-aaaa', 'lb-{n}', 'ALLOCATED', 'MASTER', 'namespaces', 'c{n}', '127.0.0.1', 1, 0, 0),
                ('two-{n}-bbbb', 'lb-{n}', 'ALLOCATED', 'BACKUP', 'namespaces', 'd{n}', '127.0.0.1', 1, 0, 0);"
        ));
    }
    if count > 2 {
        text.push_str("INSERT INTO work (kind, subject, attempts, reason, created_at) VALUES ('LOAD_BALANCER', 'lb-2', 4, 'no room on the disk', 0);");
    }
    served.write(&text).await;
}

/// Nothing of the page is wider than the window, and every text that is seen can be read: 4.5 to 1 as WCAG has it.
const SOUND: &str = r#"(() => {
  const wrong = [];
  if (document.documentElement.scrollWidth > innerWidth) wrong.push(`${document.documentElement.scrollWidth} wide`);
  const numbers = (text) => {
    const found = text.match(/[\d.]+/g).map(Number);
    return text.startsWith("color(") ? found.slice(0, 3).map((part) => part * 255).concat(found.slice(3)) : found;
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((part) => { part /= 255; return part <= .03928 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4; });
    return .2126 * x + .7152 * y + .0722 * z;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  for (const one of document.querySelectorAll("body *")) {
    const text = [...one.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
    if (!text || !one.checkVisibility() || one.closest("noscript, .skip")) continue;
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(behind(one))];
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < 4.5) wrong.push(`${text.slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return wrong;
})()"#;

const ROWS: &str = "document.querySelectorAll('#tree > li').length";

fn none_and_three(
    browser: &mut Browser,
    [none, three]: [&str; 2],
    runtime: &tokio::runtime::Handle,
    served: &Served,
) {
    browser.open(none, DESK, "light");
    browser.until("document.getElementById('live').textContent", &json!("Live"));
    browser
        .until("document.getElementById('none').textContent.includes('no load balancer yet')", &json!(true));
    assert_eq!(browser.value(SOUND), json!([]));
    browser.picture("0-desk-light");

    browser.open(three, DESK, "light");
    browser.until(ROWS, &json!(3));
    browser.until("document.getElementById('live').textContent", &json!("Live"));
    let names = browser.value("[...document.querySelectorAll('.lb .name b')].map((one) => one.textContent)");
    assert_eq!(names, json!([EVIL, "lb-0", "lb-2"]));
    assert_eq!(browser.value("document.querySelectorAll('#board img').length"), json!(0), "a name is a text");
    assert!(browser.value("document.title").as_str().unwrap().contains("1 in ERROR"));
    assert_eq!(
        browser.value("document.querySelector('.lb .amps').textContent"),
        json!("master one-1-aa + 1 backup"),
        "who is master"
    );
    // With the keyboard alone: to the first, open it, to the next.
    browser.value("document.querySelector('.skip').focus()");
    browser.press("Enter");
    browser.press("Tab");
    browser.until("document.activeElement.closest('.lb')?.querySelector('b').textContent", &json!(EVIL));
    browser.press("ArrowDown");
    browser.until("document.activeElement.closest('.lb')?.querySelector('b').textContent", &json!("lb-0"));
    assert_eq!(
        browser.value("getComputedStyle(document.activeElement).outlineStyle"),
        json!("solid"),
        "the focus is seen"
    );
    browser.press("Enter");
    browser.until("document.querySelectorAll('.lb')[1].querySelectorAll('h3').length", &json!(3));
    let members = "[...document.querySelectorAll('.lb')[1].querySelectorAll('.inner .mono')].map((one) => one.textContent)";
    browser.until(members, &json!(["192.0.2.8:80", "[2001:db8::9]:80"]));
    browser.press("ArrowDown");
    browser.until("document.activeElement.textContent.startsWith('pool')", &json!(true));

    // What changes is seen without a reload, and the focus stays.
    runtime.block_on(served.write(
        "UPDATE member SET operating_status = 'DRAINING' WHERE id = 'm-0-1';
         UPDATE load_balancer SET operating_status = 'DEGRADED' WHERE id = 'lb-0';
         UPDATE amphora SET role = 'BACKUP' WHERE id = 'one-0-aaaa'; UPDATE amphora SET role = 'MASTER' WHERE id = 'two-0-bbbb';
         INSERT INTO event (at, project_id, load_balancer_id, object_type, object_id, attribute, old, new, reason)
            VALUES (unixepoch() * 1000, 'p', 'lb-2', 'loadbalancer', 'lb-2', 'provisioning_status', 'ERROR', 'ERROR', 'no room <b>left</b>');",
    ));
    browser.until(
        "document.querySelectorAll('.lb')[1].querySelector('.operating').textContent",
        &json!("DEGRADED"),
    );
    browser.until(
        "document.querySelectorAll('.lb')[1].querySelector('.amps').textContent",
        &json!("master two-0-bb + 1 backup"),
    );
    browser.until(
        "document.querySelectorAll('.lb')[1].querySelector('.inner .state').textContent",
        &json!("DRAINING"),
    );
    browser.until("document.activeElement.textContent.startsWith('pool')", &json!(true));
    browser.until("document.querySelector('#events .why').textContent", &json!("no room <b>left</b>"));
    browser.value("document.querySelectorAll('.lb details')[0].open = true; document.querySelector('#tree > li:last-child details').open = true");
    browser.until(
        "document.querySelector('.reason')?.textContent",
        &json!("4 attempts failed: no room on the disk"),
    );
    for (scheme, size, name) in [
        ("light", DESK, "desk"),
        ("dark", DESK, "desk"),
        ("light", TELEPHONE, "telephone"),
        ("dark", TELEPHONE, "telephone"),
    ] {
        browser.resize(size, scheme);
        assert_eq!(browser.value(SOUND), json!([]), "{scheme} {size:?}");
        browser.picture(&format!("3-{name}-{scheme}"));
    }
    let dark = browser.value("getComputedStyle(document.body).backgroundColor");
    browser.resize(DESK, "light");
    assert_ne!(browser.value("getComputedStyle(document.body).backgroundColor"), dark);
}

/// Ten minutes of traffic, for which nobody waits.
const TRAFFIC: &str = "const ask = window.fetch; window.fetch = (path, options) => {
    if (!String(path).startsWith('/page/rates')) return ask(path, options);
    const wave = (height, shift) => Array.from({length: 59}, (_, at) => height * (1 + Math.sin(at / 7 + shift) / 2));
    const told = {every_seconds: 10, spans: 59, connections: wave(120, 0), open_connections: wave(800, 1), bytes_in: wave(4e4, 2),
        bytes_out: [...wave(2e6, 3).slice(1), 1536000], errors: Array(59).fill(0)};
    return Promise.resolve(new Response(JSON.stringify(told)));
};";

fn three_hundred(browser: &mut Browser, url: &str) {
    browser.before_all(TRAFFIC);
    let begin = Instant::now();
    browser.open(url, DESK, "dark");
    browser.until(ROWS, &json!(300));
    eprintln!("300 load balancers are there after {} ms", begin.elapsed().as_millis());
    let counts = "[...document.querySelectorAll('#filters b')].map((one) => one.textContent)";
    assert_eq!(browser.value(counts), json!(["300", "30", "30", "30", "30"]));
    browser.until("document.querySelector('.chart .value.second').textContent", &json!("1.46 MiB/s out"));
    assert_eq!(
        browser.value("[...document.querySelectorAll('.chart .line')].map((line) => line.points.length)"),
        json!([59, 59, 59, 59, 59])
    );
    let label = browser.value("document.querySelectorAll('.chart svg')[3].getAttribute('aria-label')");
    assert_eq!(label, json!("Request errors: 0 /s now, at most 0 /s within 10 min"));
    browser.picture("300-desk-dark");
    // What has been found last stands still while the first are typed.
    browser.press("/");
    browser.until("document.activeElement.id", &json!("search"));
    browser.value("const s = document.getElementById('search'); s.value = '192.0.2.29'; s.dispatchEvent(new Event('input'))");
    assert_eq!(browser.value(ROWS), json!(11));
    browser.value("document.querySelectorAll('#filters button')[1].click()");
    assert_eq!(browser.value("document.querySelector('#tree').textContent.includes('lb-292')"), json!(true));
    browser.resize(TELEPHONE, "light");
    assert_eq!(browser.value(SOUND), json!([]));
    browser.picture("300-telephone-light");
}

fn sign_in(browser: &mut Browser, url: &str) {
    browser.open(url, TELEPHONE, "light");
    browser.until("document.getElementById('signin').hidden || document.activeElement.id", &json!("name"));
    assert_eq!(browser.value("document.getElementById('board').hidden"), json!(true));
    assert_eq!(browser.value(SOUND), json!([]));
    browser.picture("signin-telephone-light");
    let fill = |password: &str| {
        format!(
            "document.getElementById('name').value = 'alice'; document.getElementById('password').value = '{password}'; \
             document.querySelector('#form .primary').click()"
        )
    };
    browser.value(&fill("wrong"));
    browser.until(
        "document.getElementById('refused').textContent",
        &json!("User, password or project is wrong."),
    );
    browser.value(&fill("secret"));
    browser.until("document.getElementById('board').hidden", &json!(false));
    browser.until("document.getElementById('user').textContent", &json!("alice in shop"));
    browser.until("document.getElementById('live').textContent", &json!("Live"));
    assert_eq!(browser.value("document.getElementById('password').value"), json!(""));
    // It is of this tab, and of nobody who comes later.
    assert_eq!(browser.value("[localStorage.length, document.cookie]"), json!([0, ""]));
    browser.value("window.had = sessionStorage.getItem('token')");
    browser.value("document.getElementById('signout').click()");
    browser.until("document.getElementById('signin').hidden", &json!(false));
    assert_eq!(browser.value("sessionStorage.length"), json!(0));
    // It was given back.
    browser.value(
        "void setInterval(async () => { \
         const headers = { 'X-Auth-Token': window.had }; \
         window.code = (await fetch('/v2/lbaas/loadbalancers', { headers })).status; }, 100)",
    );
    browser.until("window.code", &json!(401));
}

#[tokio::test]
async fn in_a_browser() {
    let [none, three, many] = [Served::new("").await, Served::new("").await, Served::new("").await];
    let keystone = format!("[api_settings]\nauth_strategy = keystone\n[users]\nalice = shop member {HASH}\n");
    let keystone = Served::new(&keystone).await;
    filled(&three, 3).await;
    filled(&many, 300).await;
    let url = |served: &Served| format!("http://{}/", served.address);
    let urls = [url(&none), url(&three), url(&many), url(&keystone)];
    let runtime = tokio::runtime::Handle::current();
    let shown = tokio::task::spawn_blocking(move || {
        let Some(mut browser) = Browser::start() else { return };
        let [none, zero, hundreds, locked] = &urls;
        none_and_three(&mut browser, [none, zero], &runtime, &three);
        three_hundred(&mut browser, hundreds);
        assert_eq!(browser.faults, [""; 0], "nothing went wrong in the page");
        sign_in(&mut browser, locked);
        let faults: Vec<_> = browser.faults.iter().filter(|fault| !fault.contains("401")).collect();
        assert_eq!(faults, [""; 0], "nothing went wrong in the page");
    });
    shown.await.unwrap();
}
