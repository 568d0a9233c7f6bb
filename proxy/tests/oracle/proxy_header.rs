//! The PROXY protocol's headers, read back by a reader of their own.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use amphora_proxy::conn::proxy_protocol::{MAX_LENGTH, V2_SIGNATURE, Version, encode};

/// Addresses out of 37 bytes: the header is appended, is within its bound, and says what it was made from.
pub(crate) fn proxy_header(data: &[u8]) {
    let Some(data) = data.first_chunk::<37>() else { return };
    let (families, data) = (data[0], &data[1..]);
    let source = address(families & 1 != 0, &data[..18]);
    let destination = address(families & 2 != 0, &data[18..]);
    for version in [Version::V1, Version::V2] {
        let mut out = b"before".to_vec();
        encode(version, source, destination, &mut out);
        let header = out.strip_prefix(b"before").expect("what was there stays");
        assert!(header.len() <= MAX_LENGTH);
        let read = if version == Version::V1 { read_v1(header) } else { read_v2(header) };
        let read = read.unwrap_or_else(|| panic!("{:?}", header.escape_ascii().to_string()));
        let mixed = source.is_ipv4() != destination.is_ipv4();
        let plain = |address: SocketAddr| match address.ip() {
            IpAddr::V4(v4) if mixed => (v4.to_ipv6_mapped().into(), address.port()),
            ip => (ip, address.port()),
        };
        assert_eq!(read, [plain(source), plain(destination)]);
    }
}

fn address(v4: bool, data: &[u8]) -> SocketAddr {
    let octets: [u8; 16] = *data.first_chunk().expect("18 bytes");
    let [a, b, c, d, ..] = octets;
    let ip = if v4 { [a, b, c, d].into() } else { IpAddr::from(octets) };
    SocketAddr::new(ip, u16::from_be_bytes([data[16], data[17]]))
}

type Ends = [(IpAddr, u16); 2];

fn read_v1(header: &[u8]) -> Option<Ends> {
    let line = std::str::from_utf8(header).ok()?.strip_suffix("\r\n")?;
    let parts: Vec<&str> = line.split(' ').collect();
    let ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] = parts[..] else { return None };
    let ips: [IpAddr; 2] = [from.parse().ok()?, to.parse().ok()?];
    let ports: [u16; 2] = [from_port.parse().ok()?, to_port.parse().ok()?];
    let family_is = ips.iter().all(|ip| ip.is_ipv4() == (family == "TCP4"));
    family_is.then_some([(ips[0], ports[0]), (ips[1], ports[1])])
}

fn read_v2(header: &[u8]) -> Option<Ends> {
    let rest = header.strip_prefix(&V2_SIGNATURE)?;
    let (&[command, family, high, low], rest) = rest.split_first_chunk::<4>()?;
    let size = match family {
        0x11 => 4,
        0x21 => 16,
        _ => return None,
    };
    let announced = usize::from(u16::from_be_bytes([high, low]));
    if command != 0x21 || announced != rest.len() || announced != 2 * size + 4 {
        return None;
    }
    let ip = |bytes: &[u8]| -> Option<IpAddr> {
        match *bytes {
            [a, b, c, d] => Some([a, b, c, d].into()),
            _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        }
    };
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let (from, to) = (ip(&rest[..size])?, ip(&rest[size..2 * size])?);
    Some([(from, port(2 * size)), (to, port(2 * size + 2))])
}
