"""Every fenced block of every page is run, compared, or says why not.

What a block's comment means:

    (none)                           bash and python are run; toml is loaded as settings; json is parsed
    check: server                    bash that starts a server; it serves the following blocks of the page
    check: server, engine HOST:PORT  … and a scripted engine stands in at that address
    check: after the server          bash, run once the server has stopped
    check: fails with N              bash that exits with N
    check: file NAME                 written to that file, for the blocks that follow
    check: job NAME                  toml of a job, checked as one, and written to that file
    check: same as PATH              repeats that file of the repository word for word
    check: output                    its lines are among those that the block before printed; … stands for anything
    check: parse, WHY                not run: the syntax of python, or of bash and its `overnight` commands
    check: shown, WHY                not checked
    checked by NAME                  compared by the test of that name

The blocks of a page run in one directory: an empty one, or for a page of docs/examples a copy of its folder.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest
from docpages import ROOT, Block, blocks, pages, parsed

import overnight
from overnight.jobs.job import Job
from overnight.server import config

_ADDRESS = "127.0.0.1:8642"
_LISTEN = re.compile(r"--listen \S+")
_READY = re.compile(r"ready on http://(\S+)")
_TIMEOUT_S = 120  # Of a block; a machine that is busy with other things takes many times as long as an idle one.


class Sandbox:
    """An empty directory, and the server that the blocks of one page talk to."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.printed = ""
        self._directory = directory
        self._stack = stack
        self._server: subprocess.Popen[str] | None = None
        self._addresses: dict[str, str] = {}
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("OVERNIGHT_", "ANTHROPIC_"))
        }
        self._environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OVERNIGHT_LISTEN": "127.0.0.1:0",
            "NO_PROXY": "127.0.0.1",
            "XDG_CONFIG_HOME": str(directory.parent / "config"),
        }
        stack.callback(self.stop)

    def start(self, block: Block) -> None:
        """Start the server of a block and wait until it is ready."""
        self.stop()
        if engine := re.search(r"engine (\S+)", block.mark):
            self._addresses[engine[1]] = f"127.0.0.1:{self._stack.enter_context(_engine())}"
        text = _LISTEN.sub("--listen 127.0.0.1:0", self._here(block.text))
        log = self._stack.enter_context((self._directory.parent / "server.log").open("a"))
        self._server = self._popen(["bash", "-c", text], stderr=log)
        assert self._server.stdout is not None
        first = self._server.stdout.readline()
        found = _READY.search(first)
        assert found, (
            f"{block.place}: the server did not start: {(self._directory.parent / 'server.log').read_text()}"
        )
        self._addresses[_ADDRESS] = found[1]
        self._name_endpoint(found[1])
        self.printed = first.replace(found[1], _ADDRESS)

    def _name_endpoint(self, address: str) -> None:
        """Jobs say `[endpoint] use = "local"`."""
        folder = Path(self._environment["XDG_CONFIG_HOME"]) / "overnight"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "endpoints.toml").write_text(f'[endpoints.local]\nbase_url = "http://{address}"\n')

    def stop(self) -> None:
        """Stop the server, if one runs: it must drain and exit well."""
        if self._server is None:
            return
        server, self._server = self._server, None
        os.killpg(server.pid, signal.SIGTERM)
        with server:
            assert server.wait(_TIMEOUT_S) == 0

    def run(self, block: Block, *, expected: int = 0) -> None:
        """Run a block to its end and keep what it printed."""
        command = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
        with self._popen([*command, self._here(block.text)], stderr=subprocess.STDOUT) as process:
            self.printed, _ = process.communicate(timeout=_TIMEOUT_S)
        assert process.returncode == expected, f"{block.place}: exit code {process.returncode}\n{self.printed}"

    def _popen(self, command: list[str], *, stderr: int | IO[str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def _here(self, text: str) -> str:
        for written, real in self._addresses.items():
            text = text.replace(written, real)
        return text


@contextmanager
def _engine() -> Iterator[int]:
    command = [sys.executable, "-m", "overnight.testing.upstream", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def _contains(printed: str, expected: str) -> bool:
    patterns = [".*".join(map(re.escape, line.split("…"))) for line in expected.splitlines()]
    return all(any(re.fullmatch(pattern, line) for line in printed.splitlines()) for pattern in patterns)


def _commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split()
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            del words[0]
        if words and words[0].rpartition("/")[2] == "overnight":
            yield words[1:]


def _check_syntax(block: Block) -> None:
    _, _, why = block.mark.partition(",")
    assert why.strip(), f"{block.place}: says no reason"
    checked = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, f"{block.place}: {checked.stderr}"
    for arguments in _commands(block.text):
        parsed(arguments)


def _check_settings(block: Block, directory: Path) -> None:
    file = directory / "overnight.toml"
    file.write_text(block.text)
    config.load(file, {}, {})


def _check_python(block: Block) -> None:
    _, _, why = block.mark.partition(",")
    assert why.strip(), f"{block.place}: says no reason"
    tree = ast.parse(block.text)
    named = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "overnight"
    }
    assert named <= set(overnight.__all__), f"{block.place}: overnight has no {named - set(overnight.__all__)}"


def _check(block: Block, sandbox: Sandbox, directory: Path) -> None:
    kind = block.mark.removeprefix("check: ").split(",")[0]
    name = kind.rpartition(" ")[2]
    match block.language, kind:
        case _, "output":
            assert _contains(sandbox.printed, block.text), f"{block.place}: this was printed:\n{sandbox.printed}"
        case "bash", "server":
            sandbox.start(block)
        case "bash", "after the server":
            sandbox.stop()
            sandbox.run(block)
        case "bash", found if found.startswith("fails with "):
            sandbox.run(block, expected=int(name))
        case "bash" | "python", "":
            sandbox.run(block)
        case _, found if found.startswith(("file ", "job ")):
            (directory / "here" / name).write_text(block.text)
            if found.startswith("job "):
                Job.load(directory / "here" / name).check()
        case _:
            _check_text(block, kind, directory)


def _check_text(block: Block, kind: str, directory: Path) -> None:
    """A block that is not run."""
    match block.language, kind:
        case "bash", "parse":
            _check_syntax(block)
        case "python", "parse":
            _check_python(block)
        case "toml", "":
            _check_settings(block, directory)
        case "json", "":
            json.loads(block.text)
        case "text" | "nginx", "shown":
            assert block.mark.count(","), f"{block.place}: says no reason"
        case _, found if found.startswith("same as "):
            there = ROOT / found.removeprefix("same as ")
            assert block.text == there.read_text(), f"{block.place} differs from {there}"
        case _, found if found.startswith("checked by "):
            name = found.removeprefix("checked by ")
            tests = "".join(file.read_text() for file in (ROOT / "tests" / "docs").glob("test_*.py"))
            assert f"def {name}(" in tests, f"{block.place}: there is no test {name}"
        case _:
            raise AssertionError(f"{block.place}: do not know how to check {block.language!r} with {block.mark!r}")


@pytest.mark.parametrize(
    "page", [page for page in pages() if blocks(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_block_of_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    directory = tmp_path / "here"
    if page.is_relative_to(ROOT / "docs" / "examples"):
        shutil.copytree(page.parent, directory)
    else:
        directory.mkdir()
    with ExitStack() as stack:
        sandbox = Sandbox(directory, stack)
        for block in blocks(page):
            _check(block, sandbox, tmp_path)


def test_output_is_compared_line_by_line() -> None:
    assert _contains("a\nb 12 c\n", "b … c\n")
    assert not _contains("a\nb 12 c\n", "b … d\n")
    assert not _contains("a b\n", "a\n")


def test_make_demo_runs_the_demo() -> None:
    """The README begins with `make demo`, whose installation needs a network; what it runs then is run here."""
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].splitlines()[1]
    assert recipe.strip() == "$(BIN)/overnight demo"
    command = [str(Path(sys.executable).with_name("overnight")), "demo"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout
    assert re.search(r"^INV-002 -> Engineering \| Rs 45000 ", shown, re.MULTILINE)
    assert re.search(r"^T-101 -> billing ", shown, re.MULTILINE)
    assert "Status: ended | Done: 13 | Remaining: 0" in shown
