"""Who runs a run: a living owner is never taken for gone, and one of elsewhere is never judged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ichigo.tracking.owners import Owner

WHO = "from ichigo.tracking.owners import Owner; print(Owner.this(), flush=True)"


@pytest.fixture
def me() -> Owner:
    owner = Owner.this()
    assert owner is not None
    return owner


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], Owner]]:
    """A process that waits, and the owner that it says it is."""
    command = [sys.executable, "-c", f"{WHO}; input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        owner = Owner.parse(process.stdout.readline().rstrip("\n"))
        assert owner is not None
        yield process, owner
        process.kill()


def test_a_living_process_is_not_gone_and_a_killed_one_is_even_before_it_is_waited_for(
    child: tuple[subprocess.Popen[str], Owner],
) -> None:
    process, owner = child
    assert owner.pid == process.pid
    assert not owner.is_gone(time.time())
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but a zombie still
    assert owner.is_gone(time.time())
    process.wait()
    assert owner.is_gone(time.time())


def test_a_process_id_that_has_a_new_owner_is_not_taken_for_the_old_one(me: Owner) -> None:
    assert not me.is_gone(time.time())
    assert replace(me, started=me.started - 1).is_gone(time.time())


@pytest.mark.parametrize(
    "elsewhere",
    [{"host": "other"}, {"machine": "other"}, {"namespace": 1}, {"user": 12345}, {"boot": "b", "machine": "-"}],
)
def test_nobody_of_elsewhere_is_judged(me: Owner, elsewhere: dict[str, object]) -> None:
    owner = replace(me, pid=2**30, started=1)  # no such process here
    assert owner.is_gone(time.time())
    assert not replace(owner, **elsewhere).is_gone(time.time())  # type: ignore[arg-type]


def test_a_start_of_the_machine_ends_every_process_that_began_before(me: Owner) -> None:
    """Unless it began after that start: then it is of another machine made from the same disk image."""
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    before = replace(me, boot="before")
    assert before.is_gone(began=boot - 60)
    assert not before.is_gone(began=boot + 60)


@pytest.mark.parametrize("text", ["", "host", "a b c d e f g", "a b c 1 2 3", "a b c 1 2 3 4 5"])
def test_another_text_names_nobody(text: str) -> None:
    assert Owner.parse(text) is None


def test_an_owner_is_read_back(me: Owner) -> None:
    assert Owner.parse(str(me)) == me
