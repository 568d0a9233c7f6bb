//! QEMU's command line. No I/O.

use std::{ffi::OsString, path::Path};

use super::{super::Size, Accel};

/// Slots for interfaces that come later, one for each network that an amphora is in.
pub const SLOTS: u32 = 16;

/// Functions of a PCI device: as many slots share one on the root bus.
const FUNCTIONS: u32 = 8;

/// The first device on the root bus that slots have.
const FIRST: u32 = 0x10;

/// What a machine is made of.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// What it is called in lists of processes.
    pub name: &'a str,
    /// Its id for the firmware: the amphora's.
    pub uuid: &'a str,
    /// Who executes its instructions.
    pub accel: Accel,
    /// How large it is.
    pub size: Size,
    /// Its disk, qcow2.
    pub disk: &'a Path,
    /// Its config drive.
    pub drive: &'a Path,
    /// Where its console is written to.
    pub console: &'a Path,
    /// The socket of its monitor.
    pub monitor: &'a Path,
    /// The tap of its management interface, and the link-layer address.
    pub management: (&'a str, &'a str),
}

/// The name of a slot.
pub fn slot(number: u32) -> String {
    format!("slot{number}")
}

/// What follows the name of the program.
pub fn arguments(machine: &Machine<'_>) -> Vec<OsString> {
    let Machine { name, uuid, accel, size, .. } = machine;
    let file = |path: &Path| value(&path.display().to_string());
    let (tap, mac) = machine.management;
    let (kind, cpu) = match accel {
        Accel::Kvm => ("kvm", "host"),
        // What it translates would take 1 GiB: so much is enough until it begins anew.
        Accel::Tcg => ("tcg,thread=multi,tb-size=256", "max"),
    };
    let mut words: Vec<String> = Vec::new();
    let mut say = |option: &str, argument: &str| {
        words.push(format!("-{option}"));
        if !argument.is_empty() {
            words.push(argument.to_owned());
        }
    };
    say("name", &format!("guest={}", value(name)));
    say("uuid", uuid);
    // Nothing is there that is not asked for, and QEMU starts no programs and becomes nobody else.
    say("no-user-config", "");
    say("nodefaults", "");
    say("display", "none");
    say("sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    say("machine", "q35,usb=off,vmport=off");
    say("accel", kind);
    say("cpu", cpu);
    say("smp", &size.cpus.to_string());
    say("m", &format!("{}M", size.memory));
    say("rtc", "base=utc");
    say("boot", "strict=on");
    say("chardev", &format!("socket,id=monitor,path={},server=on,wait=off", file(machine.monitor)));
    say("mon", "chardev=monitor,mode=control");
    say("chardev", &format!("file,id=console,path={},append=on", file(machine.console)));
    say("serial", "chardev:console");
    say(
        "blockdev",
        &format!("driver=file,node-name=disk-file,filename={},discard=unmap", file(machine.disk)),
    );
    say("blockdev", "driver=qcow2,node-name=disk,file=disk-file,discard=unmap");
    say("device", "virtio-blk-pci,drive=disk,bootindex=1");
    say(
        "blockdev",
        &format!("driver=file,node-name=drive-file,filename={},read-only=on", file(machine.drive)),
    );
    say("blockdev", "driver=raw,node-name=drive,file=drive-file,read-only=on");
    say("device", "virtio-blk-pci,drive=drive");
    say("netdev", &format!("tap,id=management,ifname={tap},script=no,downscript=no"));
    say("device", &format!("virtio-net-pci,netdev=management,mac={mac},romfile="));
    say("object", "rng-builtin,id=random");
    say("device", "virtio-rng-pci,rng=random");
    // What the machine does not use is the host's again.
    say("device", "virtio-balloon-pci,free-page-reporting=on");
    for number in 0..SLOTS {
        let (device, function) = (FIRST + number / FUNCTIONS, number % FUNCTIONS);
        let first = if function == 0 { ",multifunction=on" } else { "" };
        say(
            "device",
            &format!(
                "pcie-root-port,id={},chassis={},bus=pcie.0,addr={device:#x}.{function:#x}{first}",
                slot(number),
                number + 1
            ),
        );
    }
    words.into_iter().map(OsString::from).collect()
}

/// A value among others that commas separate.
fn value(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn line(accel: Accel) -> Vec<String> {
        let machine = Machine {
            name: "amphora-vm-1",
            uuid: "6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11",
            accel,
            size: Size { memory: 2048, cpus: 2 },
            disk: Path::new("/data/a,b/disk"),
            drive: Path::new("/data/config.iso"),
            console: Path::new("/data/console"),
            monitor: Path::new("/data/run/qmp"),
            management: ("m0", "fa:00:00:00:00:01"),
        };
        arguments(&machine).into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    fn has(line: &[String], option: &str, argument: &str) -> bool {
        line.windows(2).any(|pair| pair[0] == option && pair[1] == argument)
    }

    #[test]
    fn a_machine_has_what_it_is_to_have_and_nothing_else() {
        let line = line(Accel::Tcg);
        for (option, argument) in [
            ("-name", "guest=amphora-vm-1"),
            ("-accel", "tcg,thread=multi,tb-size=256"),
            ("-cpu", "max"),
            ("-smp", "2"),
            ("-m", "2048M"),
            ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            ("-chardev", "socket,id=monitor,path=/data/run/qmp,server=on,wait=off"),
            ("-netdev", "tap,id=management,ifname=m0,script=no,downscript=no"),
            ("-device", "virtio-net-pci,netdev=management,mac=fa:00:00:00:00:01,romfile="),
            // A comma is doubled: else it would begin another option.
            ("-blockdev", "driver=file,node-name=disk-file,filename=/data/a,,b/disk,discard=unmap"),
            ("-blockdev", "driver=file,node-name=drive-file,filename=/data/config.iso,read-only=on"),
            ("-device", "pcie-root-port,id=slot0,chassis=1,bus=pcie.0,addr=0x10.0x0,multifunction=on"),
            ("-device", "pcie-root-port,id=slot15,chassis=16,bus=pcie.0,addr=0x11.0x7"),
        ] {
            assert!(has(&line, option, argument), "{option} {argument}: {line:?}");
        }
        assert!(line.contains(&"-nodefaults".to_owned()));
        assert!(line.contains(&"-no-user-config".to_owned()));
    }

    #[test]
    fn the_hosts_processor_is_used_where_that_is_possible() {
        let line = line(Accel::Kvm);
        assert!(has(&line, "-accel", "kvm") && has(&line, "-cpu", "host"), "{line:?}");
    }
}
