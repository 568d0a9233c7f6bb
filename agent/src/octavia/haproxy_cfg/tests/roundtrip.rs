//! Load balancers to text by the real Octavia, and back.

use std::borrow::Cow;

use amphora_model::{
    CertificateId, ListenerId, ListenerProtocol, LoadBalancer, PoolProtocol, SessionPersistence, TlsVersion,
    arbitrary::{CERTIFICATES, Generator, Shape, crt_list},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{Certificates, Context, Fault, translate},
    rendered::{Release, rendered, settings},
};
use crate::testing::octavia;

const SCRIPT: &str = include_str!("../../../../../tests/octavia/render_haproxy.py");

/// What the driver uploads besides the text.
struct Uploaded<'a>(&'a LoadBalancer);

impl Certificates for Uploaded<'_> {
    fn has(&self, id: &CertificateId) -> bool {
        CERTIFICATES.contains(&id.as_str())
    }

    fn crt_list(&self, listener: ListenerId) -> Option<Cow<'_, [u8]>> {
        crt_list(self.0, listener).map(|list| Cow::Owned(list.into_bytes()))
    }
}

/// A load balancer, and how a controller is configured that renders it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) lb: LoadBalancer,
    format: Option<&'static str>,
    facility: u8,
    pair: bool,
    threads: bool,
}

impl Case {
    pub(super) fn shaped(seed: u64, shape: &Shape) -> Self {
        let mut g = Generator::new(seed);
        let mut lb = g.load_balancer(shape);
        let listeners =
            lb.listeners.iter_mut().filter_map(|listener| Some(&mut listener.tls.as_mut()?.settings));
        let pools = lb.pools.iter_mut().filter_map(|pool| Some(&mut pool.tls.as_mut()?.settings));
        for settings in listeners.chain(pools) {
            // Octavia stores its default list, and fails without one where a half of it is left out.
            let newest = settings.versions.contains(&TlsVersion::Tls1_3);
            if settings.ciphers.is_none() && !(newest && settings.versions.len() > 1) {
                settings.ciphers = Some("TLS_AES_256_GCM_SHA384:ECDHE-ECDSA-AES128-GCM-SHA256".into());
            }
        }
        let formats = [
            None,
            Some(
                "{{ project_id }} {{ lb_id }} %f %ci %cp %t %{+Q}r %ST %B %U %[ssl_c_verify] %{+Q}[ssl_c_s_dn] %b %s %Tt %tsc",
            ),
            Some("\"%ci\" <%r> & 'x' %ST #1"),
        ];
        Self {
            lb,
            format: g.pick(&formats),
            facility: g.within(0..=7) as u8,
            pair: g.one_in(2),
            threads: g.one_in(4),
        }
    }

    fn document(&self) -> Value {
        let mut document = self.lb.to_json();
        document["topology"] = if self.pair { "ACTIVE_STANDBY" } else { "SINGLE" }.into();
        document["log_format"] = json!(self.format);
        document["facility"] = self.facility.into();
        let tuned = if self.threads { "virtual-guest amphora" } else { "" };
        let memory = json!({ "free": 900_000, "buffers": 1_000, "cached": 400_000 });
        document["details"] = json!({ "active_tuned_profiles": tuned, "cpu_count": 4, "memory": memory });
        document
    }

    pub(super) fn expected(&self) -> LoadBalancer {
        normal(rendered(&self.lb, self.format.map(|format| (format, self.facility)), Release::installed()))
    }

    pub(super) fn translated(&self, text: &str) -> Result<LoadBalancer, Fault> {
        let vips: Vec<_> = self.lb.vips.iter().map(|vip| vip.address).collect();
        let context = Context { certificates: &Uploaded(&self.lb), vips: &vips };
        let translated = translate(text.as_bytes(), &context)?;
        assert_eq!(translated.peers.len(), if self.pair { 2 } else { 0 });
        Ok(normal(translated.load_balancer))
    }
}

/// With the ciphers in one order.
fn normal(mut lb: LoadBalancer) -> LoadBalancer {
    for tls in lb.listeners.iter_mut().filter_map(|listener| listener.tls.as_mut()) {
        tls.settings = settings(&tls.settings, Release::installed());
    }
    for tls in lb.pools.iter_mut().filter_map(|pool| pool.tls.as_mut()) {
        tls.settings = settings(&tls.settings, Release::installed());
    }
    lb
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer {
    Text(String),
    Error(String),
}

pub(super) fn render(cases: &[Case]) -> Option<Vec<Answer>> {
    let documents: Vec<Value> = cases.iter().map(Case::document).collect();
    octavia::ask(SCRIPT, &documents)
}

#[test]
fn what_octavia_renders_comes_back() {
    let shape = Shape { listeners: 1..=4, tls: true, ..Shape::default() };
    let cases: Vec<Case> = (0..400).map(|seed| Case::shaped(seed, &shape)).collect();
    let Some(answers) = render(&cases) else { return };
    for (seed, (case, answer)) in cases.iter().zip(answers).enumerate() {
        let text = match answer {
            Answer::Text(text) => text,
            Answer::Error(error) => panic!("{seed}: {error}"),
        };
        match case.translated(&text) {
            Ok(lb) => assert_eq!(lb, case.expected(), "{seed}\n{text}"),
            Err(fault) => panic!("{seed}: {fault}\n{text}"),
        }
    }
}

/// A backend of mode http reads the cookies, and one of mode tcp does not: each listener has its own in HAProxy, and here as well.
#[test]
fn a_pool_of_two_listeners_has_its_cookies_for_that_of_http() {
    let shape = Shape { listeners: 2..=4, tls: true, ..Shape::default() };
    let shared = |seed| {
        let mut case = Case::shaped(seed, &shape);
        case.lb.admin_state_up = true;
        let by_cookie = |kind: &SessionPersistence| match kind {
            SessionPersistence::AppCookie { cookie_name } => cookie_name.is_ascii(),
            kind => *kind == SessionPersistence::HttpCookie,
        };
        let pool = case.lb.pools.iter().find(|pool| {
            pool.admin_state_up
                && matches!(pool.protocol, PoolProtocol::Proxy | PoolProtocol::ProxyV2)
                && pool.session_persistence.as_ref().is_some_and(by_cookie)
        })?;
        let id = pool.id;
        let mut listeners: Vec<_> = case.lb.listeners.iter_mut().collect();
        let http = listeners.iter().position(|listener| listener.protocol == ListenerProtocol::Http)?;
        let tcp = listeners.iter().position(|listener| {
            matches!(listener.protocol, ListenerProtocol::Tcp | ListenerProtocol::Https)
        })?;
        for at in [http, tcp] {
            listeners[at].default_pool = Some(id);
            listeners[at].admin_state_up = true;
        }
        Some((case, id))
    };
    let cases: Vec<_> = (0..4_000).filter_map(shared).collect();
    let (cases, pools): (Vec<Case>, Vec<_>) = cases.into_iter().unzip();
    let Some(answers) = render(&cases) else { return };
    for ((case, pool), answer) in cases.iter().zip(pools).zip(answers) {
        let Answer::Text(text) = answer else { panic!("is not rendered") };
        let lb = case.translated(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
        assert_eq!(lb, case.expected(), "{text}");
        let persistence = lb.pools.iter().find(|one| one.id == pool).unwrap().session_persistence.as_ref();
        assert!(persistence.is_some());
    }
    assert!(cases.len() > 20, "{}", cases.len());
}
