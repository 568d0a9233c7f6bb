//! From octets to an [`Advertisement`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    AUTH_DATA, Advertisement, Auth, Envelope, Family, HEADER, Interval, Pseudo, Refusal, checksum::checksum,
};

const TYPE_ADVERTISEMENT: u8 = 1;
const AUTH_NONE: u8 = 0;
const AUTH_PASSWORD: u8 = 1;

/// What [`Advertisement::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The message.
    pub advertisement: Advertisement,
    /// The checksum was right only with the multicast group for a destination, as old keepaliveds make it.
    pub old_checksum: bool,
}

impl Advertisement {
    /// Reads the message that a packet carries. `multicast` is the group of the family.
    ///
    /// # Errors
    /// See [`Refusal`]; only those that need no configuration.
    pub fn decode(message: &[u8], envelope: &Envelope, multicast: IpAddr) -> Result<Decoded, Refusal> {
        let family = Family::of(envelope.source);
        let Some((header, rest)) = message.split_first_chunk::<HEADER>() else {
            return Err(Refusal::Length);
        };
        //  0                   1                   2                   3
        //  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
        // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
        // |Version| Type  | Virtual Rtr ID|   Priority    |Count IPvX Addr|
        // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
        // |Rsvd|Max Advertise Interval(v3)|           Checksum            |
        // |   Auth Type   |  Adver Int(v2)|                               |
        // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
        // |                        IPvX Address(es)                       |
        // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
        // |              Authentication Data (v2, 8 octets)               |
        // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
        let [version_type, vrid, priority, count, fourth, fifth, _, _] = *header;
        let version = version_type >> 4;
        if !matches!(version, 2 | 3) {
            return Err(Refusal::Version);
        }
        // Over IPv6 version 2 has no authentication data (keepalived).
        let auth_data = if version == 2 && family == Family::V4 { AUTH_DATA } else { 0 };
        let addresses = usize::from(count) * family.octets();
        if rest.len() != addresses + auth_data {
            return Err(Refusal::Length);
        }
        if version_type & 0x0f != TYPE_ADVERTISEMENT {
            return Err(Refusal::Type);
        }
        let old_checksum = verify(message, version, family, envelope, multicast)?;
        let (addresses, auth_data) = rest.split_at(addresses);
        let (interval, auth) = if version == 2 {
            let auth = match fourth {
                AUTH_NONE => Auth::None,
                AUTH_PASSWORD => Auth::Password(auth_data.try_into().map_err(|_| Refusal::AuthType)?),
                _ => return Err(Refusal::AuthType),
            };
            (Interval::Seconds(fifth), auth)
        } else {
            (Interval::Centiseconds(u16::from_be_bytes([fourth, fifth]) & 0x0fff), Auth::None)
        };
        let advertisement = Self { vrid, priority, interval, addresses: read(addresses, family), auth };
        Ok(Decoded { advertisement, old_checksum })
    }
}

/// Whether the checksum is right in the old way; an error when it is in none.
fn verify(
    message: &[u8],
    version: u8,
    family: Family,
    envelope: &Envelope,
    multicast: IpAddr,
) -> Result<bool, Refusal> {
    let pseudo = Pseudo { source: envelope.source, destination: envelope.destination };
    let pseudo = (version == 3 || family == Family::V6).then_some(pseudo);
    if checksum(pseudo, message) == 0 {
        return Ok(false);
    }
    match pseudo {
        Some(pseudo) if version == 3 && family == Family::V4 => {
            let old = checksum(Some(pseudo.with_destination(multicast)), message) == 0;
            if old { Ok(true) } else { Err(Refusal::Checksum) }
        }
        _ => Err(Refusal::Checksum),
    }
}

fn read(addresses: &[u8], family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => {
            let (addresses, _) = addresses.as_chunks::<4>();
            addresses.iter().map(|octets| Ipv4Addr::from(*octets).into()).collect()
        }
        Family::V6 => {
            let (addresses, _) = addresses.as_chunks::<16>();
            addresses.iter().map(|octets| Ipv6Addr::from(*octets).into()).collect()
        }
    }
}
