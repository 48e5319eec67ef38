"""What every end-to-end test uses: a real `qanat serve` in a folder of its own, and the real command line.

The server listens on a free loopback port and is found through its data folder; a test talks to it as a person would
(`server.qanat("list", "repo")`) or over HTTP with its token. Nothing outlives a test: servers are stopped by pid, engines and
workers with them.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("QANAT_BUILD", os.path.join(ROOT, "build"))
QANAT = os.path.join(BUILD, "qanat")


class CommandFailed(AssertionError):
    def __init__(self, arguments, result):
        self.result = result
        super().__init__(
            f"qanat {' '.join(arguments)}: exit {result.returncode}\n{result.stdout}\n{result.stderr}"
        )


def free_port():
    """A port that nothing listens on; below those that the system gives to outgoing connections, if there are such: who takes long to start
    finds it free still."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        above = int(f.read().split()[0])
    for port in random.sample(range(10_000, above), 100) if above > 11_000 else [0]:
        with contextlib.closing(socket.socket()) as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return s.getsockname()[1]
    raise AssertionError("no port is free")


def wait_until(condition, what, seconds=30):
    """Polls until condition() is true and returns its value; the deadline is an error, never a pass. `what` may be a function."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what() if callable(what) else what}")
        time.sleep(0.02)


class Server:
    """One server over one data folder; may be killed and started again on the same folder."""

    def __init__(self, folder=None, runner="process", arguments=(), environment=None):
        self.folder = folder or tempfile.mkdtemp(prefix="qanat-test-")
        self.data = os.path.join(self.folder, "data")
        self.runner = runner
        self.arguments = list(arguments)
        self.environment = environment or {}
        self.port = free_port()
        self.process = None
        self.log_path = os.path.join(self.folder, "server.log")

    # -- life ---------------------------------------------------------------
    def start(self, wait=True):
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            [QANAT, "serve", "--data", self.data, "--listen", f"127.0.0.1:{self.port}", "--runner", self.runner]
            + self.arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **self.environment},
        )
        log.close()
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=30):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"server ended with {self.process.returncode}:\n{self.log()}")
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                    return answer.status == 200
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False

        wait_until(ready, f"server ready\n{self.log()}", seconds)

    def stop(self, kill=False):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"server did not stop within 30 s of SIGTERM\n{self.log()}")
        self.process = None

    def close(self):
        self.stop()
        stop_leftovers(self.data)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *unused):
        self.close()

    def log(self):
        with contextlib.suppress(FileNotFoundError):
            with open(self.log_path, errors="replace") as f:
                return f.read()[-20000:]
        return ""

    # -- talking to it ------------------------------------------------------
    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self):
        with open(os.path.join(self.data, "token")) as f:
            return f.read().strip()

    def run(self, *arguments, input=None, token=None, timeout=120, text=True):
        """Runs the command line; returns the CompletedProcess whatever the exit code."""
        environment = {
            **os.environ,
            **self.environment,
            "QANAT_SERVER": self.url,
            "QANAT_TOKEN": token or self.token,
            "HOME": self.folder,
        }
        return subprocess.run(
            [QANAT, *map(str, arguments)],
            input=input,
            capture_output=True,
            text=text,
            errors="surrogateescape" if text else None,
            timeout=timeout,
            env=environment,
            check=False,
            **({} if input is not None else {"stdin": subprocess.DEVNULL}),
        )

    def qanat(self, *arguments, **options):
        """Runs the command line, which must succeed; returns what it printed."""
        result = self.run(*arguments, **options)
        if result.returncode != 0:
            raise CommandFailed([str(a) for a in arguments], result)
        return result.stdout

    def json(self, *arguments, **options):
        return json.loads(self.qanat(*arguments, "-o", "json", **options))

    def fails(self, *arguments, **options):
        """Runs the command line, which must fail with a clear error; returns its standard error."""
        result = self.run(*arguments, **options)
        if result.returncode == 0:
            raise AssertionError(f"qanat {' '.join(map(str, arguments))} should have failed\n{result.stdout}")
        if result.returncode < 0 or not result.stderr.strip():
            raise CommandFailed([str(a) for a in arguments], result)
        return result.stderr

    def http(self, method, path, body=None, token=None, headers=None, timeout=60):
        """Returns (status, headers, body bytes); an error status is not an exception."""
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers or {})
        if token != "":
            request.add_header("Authorization", f"Bearer {token or self.token}")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def api(self, method, path, body=None, token=None, expect=None):
        """An API call with a JSON body (or a text, for specs) and answer; any status but `expect` (default: 2xx) fails the test."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body is not None else None
        status, _, answer = self.http(method, "/api/v1" + path, body=data, token=token)
        if (status != expect) if expect else not 200 <= status < 300:
            raise AssertionError(f"{method} {path}: {status} {answer.decode(errors='replace')}")
        return json.loads(answer) if answer else None

    # -- shorthands ---------------------------------------------------------
    def put(self, repo, path, content, branch="master"):
        return self.qanat("put", "file", f"{repo}@{branch}:{path}", "-f", "-", input=content)

    def get(self, repo, path, ref="master"):
        return self.qanat("get", "file", f"{repo}@{ref}:{path}")

    def tree(self, repo, ref="master"):
        """{path: content} of a commit."""
        with tempfile.TemporaryDirectory(dir=self.folder) as out:
            self.qanat("get", "file", "-r", f"{repo}@{ref}:/", "-o", os.path.join(out, "t"))
            return read_folder(os.path.join(out, "t"))

    def root(self, repo, ref="master"):
        return self.json("inspect", "commit", f"{repo}@{ref}")["root"]

    def head(self, repo, ref="master"):
        return self.json("inspect", "commit", f"{repo}@{ref}")["id"]

    def create_pipeline(self, spec):
        text = spec if isinstance(spec, str) else json.dumps(spec)
        return self.qanat("create", "pipeline", "-f", "-", input=text)

    def jobs(self, pipeline):
        return self.json("list", "job", "-p", pipeline)

    def counter(self, name):
        """The value of one counter of /metrics."""
        _, _, body = self.http("GET", "/metrics")
        for line in body.decode().splitlines():
            if line.startswith(name + " ") or line.startswith(name + "{"):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no counter {name} in /metrics")


def read_folder(folder):
    found = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            full = os.path.join(directory, name)
            with open(full, "rb") as f:
                found["/" + os.path.relpath(full, folder)] = f.read().decode(errors="surrogateescape")
    return found


def stop_leftovers(data):
    """Kills workers, engines and containers that outlive a server by design, found by the data folder in their arguments."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/cmdline", "rb") as f:
                arguments = f.read().split(b"\0")
            if any(argument.startswith(data.encode()) or (b"=" + data.encode()) in argument or
                   argument.startswith(b"unix://" + data.encode()) for argument in arguments[1:]):
                os.kill(int(entry), signal.SIGKILL)
