//! `nameConstraints` (RFC 5280 section 4.2.1.10), as OpenSSL's `check_name_constraints` does.

use amphora_x509::{Certificate, Extensions, GeneralName, Reader, oid, tag, text};

use super::{VerifyError, chain::Link};

/// Whether every name in a chain is one that all authorities above it may give.
pub(super) fn check(chain: &[Link<'_>]) -> Result<(), VerifyError> {
    for (above, authority) in chain.iter().enumerate().rev() {
        let Some(constraints) = authority.certificate.extensions.find(oid::NAME_CONSTRAINTS) else {
            continue;
        };
        let constraints = Constraints::read(constraints.value).ok_or(VerifyError::InvalidExtension)?;
        for (at, link) in chain[..above].iter().enumerate() {
            // Self-issued ones are an authority's own other keys; the leaf is looked at all the same.
            if at == 0 || !link.is_self_issued() {
                constraints.check(&link.certificate, at == 0)?;
            }
        }
    }
    Ok(())
}

/// Whether `nameConstraints`, if there are any, are in their form.
pub(super) fn are_well_formed(extensions: &Extensions<'_>) -> bool {
    let constraints = extensions.find(oid::NAME_CONSTRAINTS);
    constraints.is_none_or(|constraints| Constraints::read(constraints.value).is_some())
}

#[derive(Default)]
struct Constraints<'a> {
    permitted: Vec<Subtree<'a>>,
    excluded: Vec<Subtree<'a>>,
}

struct Subtree<'a> {
    base: GeneralName<'a>,
    /// With a minimum or maximum, which nobody uses or knows.
    bounded: bool,
}

impl<'a> Constraints<'a> {
    fn read(value: &'a [u8]) -> Option<Self> {
        let mut fields = Reader::new(value).enter(tag::SEQUENCE)?;
        let mut constraints = Self::default();
        while !fields.is_empty() {
            let field = fields.element()?;
            let list = match field.tag {
                0xa0 => &mut constraints.permitted,
                0xa1 => &mut constraints.excluded,
                _ => return None,
            };
            let mut subtrees = Reader::new(field.content);
            while !subtrees.is_empty() {
                let mut subtree = subtrees.enter(tag::SEQUENCE)?;
                let base = GeneralName::read(&mut subtree)?;
                list.push(Subtree { base, bounded: !subtree.is_empty() });
            }
        }
        Some(constraints)
    }

    fn check(&self, certificate: &Certificate<'_>, leaf: bool) -> Result<(), VerifyError> {
        if !certificate.subject.is_empty() {
            self.judge(&GeneralName::Directory(certificate.subject))?;
        }
        let attributes = || certificate.subject.attributes();
        for email in attributes().filter(|attribute| attribute.oid == oid::EMAIL_ADDRESS) {
            if email.tag != tag::IA5_STRING {
                return Err(VerifyError::UnsupportedNameSyntax);
            }
            self.judge(&GeneralName::Email(email.value))?;
        }
        let alternatives =
            certificate.extensions.subject_alt_names().map_err(|_| VerifyError::InvalidExtension)?;
        for name in alternatives {
            self.judge(&name)?;
        }
        if leaf && !alternatives.into_iter().any(|name| matches!(name, GeneralName::Dns(_))) {
            for name in attributes().filter(|attribute| attribute.oid == oid::COMMON_NAME) {
                let name = text(name.tag, name.value).ok_or(VerifyError::UnsupportedNameSyntax)?;
                let name = name.trim_end_matches('\0');
                if name.contains('\0') {
                    return Err(VerifyError::UnsupportedNameSyntax);
                }
                if is_host(name) {
                    self.judge(&GeneralName::Dns(name.as_bytes()))?;
                }
            }
        }
        Ok(())
    }

    fn judge(&self, name: &GeneralName<'_>) -> Result<(), VerifyError> {
        let mut of_kind = self.permitted.iter().filter(|subtree| same_kind(name, &subtree.base)).peekable();
        if of_kind.peek().is_some() {
            let mut permitted = false;
            for subtree in of_kind {
                permitted |= is_within(name, subtree)?;
            }
            if !permitted {
                return Err(VerifyError::PermittedViolation);
            }
        }
        for subtree in self.excluded.iter().filter(|subtree| same_kind(name, &subtree.base)) {
            if is_within(name, subtree)? {
                return Err(VerifyError::ExcludedViolation);
            }
        }
        Ok(())
    }
}

fn same_kind(one: &GeneralName<'_>, other: &GeneralName<'_>) -> bool {
    match (one, other) {
        (GeneralName::Other(one), GeneralName::Other(other)) => one == other,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

fn is_within(name: &GeneralName<'_>, subtree: &Subtree<'_>) -> Result<bool, VerifyError> {
    if subtree.bounded {
        return Err(VerifyError::UnsupportedConstraint);
    }
    Ok(match (name, &subtree.base) {
        (GeneralName::Directory(name), GeneralName::Directory(base)) => {
            name.canonical().starts_with(&base.canonical())
        }
        (GeneralName::Dns(host), GeneralName::Dns(base)) => host_within(host, base),
        (GeneralName::Email(address), GeneralName::Email(base)) => email_within(address, base)?,
        (GeneralName::Uri(uri), GeneralName::Uri(base)) => uri_within(uri, base)?,
        (GeneralName::Ip(address), GeneralName::Ip(base)) => address_within(address, base)?,
        _ => return Err(VerifyError::UnsupportedConstraint),
    })
}

/// `nc_dns`: the base itself, or anything in front of a dot before it.
fn host_within(host: &[u8], base: &[u8]) -> bool {
    let Some(start) = host.len().checked_sub(base.len()) else { return false };
    let (before, end) = host.split_at(start);
    end.eq_ignore_ascii_case(base)
        && (base.is_empty() || before.is_empty() || before.ends_with(b".") || base.starts_with(b"."))
}

/// `nc_email`: a mailbox, the mailboxes of a host, or those of all hosts below a name that begins with a dot.
///
/// # Errors
/// It is no address: whether it is one that must not be cannot be said.
fn email_within(address: &[u8], base: &[u8]) -> Result<bool, VerifyError> {
    let split = |text: &'_ [u8]| text.iter().rposition(|byte| *byte == b'@');
    let at = split(address).ok_or(VerifyError::UnsupportedNameSyntax)?;
    let (local, host) = (&address[..at], &address[at + 1..]);
    Ok(match split(base) {
        None if base.starts_with(b".") => host.len() > base.len() && host_within(host, base),
        None => host.eq_ignore_ascii_case(base),
        Some(at) => {
            let (mailbox, base) = (&base[..at], &base[at + 1..]);
            (mailbox.is_empty() || mailbox == local) && host.eq_ignore_ascii_case(base)
        }
    })
}

/// `nc_ip`: an address in a network of its kind.
///
/// # Errors
/// One of both is none.
fn address_within(address: &[u8], base: &[u8]) -> Result<bool, VerifyError> {
    if !matches!(address.len(), 4 | 16) || !matches!(base.len(), 8 | 32) {
        return Err(VerifyError::UnsupportedNameSyntax);
    }
    let Some((network, mask)) = base.split_at_checked(address.len()) else { return Ok(false) };
    let inside = address.iter().zip(network).zip(mask).all(|((a, n), m)| a & m == n & m);
    Ok(network.len() == mask.len() && inside)
}

/// `nc_uri`: a host, or those below a name that begins with a dot.
///
/// # Errors
/// It has no host.
fn uri_within(uri: &[u8], base: &[u8]) -> Result<bool, VerifyError> {
    let host = || {
        let colon = uri.iter().position(|byte| *byte == b':')?;
        let rest = uri[colon + 1..].strip_prefix(b"//")?;
        let end = rest.iter().position(|byte| matches!(byte, b':' | b'/')).unwrap_or(rest.len());
        Some(&rest[..end]).filter(|host| !host.is_empty())
    };
    let host = host().ok_or(VerifyError::UnsupportedNameSyntax)?;
    Ok(match base.first() {
        Some(b'.') => host.len() > base.len() && host_within(host, base),
        _ => host.eq_ignore_ascii_case(base),
    })
}

/// `cn2dnsid`: whether a common name looks like a host's.
fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.contains('.') && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_below_a_name() {
        for (host, base, within) in [
            ("a.example", "example", true),
            ("a.EXAMPLE", ".example", true),
            ("example", "Example", true),
            ("example", ".example", false),
            ("badexample", "example", false),
            ("a.example", "", true),
        ] {
            assert_eq!(host_within(host.as_bytes(), base.as_bytes()), within, "{host} {base}");
        }
    }

    #[test]
    fn mailboxes_and_addresses() {
        for (address, base, within) in [
            ("a@b.example", "b.example", true),
            ("a@b.example", ".example", true),
            ("a@example", ".example", false),
            ("a@b.example", "a@B.example", true),
            ("A@b.example", "a@b.example", false),
        ] {
            assert_eq!(email_within(address.as_bytes(), base.as_bytes()), Ok(within), "{address} {base}");
        }
        for (uri, base, within) in [
            ("https://a.example/x", "a.example", true),
            ("https://a.example:1/x", ".example", true),
            ("https://b.a.example", "a.example", false),
        ] {
            assert_eq!(uri_within(uri.as_bytes(), base.as_bytes()), Ok(within), "{uri} {base}");
        }
        let network = [10, 0, 0, 0, 255, 0, 0, 0];
        assert_eq!(address_within(&[10, 1, 2, 3], &network), Ok(true));
        assert_eq!(address_within(&[11, 1, 2, 3], &network), Ok(false));
        assert_eq!(address_within(&[10; 16], &network), Ok(false));
        assert_eq!(address_within(&[10, 1, 2, 3], &[0; 32]), Ok(false));
    }

    #[test]
    fn what_is_no_name_of_its_kind_is_neither_inside_nor_outside() {
        let no_name = Err(VerifyError::UnsupportedNameSyntax);
        for address in ["b.example", ""] {
            assert_eq!(email_within(address.as_bytes(), b"b.example"), no_name, "{address}");
        }
        for uri in ["urn:x", "x", "https:/x", "https://", "https://:80/"] {
            assert_eq!(uri_within(uri.as_bytes(), b"x"), no_name, "{uri}");
        }
        for (address, network) in [(3, 8), (4, 6), (5, 10), (4, 0)] {
            assert_eq!(address_within(&vec![0; address], &vec![0; network]), no_name, "{address} {network}");
        }
    }
}
