"""The processes beside the command line: server, container engine, database, listener.

Each is started by this demo, on loopback, in a folder of its own, and ended by its process id.
"""

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(ready, what, seconds=60, process=None):
    end = time.monotonic() + seconds
    while not ready():
        if process and process.poll() is not None:
            raise RuntimeError(f"{what} ended at once, with {process.returncode}")
        if time.monotonic() > end:
            raise RuntimeError(f"{what} is not ready after {seconds} s")
        time.sleep(0.05)


def stop(process, how=signal.SIGTERM, seconds=30):
    if process is None or process.poll() is not None:
        return
    process.send_signal(how)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Server:
    """`qanat serve` on a data folder."""

    def __init__(self, data, log):
        self.url = f"http://127.0.0.1:{free_port()}"
        self.command = f"qanat serve --data {data} --listen {self.url[7:]}"
        self.log = open(log, "wb")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.command.split(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        wait_until(self.healthy, "qanat serve", process=self.process)

    def healthy(self):
        try:
            return urllib.request.urlopen(f"{self.url}/healthz", timeout=1).status == 200
        except (urllib.error.URLError, OSError):
            return False

    def stop(self):
        stop(self.process)
        self.log.close()


class Engine:
    """The container engine: the one that DOCKER_HOST names, or that runs already; else one of its
    own, whose folder is kept, so that the images are there the next time."""

    def __init__(self, folder):
        self.folder = folder
        self.process = None

    @staticmethod
    def answers():
        return subprocess.run(["docker", "version"], capture_output=True).returncode == 0

    def start(self):
        if self.answers():
            return
        if "DOCKER_HOST" in os.environ:
            raise RuntimeError(f"no container engine answers at {os.environ['DOCKER_HOST']}")
        os.environ["DOCKER_HOST"] = f"unix://{self.folder}/sock"
        if self.answers():
            return
        os.makedirs(self.folder, exist_ok=True)
        command = (
            f"dockerd --data-root {self.folder}/root --exec-root {self.folder}/exec"
            f" --pidfile {self.folder}/pid -H {os.environ['DOCKER_HOST']}"
            " --iptables=false --ip6tables=false --bridge=none --ip-forward=false"
        )
        with open(f"{self.folder}/log", "wb") as log:
            self.process = subprocess.Popen(
                command.split(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends it here, in order, and not by itself
            )
        wait_until(self.answers, f"dockerd (see {self.folder}/log)", process=self.process)

    def remove_workers(self, data):
        """Workers outlive their server, for its next start. The demo's server has none."""

        def docker(*command):
            return subprocess.run(["docker", *command], capture_output=True, text=True).stdout

        ours = "{{.Id}}{{range .Mounts}} {{.Source}}{{end}}"
        found = docker("ps", "-aq", "--filter", "label=qanat.installation").split()
        lines = docker("inspect", "-f", ours, *found).splitlines() if found else []
        workers = [line.split()[0] for line in lines if f" {data}/" in line]
        if workers:
            docker("rm", "-f", *workers)

    def stop(self):
        stop(self.process)


class Postgres:
    """A PostgreSQL server with one role that needs no password, on loopback only."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.process = None
        programs = sorted(d for d in os.listdir("/usr/lib/postgresql") if d.isdigit())
        self.programs = f"/usr/lib/postgresql/{programs[-1]}/bin"

    def as_postgres(self, *command):
        """PostgreSQL refuses to run as root."""
        return ["runuser", "-u", "postgres", "--", *command] if os.getuid() == 0 else [*command]

    def start(self):
        os.makedirs(self.folder)
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
        quiet = {"stdout": subprocess.DEVNULL, "cwd": "/"}
        data = f"{self.folder}/data"
        initdb = (
            f"{self.programs}/initdb",
            "-D",
            data,
            "-U",
            "shop",
            "--auth=trust",
            "--no-sync",
            "--no-locale",
            "-E",
            "UTF8",
        )
        subprocess.run(self.as_postgres(*initdb), check=True, **quiet)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",  # a demo's database, thrown away at its end
            "logging_collector": "off",
        }
        options = [o for k, v in settings.items() for o in ("-c", f"{k}={v}")]
        with open(f"{self.folder}/log", "wb") as log:
            self.process = subprocess.Popen(
                self.as_postgres(f"{self.programs}/postgres", "-D", data, *options),
                stdin=subprocess.DEVNULL, stderr=log, **quiet,
            )  # fmt: skip
        os.environ.update(
            PGHOST="127.0.0.1", PGPORT=str(self.port), PGUSER="shop", PGDATABASE="shop"
        )
        ready = [f"{self.programs}/pg_isready", "-q", "-d", "postgres"]
        wait_until(
            lambda: subprocess.run(ready).returncode == 0, "PostgreSQL", process=self.process
        )
        subprocess.run(["createdb", "shop"], check=True)

    def stop(self):
        # runuser passes SIGTERM on; SIGINT would be PostgreSQL's "do not wait for clients".
        stop(self.process)


class Listener:
    """An HTTP server that remembers what it was told."""

    def __init__(self):
        heard = self.heard = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                heard.append(json.loads(self.rfile.read(length)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def start(self):
        self.thread.start()

    def stop(self):
        if self.thread.is_alive():
            self.server.shutdown()
        self.server.server_close()
