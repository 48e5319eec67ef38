"""Workers in containers: which images they run in, what limits and networks mean, and what hostile user code finds.

One server and one engine serve the whole file; each test has a pipeline of its own over the repo `in`.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

import containers
from harness import Server, free_port, wait_until

MACHINE_LIBRARIES = ("/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6")


def compile_c(source, *flags):
    """The program or library that gcc makes of a C text."""
    with tempfile.TemporaryDirectory(prefix="qanat-gcc-") as folder:
        with open(os.path.join(folder, "a.c"), "w") as f:
            f.write(source)
        out = os.path.join(folder, "a.out")
        subprocess.run(["gcc", "-O1", *flags, "-o", out, os.path.join(folder, "a.c")], check=True)
        with open(out, "rb") as f:
            return f.read()


# Copies /pfs/in/* to /pfs/out, adding a line, with system calls alone.
COPY = r"""
#include <dirent.h>
#include <stdio.h>
int main(void) {
  DIR *d = opendir("/pfs/in");
  if (!d) return 3;
  for (struct dirent *e; (e = readdir(d));) {
    if (e->d_name[0] == '.') continue;
    char path[512]; char text[4096];
    snprintf(path, sizeof path, "/pfs/in/%s", e->d_name);
    FILE *in = fopen(path, "rb"); size_t n = fread(text, 1, sizeof text, in); fclose(in);
    snprintf(path, sizeof path, "/pfs/out/%s", e->d_name);
    FILE *out = fopen(path, "wb"); fwrite(text, 1, n, out); fputs("copied\n", out); fclose(out);
  }
  return 0;
}
"""

# Loaded into any process but one called sh, it leaves a trace.
HOSTILE = r"""
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
  char name[32] = {0};
  int fd = open("/proc/self/comm", O_RDONLY);
  if (fd >= 0) { read(fd, name, sizeof name - 1); close(fd); }
  if (strncmp(name, "sh", 2) == 0) return;
  fd = open("/tmp/hostile", O_CREAT | O_WRONLY | O_APPEND, 0666);
  if (fd >= 0) { write(fd, name, strlen(name)); close(fd); }
}
int _nss_evil_getpwnam_r(void) { return 0; }
int _nss_files_getpwnam_r(void) { return 0; }
int bind_engine(void) { return 0; }
"""

# Sends a request to a Unix socket and prints the first line of the answer; prints the error if there is none.
KNOCK = r"""
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path, argv[1], sizeof a.sun_path - 1);
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(s, (struct sockaddr *)&a, sizeof a) != 0) { perror("connect"); return 0; }
  char text[8192];
  const char *body = argc > 4 ? argv[4] : "";
  int n = snprintf(text, sizeof text,
      "%s %s HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", argv[2], argv[3], strlen(body), body);
  write(s, text, n);
  n = read(s, text, sizeof text - 1);
  if (n < 0) n = 0;
  text[n] = 0;
  text[strcspn(text, "\r\n")] = 0;
  puts(text);
  return 0;
}
"""


# Connects to ADDRESS PORT and prints what a web server answers, or fails with the reason.
DIAL = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
  inet_pton(AF_INET, argv[1], &a.sin_addr);
  int s = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(s, (struct sockaddr *)&a, sizeof a) != 0) { perror("connect"); return 1; }
  const char *text = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  write(s, text, strlen(text));
  char answer[4096];
  for (ssize_t n; (n = read(s, answer, sizeof answer)) > 0;) fwrite(answer, 1, n, stdout);
  return 0;
}
"""


def read(path):
    with open(os.path.realpath(path), "rb") as f:
        return f.read()


class Registry:
    """A registry of images on loopback."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="qanat-registry-")
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        config = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": f"{self.folder}/images"}}, "http": {"addr": self.host}, "log": {"level": "error"}}
        with open(f"{self.folder}/config.yml", "w") as out:
            json.dump(config, out)
        self.process = subprocess.Popen(["docker-registry", "serve", f"{self.folder}/config.yml"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self.answers(port), "the registry answers")
        return self

    @staticmethod
    def answers(port):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class ContainersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engine = containers.engine()
        cls.busybox = cls.engine.busybox()
        cls.server = Server(runner="docker", environment=cls.engine.environment()).start()
        cls.addClassCleanup(cls.server.close)
        cls.server.qanat("create", "repo", "in")
        cls.server.put("in", "/a", "secret-of-a\n")

    def api(self, *arguments, **options):
        return self.server.api(*arguments, **options)

    def spec(self, name, script=None, image=None, glob="/*", repo="in", transform=None, **more):
        t = {"image": image or self.busybox, "cmd": ["sh", "-e"], "stdin": [script or ""], **(transform or {})}
        if "cmd" in (transform or {}) and script is None:
            del t["stdin"]
        return {"pipeline": {"name": name}, "transform": t, "input": {"pfs": {"repo": repo, "name": "in", "glob": glob}}, **more}

    @contextlib.contextmanager
    def pipeline(self, name, *arguments, wait=True, **options):
        """A pipeline that is deleted at the end; yields its first job, ended."""
        self.api("POST", "/projects/default/pipelines", self.spec(name, *arguments, **options))
        try:
            yield self.ended(name) if wait else None
        finally:
            self.server.run("delete", "pipeline", name)

    @classmethod
    def tools(cls):
        """busybox, `dial` and `knock`. (The C library inside a lone busybox cannot resolve even numbers.)"""
        if not hasattr(cls, "tools_image"):
            applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
            cls.tools_image = cls.engine.import_image(
                "qanat-test/tools:1",
                {"/bin/busybox": (read("/bin/busybox"), 0o755), "/bin/knock": (compile_c(KNOCK, "-static"), 0o755), "/bin/dial": (compile_c(DIAL, "-static"), 0o755)},
                {f"/bin/{applet}": "busybox" for applet in applets if applet != "busybox"}, ["ENV PATH=/bin"])
        return cls.tools_image

    def newest(self, name):
        jobs = self.api("GET", f"/projects/default/jobs?pipeline={name}")["items"]
        return jobs[0] if jobs else None

    def ended(self, name, seconds=90):
        def look():
            job = self.newest(name)
            return job if job and job["state"] in ("SUCCESS", "FAILURE", "KILLED", "UNRUNNABLE") else None

        return wait_until(look, lambda: f"job of {name} ends: {self.newest(name)}\n{self.server.log()[-3000:]}", seconds)

    def succeeds(self, job):
        self.assertEqual(job["state"], "SUCCESS", json.dumps(job, indent=1))

    def datums(self, name, job):
        return self.api("GET", f"/projects/default/pipelines/{name}/jobs/{job['id']}/datums")["items"]

    def output(self, name, path):
        status, _, body = self.server.http("GET", f"/api/v1/projects/default/repos/{name}/files{path}?ref=master")
        self.assertEqual(status, 200, body)
        return body.decode(errors="replace")

    def workers(self, name):
        """Ids of the running containers of a pipeline."""
        out = self.engine.docker("ps", "-q", "--no-trunc", "--filter", f"label=qanat.pipeline={name}", "--filter", "label=qanat.worker")
        return out.split()

    def refused(self, name, *arguments, **options):
        """What the server says against a pipeline, which it must say within seconds; nothing is left of it."""
        begin = time.monotonic()
        said = self.server.fails("create", "pipeline", "-f", "-", input=json.dumps(self.spec(name, *arguments, **options)))
        self.assertLess(time.monotonic() - begin, 15)
        self.api("GET", f"/projects/default/pipelines/{name}", expect=404)
        return said

    # -- images --------------------------------------------------------------
    def test_busybox(self):
        with self.pipeline("busybox", "cat /pfs/in/a /etc/passwd >/pfs/out/a") as job:
            self.succeeds(job)
            self.assertIn("secret-of-a", self.output("busybox", "/a"))
            self.assertTrue(self.newest("busybox")["image_digest"].startswith("sha256:"), job)

    def test_lone_static_program(self):
        image = self.engine.import_image("qanat-test/lone:1", {"/copy": (compile_c(COPY, "-static"), 0o755)})
        with self.pipeline("lone", image=image, transform={"cmd": ["/copy"]}) as job:
            self.succeeds(job)
            self.assertEqual(self.output("lone", "/a"), "secret-of-a\ncopied\n")

    def test_hostile_image(self):
        # What a static program of glibc or OpenSSL might load from the image: none of it may enter the worker.
        hostile = compile_c(HOSTILE, "-shared", "-fPIC", "-nostartfiles")
        files = {"/bin/sh": (read("/bin/dash"), 0o755)}
        for library in MACHINE_LIBRARIES:
            files[library] = (read(library), 0o755)
        for library in ("libnss_evil.so.2", "libnss_files.so.2", "libnss_dns.so.2", "libnss_compat.so.2", "libgcc_s.so.1", "hostile.so"):
            files[f"/lib/x86_64-linux-gnu/{library}"] = (hostile, 0o755)
        config = b"openssl_conf = o\n[o]\nengines = e\n[e]\nx = x\n[x]\ndynamic_path = /lib/x86_64-linux-gnu/hostile.so\ninit = 1\n"
        for path in ("/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf", "/usr/local/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf"):
            files[path] = (config, 0o644)
        files["/etc/nsswitch.conf"] = (b"passwd: evil files\ngroup: evil\nhosts: evil dns\nservices: evil\n", 0o644)
        files["/etc/ld.so.preload"] = (b"/lib/x86_64-linux-gnu/hostile.so\n", 0o644)
        files["/etc/passwd"] = (b"root:x:0:0::/:/bin/sh\nsomeone:x:1234:1234::/home:/bin/sh\n", 0o644)
        files["/etc/group"] = (b"root:x:0:\nsomeone:x:1234:\n", 0o644)
        image = self.engine.import_image(
            "qanat-test/hostile:1", files, (),
            ["ENV OPENSSL_CONF=/etc/ssl/openssl.cnf LD_PRELOAD=/lib/x86_64-linux-gnu/hostile.so GCONV_PATH=/lib/x86_64-linux-gnu"])
        script = 'if [ -e /tmp/hostile ]; then read who </tmp/hostile; echo "$who"; exit 7; fi; read l </pfs/in/a; echo "$l" >/pfs/out/a'
        with self.pipeline("hostile", script, image=image, transform={"user": "someone"}) as job:
            self.succeeds(job)
            self.assertEqual(self.output("hostile", "/a"), "secret-of-a\n")

    def test_user_folder_and_environment(self):
        program = read("/bin/busybox")
        image = self.engine.import_image(
            "qanat-test/user:1",
            {"/bin/busybox": (program, 0o755), "/etc/passwd": (b"root:x:0:0::/:/bin/sh\nuser:x:1000:1001::/srv:/bin/sh\n", 0o644),
             "/srv/x": (b"", 0o644), "/opt/y": (b"", 0o644)},
            {f"/bin/{applet}": "busybox" for applet in ("sh", "id", "env", "cat", "pwd", "sort")},
            ["USER user", "WORKDIR /srv", "ENV PATH=/bin FROM_IMAGE=yes"])
        script = "{ id -u; id -g; pwd; env; } >/pfs/out/a"
        with self.pipeline("as-user", script, image=image, transform={"env": {"FROM_SPEC": "a b"}}) as job:
            self.succeeds(job)
            lines = self.output("as-user", "/a").splitlines()
            self.assertEqual(lines[:3], ["1000", "1001", "/srv"])
            self.assertLessEqual({"FROM_IMAGE=yes", "FROM_SPEC=a b", "PPS_PIPELINE_NAME=as-user", f"PACH_JOB_ID={job['id']}", "in=/pfs/in/a"}, set(lines))
            self.assertFalse([line for line in lines if "QANAT" in line])
        with self.pipeline("elsewhere", script, image=image, transform={"working_dir": "/opt", "user": "0:5"}) as job:
            self.succeeds(job)
            self.assertEqual(self.output("elsewhere", "/a").splitlines()[:3], ["0", "5", "/opt"])

    def test_missing_images_are_pulled(self):
        with Registry() as registry:
            image = f"{registry.host}/qanat-test/far:1"
            self.engine.docker("tag", self.busybox, image)
            self.engine.docker("push", image)
            self.engine.docker("rmi", image)
            with self.pipeline("far", "cp /pfs/in/a /pfs/out/a", image=image) as job:
                self.succeeds(job)
            said = self.refused("farther", "true", image=f"{registry.host}/qanat-test/far:2")
            self.assertIn("not on this machine, and cannot be pulled", said)
            self.assertIn("far:2", said)
            self.engine.docker("rmi", image)
            with Server(runner="docker", environment=self.engine.environment(), arguments=["--pull", "never"]) as server:
                server.qanat("create", "repo", "in")
                said = server.fails("create", "pipeline", "-f", "-", input=json.dumps(self.spec("far", "true", image=image)))
                self.assertIn("is not on this machine", said)
                self.assertNotIn("cannot be pulled", said)

    def test_what_cannot_run_is_refused_at_once(self):
        said = self.refused("no-image", "true", image="no/such-image:1")
        self.assertIn("no/such-image:1", said)
        self.assertIn("not on this machine", said)
        said = self.refused("no-command", transform={"cmd": ["frobnicate"]})
        self.assertIn("frobnicate", said)
        image = self.engine.load_image("qanat-test/arm:1", {"/bin/sh": (read("/bin/busybox"), 0o755)}, "arm64")
        said = self.refused("arm", "true", image=image)
        self.assertIn("arm64", said)
        self.assertIn("amd64", said)

    def test_program_of_another_architecture_says_so(self):
        image = self.engine.import_image("qanat-test/liar:1", {"/bin/tool": (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(200), 0o755)})
        with self.pipeline("liar", image=image, transform={"cmd": ["/bin/tool"]}, datum_tries=1) as job:
            self.assertEqual(job["state"], "FAILURE")
            self.assertIn("architecture", job["reason"])

    # -- limits and networks -------------------------------------------------
    def test_memory_limit_is_named(self):
        hog = "tail /dev/zero >/pfs/out/a"
        with self.pipeline("hog", hog, resource_limits={"memory": "48Mi"}, datum_tries=1) as job:
            self.assertEqual(job["state"], "FAILURE", job)
            self.assertIn("resource_limits.memory", job["reason"])
            self.assertIn("48", job["reason"])

    def test_a_memory_kill_that_the_command_hides_is_a_failure(self):
        hog = "tail /dev/zero >/dev/null 2>&1 || true; echo fine >/pfs/out/a"
        for name, more in (("hides", {}), ("accepts", {"transform": {"accept_return_code": [137]}})):
            with self.pipeline(name, hog, resource_limits={"memory": "48Mi"}, datum_tries=2, **more) as job:
                self.assertEqual(job["state"], "FAILURE", job)
                self.assertIn("resource_limits.memory", job["reason"])
                self.assertEqual([d["attempts"] for d in self.datums(name, job)], [2])

    def test_process_limit_is_named(self):
        bomb = "i=0; while [ $i -lt 60 ]; do sleep 20 & i=$((i+1)); done; echo all >/pfs/out/a"
        with self.pipeline("bomb", bomb, resource_limits={"pids": 24}, datum_tries=1) as job:
            self.assertEqual(job["state"], "FAILURE", job)
            self.assertIn("resource_limits.pids", job["reason"])

    def test_network_is_none_unless_asked_for(self):
        script = f"dial 127.0.0.1 {self.server.port} >/pfs/out/a"
        for name, command in (("offline", script), ("outside", "dial 192.0.2.1 80")):
            with self.pipeline(name, command, image=self.tools(), datum_tries=1) as job:
                self.assertEqual(job["state"], "FAILURE", job)
                self.assertIn("transform.network", json.dumps([job, self.datums(name, job)]))
        with self.pipeline("online", script, image=self.tools(), transform={"network": "host"}) as job:
            self.succeeds(job)
            self.assertIn("200 OK", self.output("online", "/a"))

    def test_host_network_needs_its_scope(self):
        make = lambda name, *scopes: self.api("POST", "/tokens", {"name": name, "scopes": list(scopes)})["token"]
        spec = self.spec("hosted", "true", transform={"network": "host"})
        without = make("no-network", "operator:*", "writer:*")
        answer = self.api("POST", "/projects/default/pipelines", spec, token=without, expect=403)
        self.assertIn("network-host", json.dumps(answer))
        self.api("GET", "/projects/default/pipelines/hosted", expect=404)
        with_it = make("with-network", "operator:*", "writer:*", "network-host")
        self.api("POST", "/projects/default/pipelines", spec, token=with_it)
        self.server.run("delete", "pipeline", "hosted")

    # -- lives of workers ----------------------------------------------------
    def test_leftovers_of_a_datum_are_killed(self):
        self.server.qanat("create", "repo", "two")
        self.server.put("two", "/a", "1")
        self.server.put("two", "/b", "2")
        script = """n=$(ps -o comm,args | grep -c '[s]leep 1000' || true)
(setsid sleep 1000 &) ; nohup sleep 1000 >/dev/null 2>&1 & echo junk >/tmp/left-by-datum
f=$(ls /pfs/in); echo "$n $(ls /pfs/in)" >/pfs/out/$f"""
        clean = """f=$(ls /pfs/in); for d in /tmp /var/tmp /dev/shm; do ls -A $d 2>/dev/null || true; done >/pfs/out/$f
for d in /tmp /var/tmp /dev/shm; do if test -w $d; then echo junk >$d/left; mkdir -p $d/a/b; ln -s /pfs $d/link; fi; done"""
        for name, user in (("clean", None), ("clean-user", "1234")):
            with self.pipeline(name, clean, repo="two", transform={"user": user} if user else {}) as job:
                self.succeeds(job)
                self.assertEqual(self.output(name, "/a") + self.output(name, "/b"), "", f"as user {user}")
        with self.pipeline("leftovers", script, repo="two") as job:
            self.succeeds(job)
            self.assertEqual(self.output("leftovers", "/a") + self.output("leftovers", "/b"), "0 a\n0 b\n")

    def test_a_dead_worker_is_replaced(self):
        self.server.qanat("create", "repo", "replaced")
        self.server.put("replaced", "/a", "1")
        with self.pipeline("mortal", "cp /pfs/in/* /pfs/out/", repo="replaced") as job:
            self.succeeds(job)
            for round in range(2):
                before = wait_until(lambda: self.workers("mortal"), "a worker")
                self.engine.docker("kill", before[0])
                wait_until(lambda: [w for w in self.workers("mortal") if w not in before], f"another worker, round {round}", 60)
            self.server.put("replaced", "/b", "2")
            self.server.qanat("wait", "commit", "replaced@master")
            self.assertEqual(self.server.tree("mortal"), {"/a": "1", "/b": "2"})

    def test_a_container_that_a_datum_breaks_is_replaced(self):
        self.server.qanat("create", "repo", "breaks")
        for name in "abcd":
            self.server.put("breaks", "/" + name, name)
        with self.pipeline("breaker", "if [ -e /pfs/in/b ]; then rm /bin/sh; fi; cp /pfs/in/* /pfs/out/", repo="breaks") as job:
            self.succeeds(job)
            self.assertEqual(self.server.tree("breaker"), {"/" + name: name for name in "abcd"})

    def test_restarts_leave_a_running_datum_alone(self):
        with self.pipeline("long", "echo begun; cat /proc/sys/kernel/random/uuid >/pfs/out/once; sleep 12; echo over", wait=False):
            wait_until(lambda: (self.newest("long") or {}).get("datums", {}).get("running"), "the datum runs", 60)
            workers = self.workers("long")
            self.server.stop()
            self.server.start()
            self.server.stop(kill=True)
            self.server.start()
            job = self.ended("long")
            self.succeeds(job)
            self.assertEqual(job.get("restarts", 0), 0)
            self.assertEqual([d["attempts"] for d in self.datums("long", job)], [1])
            self.assertEqual(self.workers("long"), workers)
            log = self.server.qanat("logs", "-p", "long")
            self.assertEqual((log.count("begun"), log.count("over")), (1, 1), log)

    # -- hostile user code ---------------------------------------------------
    def test_user_code_finds_nothing(self):
        self.server.qanat("create", "repo", "others")
        self.server.put("others", "/a", "secret-of-a\n")
        self.server.put("others", "/b", "secret-of-b\n")
        job_of_hello = json.dumps({"credential": "guess", "protocol": 1, "arch": "amd64"})
        script = f"""set +e
me=$(ls /pfs/in)
exec >/pfs/out/$me 2>&1
echo "environ: $(cat /proc/1/environ | tr '\\0' ' ')"
echo "mem: $(dd if=/proc/1/mem bs=1 count=16 skip=4194304 2>&1 | tail -n 1)"
echo "maps: $(cat /proc/1/maps | wc -l)"
echo "fds: $(readlink /proc/1/fd/* 2>/dev/null | wc -l)"
echo "root: $(ls /proc/1/root/qanat 2>/dev/null | wc -l)"
echo "worker: $(echo x >>/qanat/bin/qanat-worker; rm -f /qanat/run/worker.sock /qanat/bin/qanat-worker; ls /qanat/run)"
echo "qanat: $(find /qanat -type f | sort | tr '\\n' ' ')"
echo "other: $(grep -rl "secret-of-[^$me]" /pfs /tmp /qanat /var /run /dev/shm 2>/dev/null | wc -l)"
echo "data: $(ls -d '{self.server.data}' 2>/dev/null)"
echo "tcp: $(dial 127.0.0.1 {self.server.port} 2>/dev/null)"
echo "bare: $(knock /qanat/run/worker.sock POST /worker/v1/lease '{{}}')"
echo "api: $(knock /qanat/run/worker.sock GET /api/v1/whoami)"
echo "health: $(knock /qanat/run/worker.sock GET /api/v1/projects/default/repos)"
echo "hello: $(knock /qanat/run/worker.sock POST /worker/v1/hello '{job_of_hello}')"
kill -9 1; kill -TERM 1; kill -STOP 1
mount -t tmpfs none /mnt 2>/dev/null && echo "mounted"
mknod /tmp/disk b 8 0 2>/dev/null && echo "made a device"
true"""
        with self.pipeline("burglar", script, image=self.tools(), repo="others") as job:
            self.succeeds(job)
            for name in "ab":
                said = self.output("burglar", f"/{name}")
                found = dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in said.splitlines())
                self.assertNotIn("QANAT", found["environ"], said)
                self.assertNotRegex(said, r"QANAT_WORKER_CREDENTIAL=\S+")
                self.assertIn("denied", found["mem"] + said, said)
                self.assertEqual((found["maps"], found["fds"], found["root"]), ("0", "0", "0"), said)
                self.assertEqual(found["qanat"].split(), ["/qanat/bin/qanat-worker"], said)
                self.assertEqual(found["worker"], "worker.sock", said)
                self.assertEqual((found["data"], found["tcp"]), ("", ""), said)
                self.assertRegex(found["bare"], " 40[13] ", said)
                self.assertRegex(found["api"], " 40[13] ", said)
                self.assertRegex(found["health"], " 40[13] ", said)
                self.assertRegex(found["hello"], " 40[013] ", said)
                self.assertNotIn("mounted", said)
                self.assertNotIn("made a device", said)
                self.assertEqual(found["other"], "0", said)


class EnginesTest(unittest.TestCase):
    """Which engine is used, and what is said when none can be."""

    SPEC = json.dumps({"pipeline": {"name": "p"}, "transform": {"image": "qanat-test/own:1", "cmd": ["sh", "-c", "cp /pfs/in/* /pfs/out/"]},
                       "input": {"pfs": {"repo": "in", "glob": "/*"}}})

    def test_engines_that_cannot_be_used(self):
        for host, says in (("tcp://192.0.2.1:2375", "another machine"), ("unix:///nowhere/sock", "/nowhere/sock")):
            with self.subTest(host), Server(runner="docker", environment={"DOCKER_HOST": host}) as server:
                server.qanat("create", "repo", "in")
                said = server.fails("create", "pipeline", "-f", "-", input=self.SPEC)
                self.assertIn(says, said)
                self.assertIn("DOCKER_HOST", said)
                # What needs no container goes on.
                server.put("in", "/a", "1")
                self.assertEqual(server.tree("in"), {"/a": "1"})

    def test_an_engine_of_ones_own(self):
        # With none named, Qanat finds or starts one, and says how to bring an image into it.
        with Server(runner="docker", environment={"DOCKER_HOST": ""}) as server:
            server.qanat("create", "repo", "in")
            server.put("in", "/a", "1")
            said = server.fails("create", "pipeline", "-f", "-", input=self.SPEC)
            self.assertIn("qanat-test/own:1", said)
            socket = re.search(r"DOCKER_HOST=(unix://\S+) docker import", said)[1]
            layer = containers.Engine.layer({"/bin/busybox": (read("/bin/busybox"), 0o755)}, {"/bin/sh": "busybox", "/bin/cp": "busybox"})
            docker = lambda *arguments, **options: subprocess.run(["docker", "-H", socket, *arguments], capture_output=True, check=True, **options).stdout.decode()
            docker("import", "--change=ENV PATH=/bin", "-", "qanat-test/own:1", input=layer)
            server.create_pipeline(self.SPEC)
            server.qanat("wait", "commit", "p@master")
            self.assertEqual(server.tree("p"), {"/a": "1"})
            before = docker("ps", "-q", "--filter", "label=qanat.pipeline=p")
            self.assertTrue(before.strip())
            server.stop()
            server.start()
            server.put("in", "/b", "2")
            server.qanat("wait", "commit", "in@master")
            self.assertEqual(server.tree("p"), {"/a": "1", "/b": "2"})
            self.assertEqual(docker("ps", "-q", "--filter", "label=qanat.pipeline=p"), before, "the engine and its worker are found again")
            server.qanat("delete", "pipeline", "p")
            wait_until(lambda: not docker("ps", "-q", "--filter", "label=qanat.pipeline=p").strip(), "its workers end")


if __name__ == "__main__":
    unittest.main()
