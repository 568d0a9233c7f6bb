//! The steps about TLS and HTTP/2.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use tokio::sync::oneshot;

use super::{
    super::{
        document::{Demo, Variant},
        sender::{Route, Secure},
        stage::Stage,
        steps::LIMIT,
        tally::Phase,
        traffic::Routes,
        worker::Worker,
    },
    client::{H2, HTTP11, Manner},
    credentials::{APPS, AUTHORITIES, Authority, Leaf, Name, SERVED, SHOP, WWW, id},
    visit::{self, STREAMS, Seen},
};
use crate::error::{Error, Result};

/// How often the certificate is replaced in each pass.
const REPLACEMENTS: usize = 20;

/// New clients after each replacement. The workers take turns, so that some come to each.
const NEW_CLIENTS: usize = 4;

/// Connections that resume.
const RESUMING: usize = 8;

/// What the listener shows, and who has signed it.
#[derive(Debug)]
pub(in crate::demo) struct Secrets {
    authority: Authority,
    roots: Arc<RootCertStore>,
    served: Vec<(Name, CertificateDer<'static>)>,
}

impl Secrets {
    /// The authority, without any certificate yet.
    ///
    /// # Errors
    /// [`Error::Local`]: no key can be made.
    pub(in crate::demo) fn new() -> Result<Self> {
        let authority = Authority::new()?;
        let roots = authority.roots()?;
        Ok(Self { authority, roots, served: Vec::new() })
    }

    /// The certificate of a member: for every host that clients ask for, for this is what members are asked for in turn.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(in crate::demo) fn member(&self) -> Result<Leaf> {
        self.authority.issue(&SERVED.map(|name| name.host))
    }

    fn shown(&self, name: Name) -> Option<&CertificateDer<'static>> {
        self.served.iter().find(|(one, _)| *one == name).map(|(_, der)| der)
    }

    /// How the clients go.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(in crate::demo) fn routes(&self, plain: SocketAddr, address: SocketAddr) -> Result<Routes> {
        let route =
            |alpn| Ok::<_, Error>(route(address, Manner { alpn, ..Manner::default() }.config(&self.roots)?));
        Ok(Routes { plain: plain.into(), http2: route(&[H2, HTTP11])?, https: route(&[HTTP11])? })
    }
}

fn route(address: SocketAddr, config: Arc<ClientConfig>) -> Route {
    Route { address, secure: Some(Secure { config, host: SHOP.host }) }
}

impl Stage {
    /// Brings the certificates that documents name to the amphora, which refuses these without.
    ///
    /// # Errors
    /// The agent cannot be reached, or does not take them.
    pub(in crate::demo) async fn bring_certificates(&mut self, demo: &Demo) -> Result<()> {
        match self.client().put(demo.id(), &demo.document(Variant::default())).await {
            Err(Error::Refused { status, faults, .. }) => {
                let named =
                    faults.len() == SERVED.len() + 1 && faults.iter().all(|f| f.path.contains("_ref"));
                self.board.check(
                    named,
                    format!("without its {} certificates it is refused with {status}", SERVED.len() + 1),
                );
            }
            Err(other) => return Err(other),
            Ok(_) => self.board.check(false, "it was not refused without its certificates"),
        }
        let credential = self.secrets().authority.credential();
        self.client().put_certificate(&id(AUTHORITIES)?, &credential).await?;
        for name in SERVED {
            self.replace(name).await?;
        }
        Ok(())
    }

    /// A new certificate takes the place of the one that is there.
    async fn replace(&mut self, name: Name) -> Result<()> {
        let leaf = self.secrets().authority.issue(&[name.host])?;
        self.client().put_certificate(&id(name.id)?, &leaf.credential()).await?;
        let served = &mut self.secrets_mut().served;
        served.retain(|(one, _)| *one != name);
        served.push((name, leaf.der));
        Ok(())
    }

    /// Who is shown which certificate, HTTP/2, resumption, re-encryption.
    pub(in crate::demo) async fn terminate(&mut self) -> Result<()> {
        self.board.step("HTTPS: certificates by name, HTTP/2, a pool whose members speak TLS");
        let phase = self.next_phase();
        let address = self.topology().secure();
        let roots = self.secrets().roots.clone();
        let any = Manner { any_host: true, ..Manner::default() }.config(&roots)?;
        for (host, name) in [
            (Some(SHOP.host), SHOP),
            (Some("one.apps.example.com"), APPS),
            (Some(WWW.host), WWW),
            (Some("elsewhere.example.net"), WWW),
            (None, WWW),
        ] {
            let config = any.clone();
            let shown = self.visit(move || visit::certificate(address, config, host)).await?;
            let right = shown.as_ref().is_ok_and(|shown| Some(shown) == self.secrets().shown(name));
            let asked = host.map_or("without SNI".to_owned(), |host| format!("SNI {host}"));
            self.board.check(right, told(&format!("{asked}: the certificate of {}", name.host), &shown));
        }

        let manner = |alpn| Manner { alpn, ..Manner::default() };
        for (offered, expected) in [([H2, HTTP11].as_slice(), H2), (&[HTTP11], HTTP11)] {
            let config = manner(offered).config(&roots)?;
            let chosen = self.visit(move || visit::alpn(address, config, SHOP.host)).await?;
            let names: Vec<_> = offered.iter().map(|name| String::from_utf8_lossy(name)).collect();
            let what = format!("ALPN {}: {}", names.join(", "), String::from_utf8_lossy(expected));
            self.board.check(chosen.as_ref().is_ok_and(|chosen| *chosen == expected), told(&what, &chosen));
        }
        let by_http2 = route(address, manner(&[H2]).config(&roots)?);
        let by_http11 = route(address, manner(&[HTTP11]).config(&roots)?);
        let way = by_http2.clone();
        let answered = self.visit(move || visit::multiplexed(way)).await?;
        let what =
            format!("HTTP/2: {STREAMS} requests at once on one connection, each with its right answer");
        self.board.check(answered == Ok(STREAMS), told(&what, &answered));

        for (protocol, way) in [("HTTP/2", by_http2), ("HTTP/1.1", by_http11)] {
            let said = self.visit(move || visit::reencrypted(way)).await?;
            let right = said.as_ref().is_ok_and(|said| *said == format!("TLSv1_3 {}", SHOP.host));
            let what = format!(
                "re-encryption, {protocol}: the member of pool vault was asked for {} by TLS 1.3",
                SHOP.host
            );
            self.board.check(right, told(&what, &said));
        }

        for (version, old) in [("TLS 1.3", false), ("TLS 1.2", true)] {
            let way = route(address, Manner { resumes: true, old, ..Manner::default() }.config(&roots)?);
            let resumed = self.visit(move || visit::resumed(way, RESUMING)).await?;
            let right = resumed.as_ref().is_ok_and(|all| !all[0] && all[1..].iter().all(|one| *one));
            let what = format!("{version}: after a full handshake {RESUMING} connections resumed");
            self.board.check(right, told(&what, &resumed));
        }
        self.unharmed(phase, "meanwhile");
        self.linger().await
    }

    /// Replaces a certificate under load.
    pub(in crate::demo) async fn replace_certificate(&mut self) -> Result<()> {
        self.board.step(&format!("replace the certificate of {} {REPLACEMENTS} times under load", SHOP.host));
        let phase = self.next_phase();
        let address = self.topology().secure();
        let roots = self.secrets().roots.clone();
        let full = Manner::default().config(&roots)?;
        let by_http11 = route(address, full.clone());
        let by_http2 = route(address, Manner { alpn: &[H2], ..Manner::default() }.config(&roots)?);

        let (begun, has_begun) = oneshot::channel();
        let (end, ends) = oneshot::channel();
        let (tell, told_of) = oneshot::channel();
        let netns = self.topology().client_netns().map(str::to_owned);
        let mut under_way = Worker::start(netns.as_deref(), move || async move {
            let _ = tell.send(visit::through(by_http11, by_http2, begun, ends).await);
        })?;
        // When it does not begin, its end says why.
        let _ = has_begun.await;

        let (mut times, mut new, mut others) = (Vec::new(), 0, Vec::new());
        for n in 1..=REPLACEMENTS {
            let begin = Instant::now();
            self.replace(SHOP).await?;
            times.push(begin.elapsed());
            self.board.read().doing = format!("replace a certificate: {n} of {REPLACEMENTS}");
            for _ in 0..NEW_CLIENTS {
                let config = full.clone();
                let shown = self.visit(move || visit::certificate(address, config, Some(SHOP.host))).await?;
                match shown {
                    Ok(shown) if Some(&shown) == self.secrets().shown(SHOP) => new += 1,
                    Ok(_) => others.push("a former one".to_owned()),
                    Err(error) => others.push(error),
                }
            }
            // Some traffic sees each of them.
            let so_far = self.counts.tally().phase(phase).requests();
            self.until(LIMIT, |s| s.counts.tally().phase(phase).requests() >= so_far + 20).await?;
        }
        let _ = end.send(());
        under_way.finish().await?;
        let ended: Seen<usize> = told_of.await.unwrap_or_else(|_| Err("it was not seen".to_owned()));

        times.sort_unstable();
        let ms = |at: usize| times[at].as_secs_f64() * 1e3;
        self.board.note(format!(
            "served after {:.1} ms at the median, {:.1} ms at most",
            ms(times.len() / 2),
            ms(times.len() - 1)
        ));
        others.dedup();
        let mut what =
            format!("new clients are shown the new one at once: {new} of {}", REPLACEMENTS * NEW_CLIENTS);
        if !others.is_empty() {
            what = format!("{what}; others: {}", others.join(", "));
        }
        self.board.check(others.is_empty(), what);
        let what = "uploads half sent, by HTTP/1.1 and HTTP/2, and a kept connection of each lived through all of it";
        self.board.check(ended == Ok(4), told(what, &ended));
        let seen: Phase = self.counts.tally().phase(phase);
        self.board.check(seen.is_clean(), format!("{} requests meanwhile: {}", seen.requests(), seen.harm()));
        self.linger().await
    }

    /// Does something as a client of the VIP.
    async fn visit<T, F>(&mut self, work: impl FnOnce() -> F + Send + 'static) -> Result<Seen<T>>
    where
        T: Send + 'static,
        F: Future<Output = Seen<T>>,
    {
        let (tell, told) = oneshot::channel();
        let mut worker = Worker::start(self.topology().client_netns(), move || async move {
            let _ = tell.send(work().await);
        })?;
        worker.finish().await?;
        Ok(told.await.unwrap_or_else(|_| Err("it was not seen".to_owned())))
    }
}

/// What was promised, and what kept it from being tried.
fn told<T>(what: &str, seen: &Seen<T>) -> String {
    match seen {
        Ok(_) => what.to_owned(),
        Err(error) => format!("{what} ({error})"),
    }
}
