#!/usr/bin/env python3
"""What only a whole host shows: the systemd unit, systemd's slices, cgroup v2 and its figures.

Boots a virtual host (systemd, cgroup v2 alone, containerd, no dockerd), installs the programs and the
unit as they are shipped, and checks the agent there against `ecsd local`'s control plane. Each check
prints what was seen; the first that fails ends the run with code 1 and the end of the agent's log.
Arguments: the parts to check (slices, statistics, out_of_memory, unit_lives); none is all of them.
How to run it: docs/testing.md.

    ECSD_LAB_KIT   directory with boot.sh, qmp.py, attach-dir.py and guest.py
    ECSD_LAB_BIN   directory with ecsd and ecsd-logger
    LAB            where the kit keeps images and virtual hosts
    ECSD_LAB_VM    name of the virtual host (default ecsd)
    ECSD_LAB_KEEP  1 leaves it running, to look at what failed
    ECSD_LAB_FIXTURES  directory to write the kernel's files to that the figures were checked against
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KIT = Path(os.environ.get("ECSD_LAB_KIT") or sys.exit("set ECSD_LAB_KIT: docs/testing.md"))
BIN = Path(os.environ.get("ECSD_LAB_BIN") or sys.exit("set ECSD_LAB_BIN: docs/testing.md"))
VM = os.environ.get("ECSD_LAB_VM", "ecsd")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(KIT))
from guest import QGA  # noqa: E402

PORT = 8000
PATIENCE = 180  # seconds; an emulated host is slow, and this is a limit, never a measure
WATCHDOG_S = 30  # the agent's start on an emulated processor must fit in
IMAGE = "ecsd.local/hello:latest"
PIDS = 200
CONFIG = {
    "ECS_BACKEND_HOST": f"http://127.0.0.1:{PORT}",
    "ECS_CLUSTER": "local",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "AKIDLAB",
    "AWS_SECRET_ACCESS_KEY": "lab-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "ECS_LOGLEVEL": "debug",
    "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "3s",
    "ECS_TASK_PIDS_LIMIT": str(PIDS),
}


class Failed(Exception):
    """A check that did not hold."""


def check(what, holds, seen=""):
    print(f"{'ok  ' if holds else 'FAIL'} {what}{': ' + str(seen) if seen != '' else ''}", flush=True)
    if not holds:
        raise Failed(what)


def until(what, probe, patience=PATIENCE):
    """The probe's first true answer."""
    end = time.monotonic() + patience
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            check(what, False, f"not within {patience} s")
        time.sleep(0.3)


class Host:
    """The virtual host."""

    def __init__(self):
        self.qga = QGA(VM)

    def run(self, line, stdin=None):
        """Standard output of a shell line that must succeed."""
        code, out, err = self.qga.run(["/bin/bash", "-c", line], stdin=stdin)
        if code:
            raise Failed(f"{line!r} on the host: exit {code}: {out.decode()}{err.decode()}")
        return out.decode()

    def read(self, path):
        return self.run(f"cat {path}").strip()

    def exists(self, path):
        return self.run(f"test -e '{path}' && echo yes || true").strip() == "yes"

    def unit(self, *names, unit="ecs.service"):
        text = self.run(f"systemctl show -p {','.join(names)} '{unit}'")
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def http(self, request):
        """One exchange with the control plane; bash, since the host has no curl."""
        answer = self.run(f"exec 3<>/dev/tcp/127.0.0.1/{PORT}; cat >&3; cat <&3", stdin=request)
        head, _, body = answer.partition("\r\n\r\n")
        if "transfer-encoding: chunked" in head.lower():
            raise Failed(f"chunked answer: {head}")
        return head, body

    def api(self, operation, **parameters):
        body = json.dumps(parameters)
        request = (
            f"POST / HTTP/1.1\r\nhost: 127.0.0.1:{PORT}\r\nconnection: close\r\n"
            f"x-amz-target: AmazonEC2ContainerServiceV20141113.{operation}\r\n"
            f"content-type: application/x-amz-json-1.1\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        )
        head, answer = self.http(request.encode())
        if " 200 " not in head.splitlines()[0]:
            raise Failed(f"{operation}: {head} {answer}")
        return json.loads(answer)


class Task:
    """A task of one bridge container, `c`; with a neighbour `n` that only ends by SIGKILL where asked."""

    def __init__(self, host, family, script, cpu=None, memory=None, container_memory=None, neighbour=False):
        self.host = host
        container = {"name": "c", "image": IMAGE, "essential": True, "entryPoint": ["sh", "-c"],
                     "command": [script], "stopTimeout": 2}
        if container_memory:
            container["memory"] = container_memory
        definition = {"family": family, "networkMode": "bridge", "containerDefinitions": [container]}
        if neighbour:
            beside = {"name": "n", "command": ["exec sleep 100000"], "essential": False, "memory": 32}
            definition["containerDefinitions"].append({**container, **beside})
            container["dependsOn"] = [{"containerName": "n", "condition": "START"}]
        if cpu:
            definition["cpu"] = str(cpu)
        if memory:
            definition["memory"] = str(memory)
        host.api("RegisterTaskDefinition", **definition)
        answer = host.api("RunTask", cluster="local", taskDefinition=family)
        if not answer["tasks"]:
            raise Failed(f"{family} was not placed: {answer}")
        self.arn = answer["tasks"][0]["taskArn"]
        self.id = self.arn.rsplit("/", 1)[1]
        self.slice = f"ecstasks-{self.id}.slice"
        self.directory = f"/sys/fs/cgroup/ecstasks.slice/{self.slice}"

    def describe(self):
        return self.host.api("DescribeTasks", cluster="local", tasks=[self.arn])["tasks"][0]

    def until(self, status):
        def there():
            task = self.describe()
            if status == "RUNNING" and task["lastStatus"] == "STOPPED":
                check(f"the task gets {status}", False, json.dumps(task))
            return task if task["lastStatus"] == status else None
        return until(f"the task gets {status}", there)

    def scope(self):
        """Directory of the container's cgroup, and the process that runs in it first."""
        scope = self.host.run(f"ls -d {self.directory}/*.scope").strip()
        return scope, int(self.host.read(f"{scope}/cgroup.procs").split()[0])

    def stop(self):
        self.host.api("StopTask", cluster="local", task=self.arn)
        self.until("STOPPED")

    def gone(self):
        until("the task's slice is gone", lambda: not self.host.exists(self.directory))
        state = self.host.unit("LoadState", "ActiveState", unit=self.slice)
        check("after clean-up the slice is gone, as directory and as unit", state["ActiveState"] == "inactive", state)


def boot():
    """Boots a fresh host."""
    booted = subprocess.run([KIT / "boot.sh", VM], capture_output=True, text=True)
    print(booted.stdout, end="", flush=True)
    if booted.returncode:
        sys.exit(f"the virtual host {VM} did not boot: {booted.stderr}")
    return Host()


def install(host):
    """The programs, and systemd's files, where a package would put them."""
    # Kept apart from the image: the kit hot-adds a directory as a disk.
    with tempfile.TemporaryDirectory() as share:
        for file in [BIN / "ecsd", BIN / "ecsd-logger", *(REPOSITORY / "systemd").iterdir()]:
            shutil.copy2(file, share)
        subprocess.run([sys.executable, KIT / "attach-dir.py", VM, "programs", share, "eni3"], check=True)
    host.run("""
        for try in {1..100}; do
          for disk in /sys/block/vd*; do
            [ "$(cat $disk/serial 2>/dev/null)" = programs ] && found=/dev/${disk##*/}
          done
          [ -n "$found" ] && break; sleep .1
        done
        mkdir -p /mnt/programs && mount -o ro $found /mnt/programs
        install /mnt/programs/ecsd /mnt/programs/ecsd-logger /usr/bin/
        install -D -m 644 /mnt/programs/ecs.service /usr/lib/systemd/system/ecs.service
        install -D -m 644 /mnt/programs/90-ecs.conf /usr/lib/sysctl.d/90-ecs.conf
        install -D -m 644 /mnt/programs/ecs.tmpfiles.conf /usr/lib/tmpfiles.d/ecs.conf
        umount /mnt/programs
        systemd-tmpfiles --create ecs.conf
        sysctl -q -p /usr/lib/sysctl.d/90-ecs.conf
        modprobe br_netfilter; systemctl daemon-reload
        systemd-analyze verify /usr/lib/systemd/system/ecs.service
    """)
    subprocess.run([sys.executable, KIT / "attach-dir.py", VM, "programs", "--detach"], check=True)


def configure(host, **changes):
    lines = "".join(f"{name}={value}\n" for name, value in {**CONFIG, **changes}.items())
    host.run("cat >/etc/ecs/ecs.config", stdin=lines.encode())


def control_plane(host):
    """`ecsd local up`, whose agent is the one of systemd.

    It starts an agent by its own program's path. In a mount namespace of its own that path is covered,
    after the program itself was opened, by one which starts the unit instead: so the control plane is
    the real one, and the agent the one that is tested.
    """
    host.run("""
        mkdir -p /opt/ecsd-lab && cp /usr/bin/ecsd /opt/ecsd-lab/ecsd
        cat >/opt/ecsd-lab/agent <<'END'
#!/bin/sh
systemctl start ecs && exec sleep infinity
END
        chmod 755 /opt/ecsd-lab/agent
        cat >/opt/ecsd-lab/start <<'END'
#!/bin/sh
exec 9</opt/ecsd-lab/ecsd
mount --bind /opt/ecsd-lab/agent /opt/ecsd-lab/ecsd
exec /proc/self/fd/9 local up --namespace ecs --port PORT
END
        sed -i s/PORT/%d/ /opt/ecsd-lab/start; chmod 755 /opt/ecsd-lab/start
        systemd-run --quiet --unit ecsd-lab --collect unshare --mount --propagation private /opt/ecsd-lab/start
    """ % PORT)


def unit_starts(host):
    print("--- the unit")
    def registered():
        shown = host.unit("ActiveState", "SubState", "StatusText", "NotifyAccess", "WatchdogUSec", "MainPID")
        return shown if shown["StatusText"].startswith("registered") else None
    shown = until("the agent registers", registered)
    check("the unit runs and tells its state", shown["ActiveState"] == "active" and shown["SubState"] == "running", shown)
    check("READY came with the status of a registered agent", shown["StatusText"] == "registered with cluster local")
    check("notify access and watchdog are as shipped", shown["NotifyAccess"] == "main" and shown["WatchdogUSec"] == "3min")
    connected(host)


def connected(host):
    def there():
        arns = host.api("ListContainerInstances", cluster="local")["containerInstanceArns"]
        found = host.api("DescribeContainerInstances", cluster="local", containerInstances=arns)["containerInstances"] if arns else []
        return [i for i in found if i["agentConnected"]]
    until("the agent is connected", there)


def slices(host):
    print("--- systemd's slices")
    task = Task(host, "limited", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done", cpu=512, memory=96)
    task.until("RUNNING")
    shown = host.unit("ActiveState", "Slice", "CPUQuotaPerSecUSec", "MemoryMax", "TasksMax", "Description", unit=task.slice)
    check("the task has a slice below ecstasks.slice", shown["ActiveState"] == "active" and shown["Slice"] == "ecstasks.slice", shown)
    files = {name: host.read(f"{task.directory}/{name}") for name in ("cpu.max", "memory.max", "pids.max")}
    check("its limits are the kernel's", files == {"cpu.max": "50000 100000", "memory.max": str(96 << 20), "pids.max": str(PIDS)}, files)
    scope, pid = task.scope()
    check("the container is a scope in it", host.read(f"/proc/{pid}/cgroup") == "0::" + scope.removeprefix("/sys/fs/cgroup"), scope)
    task.stop()
    task.gone()

    # Tasks without a size of their own weigh what their containers do.
    task = Task(host, "weighed", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done", container_memory=32)
    task.until("RUNNING")
    files = {name: host.read(f"{task.directory}/{name}") for name in ("cpu.max", "cpu.weight", "memory.max")}
    check("a task without limits has a weight", files == {"cpu.max": "max 100000", "cpu.weight": "1", "memory.max": "max"}, files)
    scope, _ = task.scope()
    check("its container has its own limit", host.read(f"{scope}/memory.max") == str(32 << 20))
    task.stop()
    task.gone()


WORK = """i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done
dd if=/dev/zero of=/dev/shm/held bs=1M count=40 2>/dev/null
dd if=/dev/zero of=/written bs=64k count=128 conv=fsync 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do wget -qO /dev/null $ECS_CONTAINER_METADATA_URI_V4/task; done
exec sleep 100000"""


def near(what, told, kernel):
    check(f"{what} is what the kernel counts, within 1 %", abs(told - kernel) <= kernel / 100, f"{told} told, {kernel} counted")


def keyed(text):
    return {k: int(v) for k, v in (line.split() for line in text.splitlines())}


def statistics(host):
    print("--- figures of cgroup v2")
    task = Task(host, "worker", WORK, memory=128)
    task.until("RUNNING")
    scope, pid = task.scope()
    until("the work is done", lambda: host.run(f"tr '\\0' ' ' </proc/{pid}/cmdline").startswith("sleep"))
    environment = dict(e.split("=", 1) for e in host.run(f"tr '\\0' '\\n' </proc/{pid}/environ").splitlines())
    uri = environment["ECS_CONTAINER_METADATA_URI_V4"].replace("169.254.170.2", "127.0.0.1:51679")

    def told():
        return json.loads(host.run(f"busybox wget -qO- {uri}/stats"))

    def kernel():
        text = host.run(f"for f in cpu.stat memory.current memory.max memory.stat io.stat pids.current pids.max; do echo \"== $f\"; cat {scope}/$f; done; "
                        f"echo '== net'; cat /proc/{pid}/net/dev")
        return {name: body for name, body in re.findall(r"== (\S+)\n(.*?)(?=\n== |\Z)", text, re.S)}

    def settled():
        """A sample that was taken while the counters stood still."""
        before, stats, after = kernel(), told(), kernel()
        same = all(before[n] == after[n] for n in ("cpu.stat", "io.stat", "net", "memory.current"))
        return (stats, after) if same and stats.get("read", "") else None
    host.run("sleep 3")  # longer than between two samples
    stats, files = until("the container is idle", settled)
    fixtures = os.environ.get("ECSD_LAB_FIXTURES")
    if fixtures:
        Path(fixtures).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            if name == "net":
                continue
            (Path(fixtures) / name).write_text(text.rstrip("\n") + "\n")
    cpu = keyed(files["cpu.stat"])
    near("CPU time", stats["cpu_stats"]["cpu_usage"]["total_usage"], cpu["usage_usec"] * 1000)
    near("user time", stats["cpu_stats"]["cpu_usage"]["usage_in_usermode"], cpu["user_usec"] * 1000)
    near("kernel time", stats["cpu_stats"]["cpu_usage"]["usage_in_kernelmode"], cpu["system_usec"] * 1000)
    near("memory", stats["memory_stats"]["usage"], int(files["memory.current"]))
    near("active_file", stats["memory_stats"]["stats"]["active_file"], keyed(files["memory.stat"])["active_file"])
    check("processes are counted", stats["pids_stats"]["current"] == int(files["pids.current"]), stats["pids_stats"])
    written = sum(int(n) for n in re.findall(r"wbytes=(\d+)", files["io.stat"]))
    check("the kernel saw the 8 MiB that were written", written >= 8 << 20, written)
    entries = stats["blkio_stats"]["io_service_bytes_recursive"]
    near("bytes written", sum(e["value"] for e in entries if e["op"].lower() == "write"), written)
    line = next(line for line in files["net"].splitlines() if line.strip().startswith("eth0:"))
    counts = [int(n) for n in line.split(":")[1].split()]
    (link,) = stats["networks"].values()
    near("bytes received", link["rx_bytes"], counts[0])
    near("bytes sent", link["tx_bytes"], counts[8])
    near("packets received", link["rx_packets"], counts[1])

    def published():
        rows = json.loads(host.run("ecsd local stats --json"))
        return [r for r in rows if r["taskArn"] == task.arn and (r["memoryMiB"] or 0) > 30]
    (row,) = until("telemetry of the task is published", published)
    check("telemetry names the container", row["container"] == "c", row)
    # MiB, rounded down as the original does; what is reclaimable is no use.
    used = (int(files["memory.current"]) - keyed(files["memory.stat"])["inactive_file"]) / (1 << 20)
    check("telemetry tells the memory in use", abs(row["memoryMiB"] - used) <= 1 + used / 100, f"{row['memoryMiB']} told, {used:.2f} counted")
    task.stop()
    task.gone()


def out_of_memory(host):
    print("--- out of memory")
    hog = "dd if=/dev/zero of=/dev/null bs=200M count=1"
    for family, script, limits in [
        ("first process, container's limit", f"exec {hog}", {"container_memory": 32, "neighbour": True}),
        ("a child, container's limit", f"{hog}; exit 9", {"container_memory": 32}),
        ("first process, task's limit", f"exec {hog}", {"memory": 32}),
    ]:
        task = Task(host, re.sub(r"\W+", "-", family), script, **limits)
        containers = {c["name"]: c for c in task.until("STOPPED")["containers"]}
        container, neighbour = containers["c"], containers.get("n")
        reason = container.get("reason", "")
        check(f"killed for memory ({family})", reason.startswith("OutOfMemoryError"), f"exit {container.get('exitCode')}, {reason!r}")
        if neighbour:
            blamed = neighbour.get("reason", "").startswith("OutOfMemoryError")
            check("a neighbour killed at its stop is not", neighbour["exitCode"] == 137 and not blamed, neighbour)
        task.gone()


def stop_and_start(host):
    print("--- stop and start of the unit")
    task = Task(host, "survivor", "exec sleep 100000", memory=64)
    task.until("RUNNING")
    _, pid = task.scope()
    host.run("systemctl stop ecs")
    shown = host.unit("ActiveState", "Result", "ExecMainStatus")
    check("the unit stops cleanly", shown["ActiveState"] == "inactive" and shown["Result"] == "success", shown)
    check("the container runs on", host.exists(f"/proc/{pid}") and task.scope()[1] == pid, f"process {pid}")
    host.run("systemctl start ecs")
    connected(host)
    check("the same container runs on", task.scope()[1] == pid)
    check("the agent took the task over", knows(host, task))
    return task, pid


def knows(host, task):
    """Whether the agent says that it runs this task."""
    said = json.loads(host.run("busybox wget -qO- http://127.0.0.1:51678/v1/tasks"))
    return [t["KnownStatus"] for t in said["Tasks"] if t["Arn"] == task.arn] == ["RUNNING"]


def unit_lives(host):
    task, pid = stop_and_start(host)
    watchdog(host, task, pid)
    final_exit(host, task, pid)


def watchdog(host, task, pid):
    print("--- the watchdog")
    host.run(f"mkdir -p /run/systemd/system/ecs.service.d; printf '[Service]\\nWatchdogSec={WATCHDOG_S}s\\nRestartSec=1\\n' "
             ">/run/systemd/system/ecs.service.d/lab.conf; systemctl daemon-reload; systemctl restart ecs")
    connected(host)
    before = host.unit("MainPID", "NRestarts", "WatchdogUSec")
    host.run(f"sleep {2 * WATCHDOG_S + 5}")
    after = host.unit("MainPID", "NRestarts", "WatchdogUSec")
    check("the watchdog keeps quiet while the agent is well", before == after and after["WatchdogUSec"] == f"{WATCHDOG_S}s", after)
    host.run(f"kill -STOP {before['MainPID']}")

    def restarted():
        shown = host.unit("MainPID", "NRestarts", "StatusText")
        is_new = shown["NRestarts"] != before["NRestarts"] and shown["MainPID"] not in ("0", before["MainPID"])
        return shown if is_new and shown["StatusText"].startswith("registered") else None
    shown = until("systemd restarts an agent that hangs", restarted)
    journal = host.run("journalctl -u ecs --no-pager -o cat | grep -i watchdog | tail -3")
    check("systemd restarts an agent that hangs", "Watchdog timeout" in journal, f"{shown} {journal.splitlines()}")
    connected(host)
    check("the container lived through it", task.scope()[1] == pid and knows(host, task))


def final_exit(host, task, pid):
    print("--- the exit that is final")
    configure(host, ECS_CLUSTER="another")
    before = host.unit("NRestarts")["NRestarts"]
    host.run("systemctl restart ecs")
    def failed():
        shown = host.unit("ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts")
        return shown if shown["SubState"] == "failed" else None
    until("an agent of another cluster fails", failed)
    host.run("sleep 5")  # longer than RestartSec here
    shown = failed() or host.unit("ActiveState", "NRestarts")
    check("exit 5 is final", shown.get("ExecMainStatus") == "5" and shown["NRestarts"] in ("0", before), shown)
    check("the container runs on", task.scope()[1] == pid)
    configure(host)
    host.run("systemctl reset-failed ecs; systemctl start ecs")
    connected(host)
    task.stop()
    task.gone()


PARTS = [slices, statistics, out_of_memory, unit_lives]


def main():
    wanted = sys.argv[1:]
    if unknown := set(wanted) - {part.__name__ for part in PARTS}:
        sys.exit(f"{', '.join(unknown)}: the parts are {', '.join(part.__name__ for part in PARTS)}")
    host = boot()
    try:
        install(host)
        configure(host)
        control_plane(host)
        unit_starts(host)
        for part in PARTS:
            if not wanted or part.__name__ in wanted:
                part(host)
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        print(host.run("systemctl status ecs --no-pager -n 0; journalctl -u ecs -u ecsd-lab --no-pager -o cat | tail -20; "
                       "tail -30 /var/log/ecs/ecs-agent.log* 2>/dev/null; true"), file=sys.stderr)
        return 1
    finally:
        if os.environ.get("ECSD_LAB_KEEP") != "1":
            subprocess.run([sys.executable, KIT / "qmp.py", VM, "quit"], check=False)
    print("all checks hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
