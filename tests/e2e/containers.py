"""A Docker engine for tests: the one at DOCKER_HOST if it answers, else a private dockerd on a socket in a folder of its own.

One engine serves a whole test run; it is stopped, with its containers, when Python ends. Images are made here, without a registry.
"""

import atexit
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time

_engine = None


def engine():
    global _engine
    if _engine is None:
        _engine = Engine()
    return _engine


class Engine:
    def __init__(self):
        self.host = os.environ.get("DOCKER_HOST", "")
        self.process = None
        if not (self.host and self.answers()):
            self.start()
        self._busybox = None

    def start(self):
        self.folder = tempfile.mkdtemp(prefix="qanat-engine-")
        self.host = f"unix://{self.folder}/sock"
        flags = [f"--data-root={self.folder}/root", f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid",
                 "-H", self.host, "--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false"]
        with open(f"{self.folder}/log", "wb") as log:
            self.process = subprocess.Popen(["dockerd", *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        atexit.register(self.stop)
        for _ in range(300):
            if self.answers():
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        with open(f"{self.folder}/log") as log:
            raise AssertionError(f"dockerd did not start:\n{log.read()[-3000:]}")

    def stop(self):
        if self.process:
            ids = self.docker("ps", "-aq").split()
            if ids:
                self.docker("rm", "-f", *ids)
            self.process.terminate()
            self.process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self):
        return {"DOCKER_HOST": self.host}

    def answers(self):
        return subprocess.run(["docker", "-H", self.host, "version"], capture_output=True, check=False).returncode == 0

    def docker(self, *arguments, input=None):
        result = subprocess.run(["docker", "-H", self.host, *arguments], input=input, capture_output=True, check=False)
        if result.returncode != 0:
            raise AssertionError(f"docker {' '.join(arguments)}: {result.stderr.decode()}")
        return result.stdout.decode()

    def import_image(self, name, files, links=(), changes=()):
        """files: {path in image: (bytes, mode)}; links: {path: target}."""
        arguments = [f"--change={change}" for change in changes]
        self.docker("import", *arguments, "-", name, input=self.layer(files, links))
        return name

    def load_image(self, name, files, architecture):
        """An image that says it is for this architecture; old engines cannot import one."""
        layer = self.layer(files, ())
        config = {"architecture": architecture, "os": "linux", "config": {"Env": ["PATH=/bin"]},
                  "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path, content in (("layer.tar", layer), ("config.json", json.dumps(config).encode()), ("manifest.json", json.dumps(manifest).encode())):
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        self.docker("load", input=buffer.getvalue())
        return name

    @staticmethod
    def layer(files, links):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for directory in ("tmp", "etc", "bin"):
                entry = tarfile.TarInfo(directory)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
                tar.addfile(entry)
            for path, (content, mode) in files.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.size, entry.mode = len(content), mode
                tar.addfile(entry, io.BytesIO(content))
            for path, target in dict(links).items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                tar.addfile(entry)
        return buffer.getvalue()

    def busybox(self):
        """An image with busybox alone, its applets as links."""
        if not self._busybox:
            with open("/bin/busybox", "rb") as f:
                program = f.read()
            applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
            self._busybox = self.import_image(
                "qanat-test/busybox:1",
                {"/bin/busybox": (program, 0o755), "/etc/passwd": (b"root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n", 0o644)},
                {f"/bin/{applet}": "busybox" for applet in applets if applet != "busybox"},
                ["ENV PATH=/bin"],
            )
        return self._busybox
