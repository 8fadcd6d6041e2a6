"""CPUs that a process has, and the commands that it starts."""

import os
import signal
import subprocess
import sys

import pytest

from mmdet_stable.utils import own_cpus
from mmdet_stable.utils.children import INTERRUPTED
from tests.utils import ROOT


@pytest.mark.parametrize('allowed,local,expected', [(8, None, 8), (8, '1', 8), (8, '4', 2), (2, '8', 1)])
def test_cpus_are_shared_among_the_processes_of_a_machine(allowed, local, expected, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(allowed)), raising=False)
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    if local:
        monkeypatch.setenv('LOCAL_WORLD_SIZE', local)
    assert own_cpus() == expected


def test_where_there_is_no_affinity(monkeypatch):
    monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 6)
    assert own_cpus() == 6


# Signals as in a terminal: where tests run in the background of a script, or by nohup, some are ignored.
CALLING = """
import runpy
import signal
import sys

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
call, stoppable = map(runpy.run_path('mmdet_stable/utils/children.py').get, ('call', 'stoppable'))
child = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'
try:
    with stoppable():
        call([sys.executable, '-c', child])
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_child_ends_with_its_parent(number):
    parent = subprocess.Popen([sys.executable, '-c', CALLING], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.send_signal(number)
    assert parent.wait(timeout=900) == INTERRUPTED
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_what_is_ignored_stays_ignored():
    """As with nohup."""
    code = (
        'import os, runpy, signal\n'
        'with runpy.run_path("mmdet_stable/utils/children.py")["stoppable"]():\n'
        '    os.kill(os.getpid(), signal.SIGHUP); print("goes on")'
    )
    command = ['sh', '-c', 'trap "" HUP; exec "$@"', 'sh', sys.executable, '-c', code]
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout == 'goes on\n'
