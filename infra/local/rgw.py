"""A real S3 endpoint on this machine: Ceph's RADOS gateway before one monitor and one store in memory.

    apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common
    python infra/local/rgw.py start FOLDER [PORT]    # ready in about 12 s; prints the environment to use
    python infra/local/rgw.py stop FOLDER            # ends the three processes, and nothing else

FOLDER is wiped at the start, and what the gateway holds is lost at the stop. Everything listens on
127.0.0.1. The gateway checks signatures, and PUT with `If-None-Match: *` lets one of many win.
It is Ceph 16 to 18 as Debian has it; the gateway's own single-file backend came later than Debian 12.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool")
PARTS = ("gateway", "osd", "monitor")
"""In the order in which they are ended."""

ACCESS_KEY, SECRET_KEY = "xstilts-local", "only-on-loopback"
KMS_KEY = "local-key"
"""Name of a key that `aws:kms` encryption can use here."""

_SETTINGS = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{v2}/0,v1:127.0.0.1:{v1}/0]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
run_dir = {folder}/run
pid_file =
admin_socket =
crash_dir = {folder}/run
log_file = {folder}/log/$name.log
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}/gateway
# The monitor refuses to work on a disk that is 95 % full; tests run on such disks.
mon_data_avail_crit = 1
# A gateway that was killed is waited for this long by the next one, 30 s by default.
osd_client_watch_timeout = 5
# One store, one copy, few placement groups: 8 pools of the gateway are made in the first second.
osd_objectstore = memstore
memstore_device_bytes = {memory}
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_max_pg_per_osd = 1000
[client.gateway]
# Without nodelay each small GET takes 45 ms instead of 2: headers and body go in two packets.
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_crypt_require_ssl = false
rgw_crypt_s3_kms_backend = testing
rgw_crypt_s3_kms_encryption_keys = {kms}={secret}
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway in a folder of its own, running or not."""

    folder: Path
    port: int

    @classmethod
    def start(cls, folder: Path, port: int = 0, memory: int = 4 * 2**30) -> Gateway:
        """Makes `folder` anew and starts in it; an exception leaves nothing running.

        Raises:
            RuntimeError: it does not come up; says where the logs are.
        """
        gateway = cls(folder.absolute(), port or _free_port())
        gateway.stop()
        shutil.rmtree(gateway.folder, ignore_errors=True)
        for part in ("mon", "osd", "gateway", "run", "log"):
            (gateway.folder / part).mkdir(parents=True)
        (gateway.folder / "port").write_text(str(gateway.port))
        try:
            gateway._found(memory)
            gateway.revive()
        except BaseException as problem:
            gateway.stop()
            if isinstance(problem, subprocess.SubprocessError | OSError | TimeoutError):
                raise RuntimeError(f"no gateway came up, see {gateway.folder}/log ({problem})") from problem
            raise
        return gateway

    @classmethod
    def at(cls, folder: Path) -> Gateway:
        """The gateway that was started in `folder`."""
        return cls(folder.absolute(), int((folder / "port").read_text()))

    @property
    def url(self) -> str:
        """Of the endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What botocore, and all that use it, need to find it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            # pyarrow sends checksum trailers otherwise, which Ceph 16 answers with 411.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }

    @property
    def pid(self) -> int | None:
        """Number of the gateway's process, if it runs."""
        return self._pid("gateway")

    def revive(self) -> None:
        """Starts the gateway where only it was killed; what it holds is still there. 0.3 s.

        Raises:
            TimeoutError: it does not answer.
        """
        self._begin("gateway", "radosgw", "-n", "client.gateway")
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url, timeout=2).close()
                return
            time.sleep(0.1)
        raise TimeoutError("the gateway does not answer")

    def send(self, number: signal.Signals, part: str = "gateway") -> None:
        """Sends a signal to one of its processes: SIGSTOP freezes, SIGCONT wakes, SIGKILL kills."""
        pid = self._pid(part)
        if pid is None:
            raise ProcessLookupError(f"no {part} runs in {self.folder}")
        os.kill(pid, number)

    def stop(self) -> None:
        """Kills what runs in the folder. Nothing in memory is worth a farewell, which takes seconds."""
        for part in PARTS:
            pid = self._pid(part)
            if pid is None:
                continue
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            while self._pid(part) is not None:
                time.sleep(0.02)
            (self.folder / "run" / f"{part}.pid").unlink()

    def _found(self, memory: int) -> None:
        """Writes settings and keys, starts monitor and store, and makes the user."""
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        v2, v1 = _free_port(), _free_port()
        secret = base64.b64encode(os.urandom(32)).decode()
        words = {"folder": self.folder, "fsid": fsid, "v2": v2, "v1": v1, "port": self.port}
        words |= {"memory": memory, "kms": KMS_KEY, "secret": secret}
        (self.folder / "ceph.conf").write_text(_SETTINGS.format_map(words))
        self._keys()
        addresses = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
        monmap = f"{self.folder}/monmap"
        _do("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monmap)
        self._do("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap)
        self._begin("monitor", "ceph-mon", "-i", "a")
        self._do("ceph", "osd", "new", osd, "0")
        self._do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._begin("osd", "ceph-osd", "-i", "0")
        self._do("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")
        user = ["--uid=local", "--display-name=local"]
        keys = [f"--access-key={ACCESS_KEY}", f"--secret={SECRET_KEY}"]
        self._do("radosgw-admin", "-n", "client.gateway", "user", "create", *user, *keys)

    def _keys(self) -> None:
        """One keyring of all parts; the monitor learns it when it is made."""
        ring = f"{self.folder}/keyring"
        _do("ceph-authtool", "--create-keyring", ring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        allowed = {
            "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
            "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
            "client.gateway": {"mon": "allow rw", "osd": "allow rwx"},
        }
        for name, rights in allowed.items():
            caps = [word for part, right in rights.items() for word in ("--cap", part, right)]
            _do("ceph-authtool", ring, "--gen-key", "-n", name, *caps)

    def _do(self, program: str, *words: str) -> None:
        _do(program, "-c", f"{self.folder}/ceph.conf", *words)

    def _begin(self, part: str, program: str, *words: str) -> None:
        """Starts a part in the foreground of a session of its own, and notes its process."""
        command = [program, "-c", f"{self.folder}/ceph.conf", *words, "-f"]
        with (self.folder / "log" / f"{part}.out").open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        (self.folder / "run" / f"{part}.pid").write_text(str(process.pid))

    def _pid(self, part: str) -> int | None:
        """The process of `part`, if it runs; a number that went to another program is not it."""
        try:
            pid = int((self.folder / "run" / f"{part}.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.folder / "ceph.conf") in command else None


def _do(*command: str) -> None:
    """Runs a program to its end; CalledProcessError carries what it said."""
    subprocess.run(command, check=True, timeout=60, capture_output=True, stdin=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def main(words: list[str]) -> int:
    """The command line; returns the exit code."""
    match words:
        case ["start", folder, *port] if len(port) < 2:
            if absent := missing():
                print(f"missing: {' '.join(absent)}; see the head of this file", file=sys.stderr)
                return 2
            gateway = Gateway.start(Path(folder), int(port[0]) if port else 0)
            for name, value in gateway.environment.items():
                print(f"export {name}={value}")
            return 0
        case ["stop", folder]:
            Gateway.at(Path(folder)).stop()
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
