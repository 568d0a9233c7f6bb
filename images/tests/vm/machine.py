"""A running image: QEMU, its monitor, and the machine's shell."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

from common import BOUND, Failed, until

# What docs/specification.md promises: MiB of memory in use at most; seconds until 9443 answers, until a load balancer serves, and until
# it does after a reboot, by emulation on two processors that have nothing else to do.
MEMORY = 160
SECONDS = {"9443": 40, "traffic": 45, "reboot": 40}

OVMF = pathlib.Path("/usr/share/OVMF")


class Qmp:
    """QEMU's monitor."""

    def __init__(self, path, alive):
        def connect():
            alive()
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(path))
            return True

        until("QEMU's monitor", connect)
        self.stream = self.socket.makefile("rw")
        self.stream.readline()
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.stream.flush()
        while True:
            answer = json.loads(self.stream.readline())
            if "error" in answer:
                raise Failed(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


def accelerated():
    """Whether this host starts machines by itself. /dev/kvm may be there and start none."""
    with open("/proc/cpuinfo", encoding="ascii") as f:
        return bool(re.search(r"\b(vmx|svm)\b", f.read())) and os.access("/dev/kvm", os.W_OK)


class Machine:
    """A running image."""

    def __init__(self, image, directory, drive, management, vip, *, mac, members=None, cpus=1, memory=512, firmware="bios"):
        self.directory, self.management = directory, management
        self.console = directory / "console"
        disk = directory / "disk"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, disk], check=True)
        kvm = accelerated()
        q35 = firmware != "bios"
        command = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64",
                   "-accel", "kvm" if kvm else "tcg,thread=multi", "-cpu", "host" if kvm else "max",
                   "-machine", "q35,smm=on" if q35 else "pc", "-smp", str(cpus), "-m", str(memory),
                   "-display", "none", "-nodefaults", "-no-reboot",
                   "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
                   "-qmp", f"unix:{directory}/qmp,server=on,wait=off",
                   "-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe",
                   "-drive", f"file={drive},media=cdrom,format=raw,readonly=on",
                   "-netdev", management.netdev, "-device", f"virtio-net-pci,netdev=management,mac={mac},romfile=",
                   "-netdev", f"{vip},id=vip", *(["-netdev", f"{members},id=members"] if members else []),
                   "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
        # What a port is plugged into: q35 has no slots to spare of its own.
        self.slot = {}
        if q35:
            command += ["-device", "pcie-root-port,id=spare,chassis=1"]
            self.slot = {"bus": "spare"}
            secure = firmware == "secure-boot"
            # The variables that Debian calls `ms` have Microsoft's keys enrolled, and Secure Boot enforced.
            code = OVMF / ("OVMF_CODE_4M.ms.fd" if secure else "OVMF_CODE_4M.fd")
            variables = directory / "variables.fd"
            shutil.copy(OVMF / ("OVMF_VARS_4M.ms.fd" if secure else "OVMF_VARS_4M.fd"), variables)
            command += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}",
                        "-drive", f"if=pflash,unit=1,format=raw,file={variables}"]
            if secure:
                command += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        self.command = command
        self.start()

    def start(self):
        self.started = time.monotonic()
        with open(self.directory / "qemu", "wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.qmp = Qmp(self.directory / "qmp", self.alive)
        except BaseException:
            self.stop()
            raise

    def alive(self):
        if (status := self.process.poll()) is not None:
            raise Failed(f"QEMU ended with {status}: {(self.directory / 'qemu').read_text(errors='replace')[-500:]}")

    def stop(self):
        """Ends QEMU, as pulling the plug would."""
        self.process.kill()
        self.process.wait()

    def plug(self, mac, backend="vip"):
        """Hot-plugs the port of this backend, `vip` or `members`. It is there at later starts, too."""
        port = {"driver": "virtio-net-pci", "netdev": backend, "mac": mac, "id": backend, "romfile": "", **self.slot}
        self.qmp.call("device_add", **port)
        self.command += ["-device", json.dumps(port)]

    def reboot(self):
        """Has the machine reboot, and starts it again. Not by QEMU's own reset: it would go on with its translations of what ran
        before, and invalidating them one by one as the next kernel is unpacked over them takes it half a minute."""
        self.run("systemctl reboot")
        until("the end of what runs", self.process.poll)
        self.start()

    def run(self, command, bound=BOUND):
        """Runs a command on the machine, as root."""
        return subprocess.run(["ssh", "-q", "-i", self.directory / "key", "-p", str(self.management.ssh), "-o", "BatchMode=yes",
                               "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20",
                               f"root@{self.management.host}", command],
                              check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=bound)

    def keep(self, where):
        """Keeps the console, and the journal where it is to be had; gives the console's end and where they are."""
        where.parent.mkdir(parents=True, exist_ok=True)
        console = where.with_suffix(".console")
        shutil.copy(self.console, console)
        journal = where.with_suffix(".journal")
        try:
            said = self.run("systemctl --failed --no-pager; journalctl -b --no-pager", 60).stdout
        except subprocess.SubprocessError:
            said = ""
        journal.write_text(said or "the machine does not answer\n")
        return f"{console.read_bytes()[-3000:].decode(errors='replace')}\nthe whole console: {console}, and the journal: {journal}"


def failed_units(machine):
    """Checks that no unit has failed; gives the MiB of memory in use."""
    command = "systemctl is-system-running --wait >/dev/null; free -m && systemctl --failed --no-legend --plain"
    said = until("the shell", lambda: (out := machine.run(command)).returncode == 0 and out or None).stdout
    failed = [line.split()[0] for line in said.splitlines()[3:] if line.strip()]
    if failed:
        raise Failed(f"units failed: {', '.join(failed)}")
    return int(re.search(r"^Mem: +\d+ +(\d+)", said, re.MULTILINE).group(1))


def within_bounds(took):
    """Checks what was measured of a machine."""
    late = [f"{what} took {took[what]:.1f} s, more than {most}" for what, most in SECONDS.items() if took[what] > most]
    if late:
        raise Failed("; ".join(late))
