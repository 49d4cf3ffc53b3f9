"""ports.process: whether the holder of a lock still runs."""

import os
import socket
import subprocess
import sys

import pytest

from overnight.ports.process import holder, is_alive

HOST = socket.gethostname()
SAY_HOLDER = "from overnight.ports.process import holder; print(holder(), flush=True); input()"


def test_a_process_knows_itself_alive() -> None:
    assert holder() == holder()
    assert is_alive(holder())


def test_another_process_is_alive_until_it_ends() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SAY_HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert name != holder()
        assert is_alive(name)
        other.kill()
        other.wait()
        assert not is_alive(name)


def test_a_pid_that_is_used_again_is_not_taken_for_its_former_owner() -> None:
    host, pid, began = holder().rsplit(":", 2)
    assert not is_alive(f"{host}:{pid}:{int(began) - 1}")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(f"elsewhere.example:{os.getpid()}:1", id="another host"),
        pytest.param("", id="nothing"),
        pytest.param("a person", id="no holder of ours"),
        pytest.param(f"{HOST}:pid:1", id="no pid"),
        pytest.param(f"{HOST}:-1:1", id="a negative pid, which kill(2) would take for everybody"),
    ],
)
def test_of_what_cannot_be_asked_nobody_says_that_it_is_dead(name: str) -> None:
    assert is_alive(name)


def test_a_pid_beyond_all_pids_is_dead() -> None:
    assert not is_alive(f"{HOST}:{2**22 + 1}:1")
    assert not is_alive(f"{HOST}:{10**30}:1")


def test_a_process_of_another_user_is_told_by_when_it_began() -> None:
    assert not is_alive(f"{HOST}:1:1"), "the first process began, but not then"
