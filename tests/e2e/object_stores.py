"""Real object stores for tests, on loopback and in a folder of their own: Ceph's gateway (S3) and Azurite (Azure Blob).

Each is a context manager with `url(prefix)`, the store's URL for `--object`, and `environment`, the variables that hold its keys.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid

from harness import ROOT, free_port, wait_until


def installed(*programs):
    return all(shutil.which(program) for program in programs)


class Process:
    """A child that ends with its parent's `stop`, its output in a file."""

    def __init__(self, arguments, log, environment=None):
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def check(self):
        if self.child.poll() is not None:
            with open(self.log, errors="replace") as f:
                raise AssertionError(f"{self.child.args[0]} ended with {self.child.returncode}:\n{f.read()[-4000:]}")

    def stop(self):
        if self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, ConnectionError, TimeoutError, socket.timeout):
        return False


class Ceph:
    """One monitor, one OSD in memory and a gateway. About 20 s to start."""

    PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
    ACCESS_KEY = "QANATTEST"
    SECRET_KEY = "a/secret+of+the+tests"
    BUCKET = "qanat-test"

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="qanat-ceph-")
        self.port = free_port()
        self.mon_port = free_port()
        self.processes = []

    @property
    def environment(self):
        return {
            "AWS_ACCESS_KEY_ID": self.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": self.SECRET_KEY,
            "GCS_HMAC_ACCESS_ID": self.ACCESS_KEY,
            "GCS_HMAC_SECRET": self.SECRET_KEY,
        }

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def url(self, prefix="", scheme="s3", bucket=None):
        return f"{scheme}://{bucket or self.BUCKET}{'/' + prefix if prefix else ''}?endpoint={self.endpoint}"

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def run(self, *arguments, timeout=60):
        result = subprocess.run(
            [arguments[0], "-c", self.path("ceph.conf"), *arguments[1:]],
            capture_output=True, text=True, timeout=timeout, check=False,
        )
        if result.returncode:
            raise AssertionError(f"{arguments}: {result.returncode}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}")
        return result.stdout

    def daemon(self, *arguments):
        self.processes.append(
            Process([arguments[0], "-c", self.path("ceph.conf"), "-f", *arguments[1:]],
                    self.path(f"{arguments[0]}.log"))
        )
        return self.processes[-1]

    def start(self):
        fsid = str(uuid.uuid4())
        with open(self.path("ceph.conf"), "w") as f:
            f.write(f"""[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{self.mon_port}
ms bind msgr2 = false
auth cluster required = none
auth service required = none
auth client required = none
run dir = {self.folder}
log file = {self.folder}/$name.ceph.log
admin socket = {self.folder}/$name.asok
pid file = {self.folder}/$name.pid
keyring = {self.folder}/keyring
osd objectstore = memstore
memstore device bytes = 4294967296
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
osd crush chooseleaf type = 0
osd scrub auto repair = false
mon data avail crit = 1
mon data avail warn = 1
[mon.a]
mon data = {self.folder}/mon
[osd.0]
osd data = {self.folder}/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{self.port}
rgw data = {self.folder}/rgw
rgw enable usage log = false
rgw init timeout = 60
""")
        for name in ("mon", "osd", "rgw"):
            os.mkdir(self.path(name))
        open(self.path("keyring"), "w").close()
        subprocess.run(
            ["monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{self.mon_port}]",
             self.path("monmap")], check=True, capture_output=True)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", self.path("monmap"))
        self.daemon("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        self.run("ceph", "osd", "new", osd)
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.daemon("ceph-osd", "-i", "0")
        gateway = self.daemon("radosgw", "-n", "client.rgw")

        def up():
            for process in self.processes:
                process.check()
            return answers(self.endpoint)

        wait_until(up, f"Ceph's gateway ready: {gateway.log}", 120)
        self.run("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid", "qanat", "--display-name", "Qanat",
                 "--access-key", self.ACCESS_KEY, "--secret-key", self.SECRET_KEY)
        self.make_bucket(self.BUCKET)
        return self

    def make_bucket(self, name):
        subprocess.run([os.environ.get("QANAT_TEST_PYTHON", "/usr/bin/python3"), "-"], input=SIGNED_PUT,
                       text=True, check=True,
                       env={**os.environ, "URL": f"{self.endpoint}/{name}", "ID": self.ACCESS_KEY, "KEY": self.SECRET_KEY})

    def stop(self):
        for process in reversed(self.processes):
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        """Where a daemon does not come up (its port was taken meanwhile, memory was short), tries once more with new ones, and says so."""
        try:
            return self.start()
        except (AssertionError, subprocess.SubprocessError) as error:
            self.stop()
            print(f"Ceph did not start; once more: {error}", file=sys.stderr)
        self.__init__()
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *unused):
        self.stop()


# An empty PUT with AWS Signature Version 4, written anew here so that the product's own signer is not what checks itself.
SIGNED_PUT = r"""
import datetime, hashlib, hmac, os, urllib.parse, urllib.request
url = urllib.parse.urlsplit(os.environ["URL"])
now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
empty = hashlib.sha256(b"").hexdigest()
headers = {"host": url.netloc, "x-amz-content-sha256": empty, "x-amz-date": now}
names = ";".join(sorted(headers))
canonical = "\n".join(["PUT", url.path, "", *(f"{n}:{headers[n]}" for n in sorted(headers)), "", names, empty])
scope = f"{now[:8]}/us-east-1/s3/aws4_request"
text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
key = ("AWS4" + os.environ["KEY"]).encode()
for part in scope.split("/"):
    key = hmac.new(key, part.encode(), "sha256").digest()
signature = hmac.new(key, text.encode(), "sha256").hexdigest()
headers["Authorization"] = (f"AWS4-HMAC-SHA256 Credential={os.environ['ID']}/{scope}, SignedHeaders={names}, "
                            f"Signature={signature}")
with urllib.request.urlopen(urllib.request.Request(os.environ["URL"], method="PUT", headers=headers, data=b""), timeout=60):
    pass
"""


class Azurite:
    """Microsoft's emulator of Azure Storage, from npm."""

    VERSION = "3.35.0"
    ACCOUNT = "devstoreaccount1"
    # The emulator's own, published by Microsoft.
    KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    CONTAINER = "qanat-test"

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="qanat-azurite-")
        self.port = free_port()
        self.process = None

    @classmethod
    def program(cls):
        """Where QANAT_AZURITE says, on PATH, or in build/azurite, where npm puts it; None if there is no way to get it."""
        found = os.environ.get("QANAT_AZURITE") or shutil.which("azurite-blob")
        if found:
            return found
        folder = os.path.join(ROOT, "build", "azurite")
        program = os.path.join(folder, "node_modules", ".bin", "azurite-blob")
        if not os.path.exists(program) and shutil.which("npm"):
            os.makedirs(folder, exist_ok=True)
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, f"azurite@{cls.VERSION}"],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False)
        return program if os.path.exists(program) else None

    @property
    def environment(self):
        return {"AZURE_STORAGE_KEY": self.KEY}

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}/{self.ACCOUNT}"

    def url(self, prefix="", container=None):
        return (f"azure://{self.ACCOUNT}/{container or self.CONTAINER}{'/' + prefix if prefix else ''}"
                f"?endpoint={self.endpoint}")

    def start(self):
        self.process = Process(
            [self.program(), "--skipApiVersionCheck", "--disableTelemetry", "--silent", "--blobHost", "127.0.0.1",
             "--blobPort", str(self.port), "--location", self.folder], os.path.join(self.folder, "log"))

        def up():
            self.process.check()
            return answers(self.endpoint)

        wait_until(up, f"Azurite ready: {self.process.log}", 60)
        self.make_container(self.CONTAINER)
        return self

    def make_container(self, name):
        import base64
        import hashlib
        import hmac

        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        text = ("PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-12-02\n"
                f"/{self.ACCOUNT}/{self.ACCOUNT}/{name}\nrestype:container")
        signature = base64.b64encode(hmac.new(base64.b64decode(self.KEY), text.encode(), hashlib.sha256).digest()).decode()
        request = urllib.request.Request(
            f"{self.endpoint}/{name}?restype=container", method="PUT", data=b"",
            headers={"x-ms-date": date, "x-ms-version": "2021-12-02", "Content-Type": "",
                     "Authorization": f"SharedKey {self.ACCOUNT}:{signature}"})
        with urllib.request.urlopen(request, timeout=30):
            pass

    def stop(self):
        if self.process:
            self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *unused):
        self.stop()
