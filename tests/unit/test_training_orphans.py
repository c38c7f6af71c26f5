"""A process that starts while those above it are being killed: it must not outlive them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHILD = """
import sys
from ichigo.training.orphans import die_with
sys.stdin.readline()  # whoever is above it may die meanwhile
die_with(int(sys.argv[1]))
print("lives", flush=True)
"""
MIDDLE = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
print("started", flush=True)
child.wait()
"""
LAUNCHER = """
import os, subprocess, sys
from functools import partial
from ichigo.training.orphans import die_with
command = [sys.executable, "-c", sys.argv[1], sys.argv[2], str(os.getpid())]
subprocess.Popen(command, preexec_fn=partial(die_with, os.getpid())).wait()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_a_child_whose_launcher_was_killed_before_it_could_ask_ends_at_once(killed: bool) -> None:
    """Nobody has waited for the launcher: it is a zombie, which still answers to its number."""
    command = [sys.executable, "-c", LAUNCHER, MIDDLE, CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdin
        assert launcher.stdout
        assert launcher.stdout.readline() == "started\n"
        if killed:
            launcher.kill()
            os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not reaped
        launcher.stdin.write("go\n")
        launcher.stdin.close()
        assert launcher.stdout.read() == ("" if killed else "lives\n")
