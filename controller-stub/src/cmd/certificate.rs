//! `certificate`: what is kept beside load balancers on the amphorae: keys with their certificates, authorities, revocation
//! lists.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use amphora_model::CertificateId;
use serde_json::Value;

use super::{Outcome, complain};
use crate::{
    client::{Client, Credential},
    error::{Error, Result},
    remarks,
};

/// The longest password, with its line end.
const MAX_PASSWORD: u64 = 4096;

/// Reads a certificate, PEM or PKCS #12, and the password that is the first line of another file.
///
/// # Errors
/// [`Error::Usage`] when a file cannot be read or is too long.
pub(crate) fn read(file: &Path, password: Option<&Path>) -> Result<Credential> {
    let stdin = Path::new("-");
    if file == stdin && password == Some(stdin) {
        return Err(Error::Usage("both the certificate and its password from standard input".to_owned()));
    }
    let bytes = bounded(file, amphora_bundle::MAX_BYTES as u64)?;
    let password = match password {
        None => None,
        Some(path) => {
            let text = String::from_utf8(bounded(path, MAX_PASSWORD)?);
            let text = text.map_err(|_| Error::file(path, "is not UTF-8"))?;
            let line = text.lines().next().unwrap_or_default().to_owned();
            // It goes in a header, whose ends are trimmed.
            if line.chars().any(char::is_control) || line.trim_matches([' ', '\t']) != line {
                return Err(Error::file(path, "has a control character, or a blank at an end"));
            }
            Some(line)
        }
    };
    match (amphora_bundle::is_der(&bytes), &password) {
        (true, _) => Ok(Credential::Pkcs12 { der: bytes.into(), password }),
        (_, Some(_)) => Err(Error::file(file, "is no PKCS #12, for which --password-file is")),
        _ => Ok(Credential::Pem(bytes.into())),
    }
}

pub(super) fn bounded(path: &Path, bound: u64) -> Result<Vec<u8>> {
    let read = || {
        let from: Box<dyn Read> =
            if path == Path::new("-") { Box::new(io::stdin().lock()) } else { Box::new(File::open(path)?) };
        let mut bytes = Vec::new();
        from.take(bound + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bound {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {bound} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|error| Error::file(path, error))
}

/// Brings it to every amphora in turn.
///
/// # Errors
/// The first one. What one amphora refuses goes to none after it.
pub(crate) async fn put(
    out: &mut impl Write,
    clients: &[Client],
    id: &CertificateId,
    credential: &Credential,
) -> Result<()> {
    let mut outcome = Outcome::default();
    for client in clients {
        let result = async {
            let answer = client.put_certificate(id, credential).await?;
            let changed = if answer["changed"] == true { "changed" } else { "is as it was" };
            let serving = if answer["serving"] == true { ", and is served" } else { "" };
            writeln!(out, "{}: {id} {changed}{serving}", client.endpoint())?;
            remarks::of(&answer).for_each(|remark| complain(format_args!("{}: {remark}", client.endpoint())));
            Ok(())
        };
        let result = result.await;
        let refused = matches!(result, Err(Error::Refused { .. }));
        outcome.note(result);
        if refused {
            break;
        }
    }
    outcome.result()
}

/// Shows what may be told of one.
///
/// # Errors
/// The first one, after the others were asked.
pub(crate) async fn show(
    out: &mut impl Write,
    clients: &[Client],
    id: &CertificateId,
    json: bool,
) -> Result<()> {
    let mut outcome = Outcome::default();
    for client in clients {
        let result = async {
            let answer = client.certificate(id).await?;
            if json {
                return Ok(writeln!(out, "{answer}")?);
            }
            Ok(write!(out, "{}: {}", client.endpoint(), described(&answer["certificate"]))?)
        };
        outcome.note(result.await);
    }
    outcome.result()
}

/// Shows all of them, one on each line.
///
/// # Errors
/// The first one, after the others were asked.
pub(crate) async fn list(out: &mut impl Write, clients: &[Client], json: bool) -> Result<()> {
    let mut outcome = Outcome::default();
    for client in clients {
        let result = async {
            let answer = client.certificates().await?;
            if json {
                return Ok(writeln!(out, "{answer}")?);
            }
            Ok(write!(out, "{}\n{}", client.endpoint(), table(&answer["certificates"]))?)
        };
        outcome.note(result.await);
    }
    outcome.result()
}

/// Has every amphora forget it.
///
/// # Errors
/// The first one, after the others were asked.
pub(crate) async fn delete(out: &mut impl Write, clients: &[Client], id: &CertificateId) -> Result<()> {
    let mut outcome = Outcome::default();
    for client in clients {
        let result = async {
            client.delete_certificate(id).await?;
            Ok(writeln!(out, "{}: {id} removed", client.endpoint())?)
        };
        outcome.note(result.await);
    }
    outcome.result()
}

/// Text of the amphora's, as it may be written to a terminal.
fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or("?");
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn described(certificate: &Value) -> String {
    let kind = certificate["kind"].as_str().map_or("not usable".into(), |_| text(&certificate["kind"]));
    let mut lines = vec![format!("{} ({kind})", text(&certificate["id"]))];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<12}{value}"));
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    if certificate["fault"].is_string() {
        line("fault", text(&certificate["fault"]));
    }
    for one in certificate["certificates"].as_array().into_iter().flatten() {
        line("subject", text(&one["subject"]));
        line("issuer", text(&one["issuer"]));
        let mut names = list(&one["names"]);
        names.extend(further(&one["names_omitted"]));
        line("names", names.join(", "));
        line("valid", format!("{} to {}", text(&one["not_before"]), text(&one["not_after"])));
        line("key", text(&one["key"]));
        line("serial", text(&one["serial"]));
        line("sha256", text(&one["sha256"]));
    }
    if let Some(further) = further(&certificate["certificates_omitted"]) {
        line("chain", further);
    }
    for one in certificate["revocation_lists"].as_array().into_iter().flatten() {
        line("issuer", text(&one["issuer"]));
        line("valid", format!("{} to {}", text(&one["this_update"]), text(&one["next_update"])));
        line("revoked", one["revoked"].to_string());
        line("sha256", text(&one["sha256"]));
    }
    if let Some(further) = further(&certificate["revocation_lists_omitted"]) {
        line("lists", further);
    }
    let places = list(&certificate["used_by"]);
    if places.is_empty() {
        line("used by", "nothing".to_owned());
    }
    places.into_iter().for_each(|place| line("used by", place));
    lines.push(String::new());
    lines.join("\n")
}

/// That there is more than the amphora tells of.
fn further(omitted: &Value) -> Option<String> {
    omitted.as_u64().filter(|omitted| *omitted > 0).map(|omitted| format!("and {omitted} more"))
}

fn table(certificates: &Value) -> String {
    let mut rows = vec![["ID", "KIND", "UNTIL", "USED", "WHAT"].map(str::to_owned)];
    for one in certificates.as_array().into_iter().flatten() {
        let certificates = one["certificates"].as_array().map_or(&[][..], Vec::as_slice);
        let lists = one["revocation_lists"].as_array().map_or(&[][..], Vec::as_slice);
        // RFC 3339 in UTC is in the order of time.
        let ends = certificates.iter().map(|one| &one["not_after"]);
        let until = ends
            .chain(lists.iter().map(|one| &one["next_update"]))
            .filter(|end| end.is_string())
            .map(text)
            .min();
        let what = match (certificates, lists) {
            ([first, ..], _) => text(&first["subject"]),
            (_, [first, ..]) => text(&first["issuer"]),
            _ => one["fault"].as_str().map_or_else(String::new, |_| text(&one["fault"])),
        };
        let omitted = |name: &str| one[name].as_u64().unwrap_or(0);
        let told = (certificates.len() + lists.len()) as u64;
        let all = told + omitted("certificates_omitted") + omitted("revocation_lists_omitted");
        let further = all.saturating_sub(1);
        let what = if further > 0 { format!("{what} and {further} more") } else { what };
        let used = one["used_by"].as_array().map_or(0, Vec::len).to_string();
        rows.push([
            text(&one["id"]),
            one["kind"].as_str().map_or("-".into(), |_| text(&one["kind"])),
            until.unwrap_or_else(|| "-".to_owned()),
            used,
            what,
        ]);
    }
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..4).map(width).collect();
    let mut table = String::new();
    for [id, kind, until, used, what] in &rows {
        let [a, b, c, d] = [widths[0], widths[1], widths[2], widths[3]];
        table.push_str(&format!("{id:<a$}  {kind:<b$}  {until:<c$}  {used:>d$}  {what}\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_used_and_what_is_not_told_show() {
        let broken = json!({"id": "a", "fault": "the stored file is empty", "used_by": []});
        let facts = json!({"subject": "CN=web", "issuer": "CN=ca", "names": ["DNS:a"], "names_omitted": 7,
            "not_before": null, "not_after": "2027-01-01T00:00:00Z", "key": "Ed25519", "serial": "01", "sha256": "00"});
        let large = json!({"id": "b", "kind": "authorities", "certificates": [facts], "certificates_omitted": 130,
            "revocation_lists": [], "revocation_lists_omitted": 0, "used_by": ["here"]});
        let table = table(&json!([broken, large]));
        let rows: Vec<_> =
            table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows[1], "a - - 0 the stored file is empty");
        assert_eq!(rows[2], "b authorities 2027-01-01T00:00:00Z 1 CN=web and 130 more");
        assert!(described(&broken).starts_with("a (not usable)\n  fault       the stored file is empty\n"));
        let shown = described(&large);
        assert!(
            shown.contains("DNS:a, and 7 more") && shown.contains("  chain       and 130 more"),
            "{shown}"
        );
    }
}
