"""Programs that start as forks of processes with imports."""

import os
import signal
import tempfile
import time

import psutil
import pytest

from conformance import forks, process

LIMITS = process.Limits(seconds=30, memory=4 << 30)
PROGRAM = """
import json, os, sys, tempfile
job = json.loads(sys.stdin.readline())
with open(int(sys.argv[-1]), "w") as pipe:
    pipe.write(json.dumps({
        "job": job, "argv": sys.argv[0], "parent": os.getppid(),
        "session": os.getsid(0) == os.getpid(),
        "variable": os.environ.get("A_VARIABLE"), "folder": os.getcwd(),
        "temporary": tempfile.gettempdir(),
        "imported": [n for n in ("tensorflow", "mailbox") if n in sys.modules],
    }) + "\\n")
if job == "fail":
    sys.exit("the reason")
if job == "crash":
    os.abort()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(PROGRAM)
    return str(path)


def run(server, script, job, **kwargs):
    program = forks.Program(flags=("-I",), path=script, **kwargs)
    environment = {"A_VARIABLE": "7"}
    return list(
        process.messages(
            program, job, limits=LIMITS, server=server, environment=environment
        )
    )


def test_a_fork_is_like_a_new_process_with_imports_done(fork_server, script):
    imports = ("mailbox", "no_such_module")
    (fork,) = run(fork_server, script, [1], imports=imports)
    (again,) = run(fork_server, script, [2], imports=imports)
    temporary = fork.pop("temporary")
    assert temporary != again["temporary"]
    assert temporary != tempfile.gettempdir()
    assert not os.path.exists(temporary)
    assert fork == {
        "job": [1],
        "argv": script,
        "parent": again["parent"],
        "session": True,
        "variable": "7",
        "folder": os.getcwd(),
        "imported": ["tensorflow", "mailbox"],
    }
    (other,) = run(fork_server, script, 0)
    assert other["parent"] != fork["parent"]
    assert other["imported"] == ["tensorflow"]
    with pytest.raises(process.Stopped, match="status 1; its last output: the reason"):
        run(fork_server, script, "fail")
    with pytest.raises(process.Stopped, match="was killed by SIGABRT"):
        run(fork_server, script, "crash")


def test_without_forks_programs_start_as_new_processes(script, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    server = forks.Server()
    (new,) = run(server, script, [1])
    assert (new["parent"], new["imported"]) == (os.getpid(), [])
    with pytest.raises(process.Stopped, match="status 1; its last output: the reason"):
        run(server, script, "fail")
    server.stop()


def test_a_server_that_was_killed_is_replaced_by_new_processes(script):
    server = forks.Server()
    (fork,) = run(server, script, 1)
    for child in psutil.Process().children(recursive=True):
        if "forks.py" in " ".join(child.cmdline()) and child.pid in (
            server._root.pid,
            fork["parent"],
        ):
            child.send_signal(signal.SIGKILL)
    time.sleep(0.2)
    (new,) = run(server, script, 2)
    assert (new["job"], new["parent"]) == (2, os.getpid())
    server.stop()


def test_nothing_runs_after_a_server_was_stopped(script):
    with process.Slots(jobs=1, memory=1 << 30) as slots:
        (fork,) = run(slots.server, script, 1)
        root = psutil.Process(fork["parent"])
        assert root.is_running()
    psutil.wait_procs([root], timeout=10)
    assert not root.is_running() or root.status() == psutil.STATUS_ZOMBIE
