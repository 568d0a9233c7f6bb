//! Session persistence of a pair: whom each amphora keeps its tables alike with.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
};

use amphora_ipc::proxy::Peers;
use aws_lc_rs::rand;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::complain;
use crate::{
    client::Client,
    error::{Error, Result},
};

/// The length of a key, in bytes; it is written in hexadecimal.
const KEY: usize = 32;

/// The port of the two proxies for each other, unless another is chosen.
pub(crate) const PORT: u16 = 1025;

/// What becomes of the tables of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// They are kept alike over these addresses, in the order of the amphorae.
    Alike([IpAddr; 2], u16),
    /// They would be, but nothing says over which addresses.
    Unknown,
    /// They are not spoken of.
    LeftAlone,
}

/// Tells both amphorae where the other one is, with a new key.
///
/// # Errors
/// The first one; what the two have then is told before.
pub(crate) async fn pair(out: &mut impl Write, [first, second]: [&Client; 2], plan: Plan) -> Result<()> {
    let (addresses, port) = match plan {
        Plan::Alike(addresses, port) => (addresses, port),
        Plan::Unknown => {
            let text = "session persistence is not kept alike: the document has no unicast addresses; \
                        `--peers ADDRESS,ADDRESS` says them";
            return Ok(writeln!(out, "{text}")?);
        }
        Plan::LeftAlone => return Ok(()),
    };
    // Both are asked before anything is changed: a key that only one of them has would end what works.
    let asked = async { Ok([first.peers().await?, second.peers().await?]) };
    let known: [Option<Peers>; 2] = asked.await.inspect_err(|_: &Error| {
        complain(format_args!("session persistence stays as it was on both amphorae"));
    })?;
    let older: Vec<_> = [first, second].into_iter().zip(known).filter(|(_, known)| known.is_none()).collect();
    for (client, _) in &older {
        let text = "its agent is older and cannot (404 for /2.0/peers)";
        writeln!(out, "{}: session persistence is not kept alike: {text}", client.endpoint())?;
    }
    if !older.is_empty() {
        return Ok(());
    }
    let key = key()?;
    let [one, other] = addresses.map(|address| SocketAddr::new(address, port));
    name(out, first, (one, other), &key).await.inspect_err(|error| {
        hint(error, one);
        complain(format_args!("session persistence stays as it was on {}", second.endpoint()));
    })?;
    name(out, second, (other, one), &key).await.inspect_err(|error| {
        hint(error, other);
        complain(format_args!(
            "{} has a new key and {} has not: session persistence is not kept alike until `vrrp pair` succeeds",
            first.endpoint(),
            second.endpoint()
        ));
    })
}

async fn name(
    out: &mut impl Write,
    client: &Client,
    (listen, peer): (SocketAddr, SocketAddr),
    key: &str,
) -> Result<()> {
    client.put_peers(&document(listen, peer, key)).await?;
    Ok(writeln!(out, "{}: keeps session persistence alike with {peer}", client.endpoint())?)
}

/// What `PUT /2.0/peers` is told.
pub(crate) fn document(listen: SocketAddr, peer: SocketAddr, key: &str) -> Value {
    json!({ "peers": { "listen": listen.to_string(), "peer": peer.to_string(), "key": key } })
}

fn hint(error: &Error, listen: SocketAddr) {
    if let Error::Refused { status: 409, faults, .. } = error
        && faults.iter().any(|fault| fault.path == "peers.listen")
    {
        complain(format_args!(
            "{} must be an address of that amphora; is its interface plugged?",
            listen.ip()
        ));
    }
}

/// Removes the other amphora from one.
///
/// # Errors
/// When it is not removed; an older agent has none.
pub(crate) async fn delete(out: &mut impl Write, client: &Client) -> Result<()> {
    if client.delete_peers().await? == Some(true) {
        writeln!(out, "{}: session persistence is kept alike with nobody", client.endpoint())?;
    }
    Ok(())
}

/// A key that nobody has had yet.
fn key() -> Result<String> {
    let mut bytes = [0; KEY];
    rand::fill(&mut bytes).map_err(|error| Error::local("make a key", error))?;
    Ok(HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use amphora_ipc::PeersConfig;

    use super::*;

    #[test]
    fn a_proxy_takes_what_is_made_and_no_key_comes_twice() {
        let keys = [key().unwrap(), key().unwrap()];
        assert_ne!(keys[0], keys[1]);
        for (listen, peer) in
            [("192.0.2.1:1025", "192.0.2.2:1025"), ("[2001:db8::1]:1025", "[2001:db8::2]:1025")]
        {
            let (listen, peer) = (listen.parse().unwrap(), peer.parse().unwrap());
            let document = document(listen, peer, &keys[0]).to_string();
            let config = PeersConfig::from_json(document.as_bytes()).unwrap();
            assert_eq!((config.listen, config.peer, config.key.len()), (listen, peer, 2 * KEY));
        }
    }
}
