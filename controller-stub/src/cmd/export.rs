//! `export`: load balancers of a `serve` as bodies of Octavia's fully populated create.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    client::octavia::{Address, Octavia},
    error::{Error, Result},
    runtime::runtime,
    serve::{
        api::export::{Exported, NotExported, export, export_from},
        db,
    },
};

/// What `export` is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Load balancers [default: all]
    pub(crate) id: Vec<String>,
    /// The directory of the `serve` that has them, which may run meanwhile
    #[arg(long, value_name = "DIR", default_value = "/var/lib/amphora-controller", conflicts_with = "api")]
    pub(crate) data_dir: PathBuf,
    /// The API that has them instead, of `serve` or of an Octavia: http[s]://[NAME:PASSWORD@]HOST[:PORT][/PATH]
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<Address>,
    /// The token that the API is asked with
    #[arg(long, value_name = "TOKEN", env = "OS_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// The authorities of the API's certificate, PEM [default: those of this host]
    #[arg(long, value_name = "FILE", env = "OS_CACERT")]
    pub(crate) ca: Option<PathBuf>,
    /// Where the bodies go, and README.md that says what they do not carry; made when it is missing
    #[arg(long, value_name = "DIR", default_value = "export")]
    pub(crate) output: PathBuf,
    /// The subnet there that takes the place of one here, both by their UUIDs; repeatable
    #[arg(long = "subnet", value_name = "HERE=THERE", value_parser = pair)]
    pub(crate) subnets: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (here, there) = text.split_once('=').ok_or_else(|| "not HERE=THERE".to_owned())?;
    // As bodies have them.
    let id = |text: &str| {
        Uuid::parse_str(text).map(|id| id.to_string()).map_err(|_| format!("{text:?} is not a UUID"))
    };
    Ok((id(here)?, id(there)?))
}

/// Writes them, and returns what a person is told.
///
/// # Errors
/// There is no such database, API or load balancer; a file cannot be written.
pub(crate) fn run(options: &Options) -> Result<String> {
    let mut all = match &options.api {
        Some(address) => {
            let api = Octavia::new(address.clone(), options.token.as_deref(), options.ca.as_deref())?;
            runtime()?.block_on(export_from(&api, &options.id))?
        }
        None => of_a_directory(options)?,
    };
    let there: BTreeMap<&str, &str> =
        options.subnets.iter().map(|(here, there)| (here.as_str(), there.as_str())).collect();
    for one in &mut all {
        replace(&mut one.body, &there);
    }
    let failed = |path: &Path, e: io::Error| Error::local(path.display(), e);
    fs::create_dir_all(&options.output).map_err(|e| failed(&options.output, e))?;
    let write = |name: &str, text: &str| {
        let path = options.output.join(name);
        fs::write(&path, text).map_err(|e| failed(&path, e))
    };
    for one in &all {
        write(&format!("{}.json", one.id), &format!("{:#}\n", one.body))?;
    }
    let readme = readme(&all, &there);
    write("README.md", &readme)?;
    Ok(readme)
}

fn of_a_directory(options: &Options) -> Result<Vec<Exported>> {
    let file = options.data_dir.join("serve.db");
    let failed = |e: &dyn std::fmt::Display| Error::local(file.display(), e);
    if !file.try_exists().map_err(|e| failed(&e))? {
        return Err(Error::file(
            &file,
            "not there; --data-dir names the directory of a `serve`, --api an API",
        ));
    }
    let read = || {
        let mut connection = db::open_to_read(&file)?;
        let transaction = connection.transaction().map_err(db::Error::from)?;
        export(&transaction, &options.id)
    };
    read().map_err(|e| match e {
        NotExported::NoLoadBalancer(_) => Error::Usage(e.to_string()),
        NotExported::Database(e) => failed(&e),
    })
}

/// Puts the subnets of there in the place of those of here.
fn replace(value: &mut Value, there: &BTreeMap<&str, &str>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) if matches!(name.as_str(), "vip_subnet_id" | "subnet_id") => {
                        if let Some(there) = there.get(text.as_str()) {
                            (*there).clone_into(text);
                        }
                    }
                    value => replace(value, there),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| replace(value, there)),
        _ => {}
    }
}

fn readme(all: &[Exported], there: &BTreeMap<&str, &str>) -> String {
    let balancers = if all.len() == 1 { "load balancer" } else { "load balancers" };
    let mut text = format!("{} {balancers}, each the body of a POST to Octavia:\n\n", all.len());
    text.push_str(
        "    curl -X POST \"$OCTAVIA/v2/lbaas/loadbalancers\" -H \"X-Auth-Token: $TOKEN\" -H 'Content-Type: application/json' -d @ID.json\n\n\
         Not in the bodies: ids (there are new ones there), projects (that of the token), ports, states, statistics, quotas, flavors and availability zones.\n",
    );
    let subnets: BTreeSet<&str> = all.iter().flat_map(|one| &one.subnets).map(String::as_str).collect();
    for (here, there) in there.iter().filter(|(here, _)| !subnets.contains(**here)) {
        let _ = write!(text, "\n--subnet {here}={there} is of no use: no body names that subnet of here.\n");
    }
    let left: Vec<&str> = subnets.into_iter().filter(|here| !there.contains_key(here)).collect();
    if !left.is_empty() {
        text.push_str("\nSubnets that are of here still (say --subnet HERE=THERE for each):\n\n");
        left.iter().for_each(|subnet| _ = writeln!(text, "- {subnet}"));
    }
    for one in all.iter().filter(|one| !one.remarks.is_empty()) {
        let _ = write!(text, "\n{} ({}):\n\n", one.id, one.name);
        one.remarks.iter().for_each(|remark| _ = writeln!(text, "- {remark}"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::pair;

    #[test]
    fn subnets_are_uuids() {
        let [here, there] = ["2b0f9a0e-6a2e-4c0b-8f7d-5f0e2d6c3b33", "7c0e5d44-2b1f-4f3a-8d9b-6a1e3c5b7f20"];
        let both = Ok((here.to_owned(), there.to_owned()));
        assert_eq!(pair(&format!("{here}={there}")), both);
        assert_eq!(pair(&format!("{}={there}", here.to_uppercase())), both);
        for (odd, said) in [
            ("foo=bar".to_owned(), "\"foo\" is not a UUID"),
            (format!("{here}="), "\"\" is not a UUID"),
            (here.to_owned(), "not HERE=THERE"),
        ] {
            assert_eq!(pair(&odd).unwrap_err(), said);
        }
    }
}
