//! What must hold for any input; the fuzz targets and the property tests call the same.

use std::io;

use crate::{
    path::AbsolutePath,
    plan::{Plan, Source},
    remarks::Remarks,
    user_data,
};

/// User data: what is found is within the bounds, and so is what is said of it.
pub fn user_data(data: &[u8]) {
    let mut remarks = Remarks::default();
    let found = user_data::cloud_configs(data, &mut remarks);
    let size: usize = found.iter().map(String::len).sum();
    // Each part is of the text, or was unpacked.
    assert!(size <= 5 * (data.len() + user_data::MAX_UNPACKED), "{size}");
    assert!(found.len() <= 256 && remarks.iter().count() <= 600);
}

/// A whole drive. The data are `meta_data.json`, `network_data.json` and `user_data`, each ended by a zero: every path of the plan is
/// one that may be written, every line of a networkd file is a line, every key is one line, and the script has no zero.
pub fn drive(data: &[u8]) {
    struct Parts<'d>(Vec<&'d [u8]>);
    impl Source for Parts<'_> {
        fn read(&mut self, path: &str, _most: usize) -> io::Result<Option<Vec<u8>>> {
            let part = match path {
                "latest/meta_data.json" => 0,
                "latest/network_data.json" => 1,
                "latest/user_data" => 2,
                _ if path.starts_with("content/") => return Ok(Some(b"content".to_vec())),
                _ => return Ok(None),
            };
            Ok(self.0.get(part).map(|part| part.to_vec()))
        }
    }
    let mut remarks = Remarks::default();
    let Ok(plan) = Plan::read(&mut Parts(data.splitn(3, |&b| b == 0).collect()), &mut remarks) else {
        return;
    };
    for file in &plan.files {
        assert_eq!(AbsolutePath::parse(file.path.as_str()).as_ref(), Ok(&file.path));
    }
    for file in plan.network.iter().flat_map(|network| &network.files) {
        assert!(!file.name.contains('/'), "{}", file.name);
        for line in file.text.lines() {
            let is_section = line.starts_with('[') && line.ends_with(']');
            assert!(
                line.is_empty()
                    || is_section
                    || line.split_once('=').is_some_and(|(_, value)| !value.is_empty()),
                "{line}"
            );
        }
    }
    assert!(plan.keys.iter().all(|key| !key.is_empty() && !key.contains(['\n', '\r'])));
    assert!(plan.script.is_none_or(|script| script.starts_with("#!/bin/sh\n") && !script.contains('\0')));
    assert!(remarks.iter().all(|remark| !remark.text.contains('\n')));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: &str = "(\\{|\\}|\\[|\\]|,|:|\"(uuid|hostname|files|path|content_path|public_keys|links|networks|id|type|link|routes|a)\"|\"[a-z/.]{0,5}\"|\"ipv[46]\"|\"/x\"|5|null){0,30}";

    proptest! {
        #[test]
        fn any_drive_is_a_plan_or_none(
            meta in JSON,
            files in "(\\{\"path\": \"/?[a-z./]{0,6}\", \"content_path\": \"/content/[0-9./]{0,3}\"\\},){0,4}",
            network in JSON,
            mac in "[0-9a-f:]{0,17}|fa:16:3e:00:00:01",
            kind in "ipv[46](_dhcp|_slaac)?|bond",
            address in "[0-9a-f.:/]{0,12}",
            user in "(#cloud-config\n)?((write_files|runcmd|timezone|ssh_authorized_keys|path|content|owner|permissions|x): ?|- |\n|[a-z/.]{1,4}|[\\[\\]{},'\"|&*]| ){0,30}",
        ) {
            drive(format!("{meta}\0{network}\0{user}").as_bytes());
            let files = files.strip_suffix(',').unwrap_or(&files);
            let meta = format!("{{\"uuid\": \"i\", \"files\": [{files}]}}");
            let network = format!(
                "{{\"links\": [{{\"id\": \"t\", \"ethernet_mac_address\": \"{mac}\"}}], \"networks\": [{{\"link\": \"t\", \"type\": \"{kind}\",
                \"ip_address\": \"{address}\", \"netmask\": \"24\", \"routes\": [{{\"network\": \"{address}\", \"netmask\": 0, \"gateway\": \"10.0.0.1\"}}]}}]}}"
            );
            drive(format!("{meta}\0{network}\0{user}").as_bytes());
            drive(format!("{meta}\0{network}\0#cloud-config\nwrite_files:\n- path: {user}\nruncmd: [{user}]\n").as_bytes());
        }
    }
}
