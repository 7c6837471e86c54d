"""Processes that send messages, hang, crash, or exceed their limits."""

import threading
import time
from concurrent import futures

import psutil
import pytest

from conformance import forks, process

MIB = 1 << 20
LIMITS = process.Limits(seconds=2, memory=300 * MIB)
TIME_LIMIT = ", the time limit; a slow or busy machine needs a longer one"
BEGIN = "import json, os, sys, time\nfd = int(sys.argv[-1])\n"
BEGIN += "job = json.loads(sys.stdin.readline())\n"
SAY = "os.write(fd, b'{\"said\": 1}\\n')\n"


class NewProcesses(forks.Server):
    """Starts new processes, whose memory has no imports."""

    def _fork(self, *_):
        raise OSError


def start(program, job=None, limits=LIMITS):
    return process.messages(
        forks.Program(flags=("-c",), path=BEGIN + program),
        job,
        limits=limits,
        server=NewProcesses(),
    )


def run(program):
    """Returns a program's messages, and why it was stopped if it was."""
    messages = []
    try:
        for message in start(program, {"a": [1, "×"]}):
            messages.append(message)
    except process.Stopped as stopped:
        messages.append(str(stopped))
    return messages


def test_messages_come_one_by_one():
    program = (
        "os.write(fd, json.dumps(job).encode() + b'\\n' + b'2'); os.write(fd, b'3\\n')"
    )
    assert run(program) == [{"a": [1, "×"]}, 23]


@pytest.mark.parametrize(
    ("program", "how"),
    [
        (
            "sys.exit('no\\nsuch thing')",
            "ended with status 1; its last output: such thing",
        ),
        ("os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
        (
            "os.kill(os.getpid(), 9)",
            "was killed by SIGKILL, possibly because the machine ran out of memory",
        ),
        ("time.sleep(60)", f"sent no message for 2 s{TIME_LIMIT}"),
        (
            "os.close(fd); time.sleep(60)",
            f"did not end within 2 s after its last message{TIME_LIMIT}",
        ),
        (
            "a = bytearray(400 << 20); time.sleep(60)",
            "used more than 0.3 GiB of memory",
        ),
        ("os.write(fd, b'no json\\n')", "wrote invalid JSON to the message pipe"),
        (
            "while True: os.write(1, (1 << 20) * b'\\n')",
            "printed more than 100 MiB",
        ),
        (
            "print('one'); print('    @     0x7f  (unknown)'); sys.exit(3)",
            "ended with status 3; its last output: one",
        ),
    ],
)
def test_how_a_program_was_stopped(program, how):
    assert run(SAY + program) == [{"said": 1}, how]


@pytest.mark.slow
def test_each_message_begins_the_time_anew():
    program = "for _ in range(4):\n    time.sleep(0.8)\n    " + SAY
    assert run(program) == [{"said": 1}] * 4


def test_children_of_a_program_end_with_it():
    program = (
        "import subprocess\n"
        "sleep = 'import time; time.sleep(99)'\n"
        "child = subprocess.Popen([sys.executable, '-c', sleep])\n"
        "os.write(fd, b'%d\\n' % child.pid); time.sleep(60)"
    )
    pid, how = run(program)
    assert how == f"sent no message for 2 s{TIME_LIMIT}"
    deadline = time.monotonic() + 5
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(pid)


def test_the_memory_of_children_counts():
    program = (
        "import subprocess\n"
        "subprocess.run([sys.executable, '-c',"
        " 'import time; a = bytearray(400 << 20); time.sleep(60)'])"
    )
    assert run(program) == ["used more than 0.3 GiB of memory"]


def test_closing_the_messages_ends_the_program():
    program = SAY + "os.write(fd, b'%d\\n' % os.getpid()); time.sleep(60)"
    messages = start(program)
    _, pid = next(messages), next(messages)
    messages.close()
    assert not _is_running(pid)


def _is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_cancelled_process_ends_at_once():
    """The exception is no `Stopped`, so it does not count as a failure of the model."""
    cancelled = threading.Event()
    limits = process.Limits(seconds=5, memory=1 << 30, cancelled=cancelled)
    threading.Timer(0.5, cancelled.set).start()
    with pytest.raises(process.Cancelled):
        list(start("time.sleep(60)", limits=limits))
    assert not issubclass(process.Cancelled, process.Stopped)


def test_no_more_processes_run_than_there_are_slots_and_memory():
    slots = process.Slots(jobs=2, memory=100)
    running, most = [], []

    def work(memory):
        with slots.claim(process.Limits(seconds=1, memory=memory)):
            running.append(memory)
            most.append(tuple(running))
            time.sleep(0.02)
            running.remove(memory)

    with futures.ThreadPoolExecutor(9) as pool:
        list(pool.map(work, [40, 60, 61, 40, 30, 30, 30, 300, 50]))
    assert len(most) == 9
    assert {len(memories) for memories in most} == {1, 2}
    assert all(sum(m) <= 100 for m in most if len(m) > 1)
    assert (300,) in most


def test_a_cancelled_process_does_not_wait_for_a_slot():
    cancelled = threading.Event()
    limits = process.Limits(seconds=5, memory=1, cancelled=cancelled)
    slots = process.Slots(jobs=1, memory=9)
    with slots.claim(limits):
        cancelled.set()
        with pytest.raises(process.Cancelled), slots.claim(limits):
            pass
