//! TLS contexts of listeners and pools, which are made anew only when something of them is another: a field, or what is in a
//! certificate that it names.

use std::{collections::HashMap, sync::Arc};

use amphora_ipc::proxy::{Fault, Remark};
use amphora_model::{CertificateId, Listener, ListenerId, ListenerTls, Pool, PoolId, PoolTls};

use crate::tls::{
    ClientContext, Material, MaterialError, NoMaterial, Pem, Seal, ServerContext, TicketKeys, TlsFault,
    TlsRemark,
};

/// What TLS takes beside the document.
#[derive(Clone)]
pub struct TlsSource {
    /// Where certificates and keys are to be had.
    pub material: Arc<dyn Material + Send + Sync>,
    /// The process's.
    pub keys: Arc<TicketKeys>,
}

impl Default for TlsSource {
    /// Without any certificate.
    fn default() -> Self {
        Self { material: Arc::new(NoMaterial), keys: TicketKeys::new() }
    }
}

/// Contexts that are in use, or would be if their listener or pool were enabled.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    servers: HashMap<ListenerId, Made<ListenerTls, ServerContext>>,
    clients: HashMap<PoolId, Made<PoolTls, ClientContext>>,
}

/// A context, and what it was made of.
#[derive(Debug)]
struct Made<Tls, T> {
    tls: Tls,
    material: [u8; 32],
    context: Arc<T>,
    remarks: Arc<[TlsRemark]>,
    expiry: Expiry,
}

/// See [`ServerContext::expiry`].
pub type Expiry = Arc<[(CertificateId, i64)]>;

impl Contexts {
    /// Until when that is good which clients of each listener are shown.
    pub(super) fn expiry(&self) -> HashMap<ListenerId, Expiry> {
        self.servers.iter().map(|(id, made)| (*id, Arc::clone(&made.expiry))).collect()
    }
}

/// A context, whichever.
trait Context {
    fn identity(&self) -> &[u8; 32];
    fn remarks(&self) -> &[TlsRemark];
    fn expiry(&self) -> &[(CertificateId, i64)] {
        &[]
    }
}

impl Context for ServerContext {
    fn identity(&self) -> &[u8; 32] {
        self.identity()
    }

    fn remarks(&self) -> &[TlsRemark] {
        self.remarks()
    }

    fn expiry(&self) -> &[(CertificateId, i64)] {
        self.expiry()
    }
}

impl Context for ClientContext {
    fn identity(&self) -> &[u8; 32] {
        self.identity()
    }

    fn remarks(&self) -> &[TlsRemark] {
        self.remarks()
    }
}

impl<Tls: Clone, T> Clone for Made<Tls, T> {
    fn clone(&self) -> Self {
        let (context, remarks) = (Arc::clone(&self.context), Arc::clone(&self.remarks));
        let expiry = Arc::clone(&self.expiry);
        Self { tls: self.tls.clone(), material: self.material, context, remarks, expiry }
    }
}

/// Makes contexts, after those that there were before.
pub(super) struct Maker<'a> {
    source: &'a TlsSource,
    before: &'a Contexts,
    made: Contexts,
    pub(super) remarks: Vec<Remark>,
}

impl<'a> Maker<'a> {
    pub(super) fn new(source: &'a TlsSource, before: &'a Contexts) -> Self {
        Self { source, before, made: Contexts::default(), remarks: Vec::new() }
    }

    /// The context of a listener; `None` without TLS.
    pub(super) fn listener(&mut self, listener: &Listener) -> Result<Option<Arc<ServerContext>>, Vec<Fault>> {
        let Some(tls) = &listener.tls else { return Ok(None) };
        let path = format!("loadbalancer.listeners[{}]", listener.id);
        let authentication = tls.client_authentication.as_ref();
        let ids = [&tls.certificate]
            .into_iter()
            .chain(&tls.sni_certificates)
            .chain(authentication.map(|wanted| &wanted.authorities))
            .chain(authentication.and_then(|wanted| wanted.revocations.as_ref()));
        let read = ReadAhead::of(&*self.source.material, ids);
        let compile = || ServerContext::compile(listener.id, tls, &read, &self.source.keys);
        let known = self.before.servers.get(&listener.id);
        let made = make(known, tls, read.digest, compile).map_err(|faults| at(&path, faults))?;
        note(&mut self.remarks, &path, &made.remarks);
        let context = Arc::clone(&made.context);
        self.made.servers.insert(listener.id, made);
        Ok(Some(context))
    }

    /// The context of a pool; `None` without TLS.
    pub(super) fn pool(&mut self, pool: &Pool) -> Result<Option<Arc<ClientContext>>, Vec<Fault>> {
        let Some(tls) = &pool.tls else { return Ok(None) };
        let path = format!("loadbalancer.pools[{}]", pool.id);
        let ids = tls.authorities.iter().chain(&tls.revocations).chain(&tls.client_certificate);
        let read = ReadAhead::of(&*self.source.material, ids);
        let compile = || ClientContext::compile(tls, &read);
        let known = self.before.clients.get(&pool.id);
        let made = make(known, tls, read.digest, compile).map_err(|faults| at(&path, faults))?;
        note(&mut self.remarks, &path, &made.remarks);
        let context = Arc::clone(&made.context);
        self.made.clients.insert(pool.id, made);
        Ok(Some(context))
    }

    pub(super) fn into_contexts(self) -> (Contexts, Vec<Remark>) {
        (self.made, self.remarks)
    }
}

/// The context that is known, when it is made of the same.
fn make<Tls: Clone + PartialEq, T: Context>(
    known: Option<&Made<Tls, T>>,
    tls: &Tls,
    material: [u8; 32],
    compile: impl FnOnce() -> Result<T, Vec<TlsFault>>,
) -> Result<Made<Tls, T>, Vec<TlsFault>> {
    if let Some(known) = known
        && known.tls == *tls
        && known.material == material
    {
        return Ok(known.clone());
    }
    let context = compile()?;
    let (remarks, expiry) = (context.remarks().into(), context.expiry().into());
    let context = match known {
        // Of the same after all: what it names has another id and the same content, for instance.
        Some(known) if known.context.identity() == context.identity() => Arc::clone(&known.context),
        _ => Arc::new(context),
    };
    Ok(Made { tls: tls.clone(), material, context, remarks, expiry })
}

fn at(path: &str, faults: Vec<TlsFault>) -> Vec<Fault> {
    let fault = |fault: TlsFault| Fault { path: format!("{path}.{}", fault.field), reason: fault.reason };
    faults.into_iter().map(fault).collect()
}

fn note(remarks: &mut Vec<Remark>, path: &str, of_tls: &[TlsRemark]) {
    let remark = |of: &TlsRemark| Remark { path: format!("{path}.{}", of.field), text: of.text.clone() };
    remarks.extend(of_tls.iter().map(remark));
}

/// Material that was read once, so that what is compiled is what the digest is of.
struct ReadAhead {
    read: HashMap<CertificateId, Result<Pem, MaterialError>>,
    digest: [u8; 32],
}

impl ReadAhead {
    fn of<'a>(material: &dyn Material, ids: impl Iterator<Item = &'a CertificateId>) -> Self {
        let (mut read, mut seal) = (HashMap::new(), Seal::new("material"));
        for id in ids {
            let found = read.entry(id.clone()).or_insert_with(|| material.pem(id));
            seal.add(id.as_str().as_bytes());
            seal.add(found.as_ref().map_or(&[], |bytes| bytes));
        }
        Self { read, digest: seal.finish() }
    }
}

impl Material for ReadAhead {
    fn pem(&self, id: &CertificateId) -> Result<Pem, MaterialError> {
        self.read.get(id).cloned().unwrap_or_else(|| Err(MaterialError::Missing(id.clone())))
    }
}
