//! Interfaces of machines that run: a tap of this host each, and a card in a slot of its own.

use std::time::Duration;

use serde_json::json;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{ANSWER, Qemu, command, files, host::Account, qmp, qmp::Monitor};
use crate::{
    error::{Error, Result},
    failpoint::reach,
    host::{interfaces, ip_batch},
    serve::{
        compute::{
            Interface,
            namespaces::{entries, remove_if_there},
        },
        network::{
            bridges,
            links::{Behind, End},
        },
    },
};

/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(100);

impl Qemu {
    /// Gives a machine an interface.
    pub(super) async fn plug_in(&self, machine: &str, interface: &Interface) -> Result<()> {
        let tap = self.tap('t', &interface.port);
        let device = format!("port-{tap}");
        let (dir, wanted, user, accel) =
            (self.directory(machine), interface.clone(), self.settings.user.clone(), self.accel);
        let (turn, name) = (self.turns.take(machine).await, tap.clone());
        let made = spawn_blocking(move || {
            let _turn = turn;
            // Recorded before it is made, so that it goes with the machine in any case.
            let slot = files::slot(&dir, &wanted.port)?;
            reach("machine.plug.recorded");
            make_tap(&name, &wanted.bridge, Account::find(user.as_deref(), accel)?, false)?;
            Ok::<_, Error>(slot)
        });
        let slot = made.await.map_err(|e| Error::local("a machine's interface", e))??;
        let failed = |e: qmp::NotDone| Error::NotDone(format!("{machine}: {e}"));
        let mut monitor = self.monitor(machine, ANSWER).await?;
        if has_device(&mut monitor, &device).await.map_err(failed)? {
            return Ok(());
        }
        let backend = json!({"type": "tap", "id": tap, "ifname": tap, "script": "no", "downscript": "no"});
        // One that is left of an attempt which got no further goes first.
        let _ = monitor.call("netdev_del", json!({"id": tap})).await;
        monitor.call("netdev_add", backend).await.map_err(failed)?;
        reach("machine.plug.backend");
        let card = json!({"driver": "virtio-net-pci", "id": device, "netdev": tap, "mac": interface.mac,
            "bus": command::slot(slot), "romfile": ""});
        monitor.call("device_add", card).await.map_err(failed)?;
        Ok(())
    }

    /// Takes an interface from a machine. One whose system does not let the card go is left with it, behind which there is nothing any more.
    pub(super) async fn pull_out(&self, machine: &str, port: &str) -> Result<()> {
        let tap = self.tap('t', port);
        let device = format!("port-{tap}");
        let failed = |e: qmp::NotDone| Error::NotDone(format!("{machine}: {e}"));
        let deadline = Instant::now() + self.settings.lets_go;
        let mut monitor = self.monitor(machine, ANSWER).await?;
        // Once: who asks twice takes it back. It is refused to who asks for what is asked for, or gone.
        let _ = monitor.call("device_del", json!({"id": device})).await;
        let mut has = has_device(&mut monitor, &device).await.map_err(failed)?;
        while has && Instant::now() < deadline {
            sleep(LOOK).await;
            has = has_device(&mut monitor, &device).await.map_err(failed)?;
        }
        if has {
            tracing::warn!(
                machine,
                port,
                "the machine does not let go of an interface: its slot is lost to it"
            );
        }
        reach("machine.unplug.card");
        let _ = monitor.call("netdev_del", json!({"id": tap})).await;
        reach("machine.unplug.backend");
        let turn = self.turns.take(machine).await;
        let record = self.directory(machine).join(files::PORTS).join(port);
        let removed = spawn_blocking(move || {
            let _turn = turn;
            if interfaces(Some("tun"))?.iter().any(|(name, _)| *name == tap) {
                ip_batch(&[format!("link delete {tap}")])?;
            }
            reach("machine.unplug.tap");
            // What is recorded has a slot.
            if has { Ok(()) } else { remove_if_there(&record) }
        });
        removed.await.map_err(|e| Error::local("a machine's interface", e))?
    }

    /// The ends that a machine with these interfaces has on this host.
    pub(in crate::serve::compute) fn ends(&self, machine: &str, interfaces: &[Interface]) -> Vec<End> {
        let management = End {
            port: None,
            name: self.tap('m', self.short(machine)),
            bridge: bridges::name(&self.settings.management.id),
            // Machines have nothing to say to one another here.
            behind: Behind::Process { isolated: true },
        };
        let end = |interface: &Interface| End {
            port: Some(interface.port.clone()),
            name: self.tap('t', &interface.port),
            bridge: interface.bridge.clone(),
            behind: Behind::Process { isolated: false },
        };
        std::iter::once(management).chain(interfaces.iter().map(end)).collect()
    }

    /// Taps of a machine, which its directory names.
    pub(super) fn taps(&self, machine: &str) -> Result<Vec<String>> {
        let ports = entries(&self.directory(machine).join(files::PORTS))?;
        let ports = ports.iter().map(|port| self.tap('t', port));
        Ok(ports.chain([self.tap('m', self.short(machine))]).collect())
    }
}

async fn has_device(monitor: &mut Monitor, device: &str) -> std::result::Result<bool, qmp::NotDone> {
    let there = monitor.call("qom-list", json!({"path": "/machine/peripheral"})).await?;
    Ok(there.as_array().into_iter().flatten().any(|entry| entry["name"] == device))
}

/// A tap on a bridge, which an account may open. Blocks for some milliseconds.
pub(super) fn make_tap(name: &str, bridge: &str, account: Account, isolated: bool) -> Result<()> {
    if !interfaces(Some("tun"))?.iter().any(|(other, _)| other == name) {
        ip_batch(&[format!("tuntap add mode tap user {} name {name}", account.uid)])?;
    }
    let mut commands = vec![format!("link set {name} master {bridge} up")];
    if isolated {
        commands.push(format!("link set {name} type bridge_slave isolated on"));
    }
    ip_batch(&commands)
}
