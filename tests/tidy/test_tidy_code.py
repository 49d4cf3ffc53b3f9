"""The code is as CONTRIBUTING.md says. Each test returns all places at once, as `path:line what`."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest
from sources import ROOT, Source, dotted, product, sources, texts, used

FILE_LINES_MAX = 400
TEST_FILE_LINES_MAX = 600  # Tests are tables and read from the top; they still must end.
FUNCTION_LINES_MAX = 60

# Where the world outside may be touched directly: by whole path, or by folder with a slash at its end.
MAY_READ_TIME = ("src/overnight/ports/clock.py", "src/overnight/cli/", "src/overnight/testing/")
MAY_ROLL_DICE = ("src/overnight/ports/entropy.py", "src/overnight/testing/")  # Tests bring a seed.
MAY_READ_ENVIRONMENT = (
    "src/overnight/cli/",
    "src/overnight/jobs/api.py",
    "src/overnight/server/build.py",
    "src/overnight/testing/",
)
MAY_CATCH_EVERYTHING = {
    "src/overnight/runner/pool.py": 1,  # A bug in an engine costs one request.
    "src/overnight/server/console/guard.py": 1,  # A bug in a page costs that page, as HTML.
    "src/overnight/store/committer.py": 1,  # A bug in one operation costs its caller, not the thread of all.
}
MAY_SKIP = (
    "tests/conformance/test_transports.py",  # Where the machine has no IPv6.
    "tests/console/browser/conftest.py",  # Where it has no Chromium, and is not CI.
    "tests/observability/boards.py",  # Where it has no Prometheus, and is not CI.
)
MAY_SLEEP = (
    "tests/sim/",
    "tests/tidy/",
    "tests/unit/engines/",
    "tests/unit/runner/",
)  # The simulator's sleep is virtual time.

TIME = re.compile(
    r"time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns|sleep)$|datetime\.datetime\.(now|utcnow|today)$"
)
DICE = re.compile(r"(random|secrets|uuid)\.(?!UUID\b)\w+$|os\.urandom$")
ENVIRONMENT = re.compile(r"os\.(environ|getenv|putenv)\b")
SLEEP = re.compile(r"(asyncio|time|anyio)\.sleep$")

CALLED_BY_OTHERS = re.compile(
    r"_|on_|test_|(connection_(made|lost)|(data|eof)_received|(pause|resume)_writing|dispatch|time)$"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(source: Source) -> Iterator[Function]:
    return (node for node in ast.walk(source.tree) if isinstance(node, Function))


def _is_in(path: str, places: Iterable[str]) -> bool:
    return any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)


def _uses(pattern: re.Pattern[str], among: Iterable[Source], *, except_in: Iterable[str]) -> list[str]:
    return [
        f"{source.path}:{line} {name}"
        for source in among
        if not _is_in(source.path, except_in)
        for line, name in used(source)
        if pattern.match(name)
    ]


def long_files(among: Iterable[Source]) -> list[str]:
    def lines_max(source: Source) -> int:
        return FILE_LINES_MAX if source.is_product else TEST_FILE_LINES_MAX

    return [f"{source.path} {n}" for source in among if (n := source.text.count("\n")) > lines_max(source)]


def long_functions(among: Iterable[Source]) -> list[str]:
    return [
        f"{source.path}:{node.lineno} {node.name} {lines}"
        for source in among
        for node in _functions(source)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]


def bare_tasks(among: Iterable[Source]) -> list[str]:
    """Tasks outside of a TaskGroup: nobody awaits them, so their errors vanish and they may be collected."""
    found = []
    for source in among:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                owner, _, name = dotted(node.func).rpartition(".")
                is_group = owner.rpartition(".")[2].lstrip("_").endswith(("group", "tasks"))
                if name == "ensure_future" or (name == "create_task" and not is_group):
                    found.append(f"{source.path}:{node.lineno} {dotted(node.func)}")
    return found


def broad_handlers(among: Iterable[Source]) -> list[str]:
    """Handlers of everything that do not raise again."""
    found = []
    for source in among:
        allowed = MAY_CATCH_EVERYTHING.get(source.path, 0)
        here = [
            f"{source.path}:{node.lineno}"
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ExceptHandler)
            and (node.type is None or dotted(node.type) in ("Exception", "BaseException"))
            and not isinstance(node.body[-1], ast.Raise)
        ]
        found += here[allowed:]
    return found


def without_docstring(among: Iterable[Source]) -> list[str]:
    """Public modules, classes, functions and methods.

    A method needs no second description where a Protocol of ours or a base class has one. Nor does one that a
    library calls, or a shipped test, whose name is its claim.
    """
    all_sources = list(among)
    classes = {
        node.name: node for source in all_sources for node in source.tree.body if isinstance(node, ast.ClassDef)
    }
    of_protocols = {
        name
        for node in classes.values()
        if "Protocol" in map(dotted, node.bases)
        for name in _described(node, classes)
    }
    found = []
    for source in all_sources:
        if ast.get_docstring(source.tree) is None:
            found.append(f"{source.path}:1")
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
                found += [
                    f"{source.path}:{item.lineno} {item.name}" for item in _undescribed(node, classes, of_protocols)
                ]
    return found


def _described(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> set[str]:
    """The methods that a class or one of its bases describes."""
    own = {item.name for item in node.body if isinstance(item, Function) and ast.get_docstring(item)}
    bases = (classes[name] for base in node.bases if (name := dotted(base).rpartition(".")[2]) in classes)
    return own.union(*(_described(base, classes) for base in bases if base is not node))


def _undescribed(
    node: ast.ClassDef | Function, classes: Mapping[str, ast.ClassDef], of_protocols: set[str]
) -> Iterator[ast.ClassDef | Function]:
    if ast.get_docstring(node) is None:
        yield node
    if isinstance(node, ast.ClassDef):
        described = of_protocols | _described(node, classes)
        for item in node.body:
            if isinstance(item, Function) and item.name not in described and not CALLED_BY_OTHERS.match(item.name):
                yield item


def leftovers(among: Iterable[Source]) -> list[str]:
    marker = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
    return [f"{source.path}:{line}" for source in among for line, text in source.comments() if marker.search(text)]


def uncommented_limits(text: str) -> list[str]:
    """Constants without a comment of their own, unless their section names its source."""
    found, has_source = [], False
    for line in text.splitlines():
        if line.startswith("# ---"):
            has_source = "(" in line
        elif re.match(r"[A-Z0-9_]+: Final = ", line) and "  # " not in line and not has_source:
            found.append(line.partition(":")[0])
    return found


def test_files_and_functions_are_short() -> None:
    assert long_files(sources()) + long_functions(sources()) == []


def test_every_task_belongs_to_a_group() -> None:
    assert bare_tasks(product()) == []


def test_nothing_catches_everything() -> None:
    assert broad_handlers(product()) == []


def test_time_dice_and_environment_come_through_their_doors() -> None:
    assert _uses(TIME, product(), except_in=MAY_READ_TIME) == []
    assert _uses(DICE, product(), except_in=MAY_ROLL_DICE) == []
    assert _uses(ENVIRONMENT, product(), except_in=MAY_READ_ENVIRONMENT) == []


def sleeps(among: Iterable[Source]) -> list[str]:
    """Every sleep but `asyncio.sleep(0)`, which waits for nothing by the clock."""
    found = []
    for source in among:
        yields = {node.lineno for node in ast.walk(source.tree) if isinstance(node, ast.Call) and _is_yield(node)}
        here = _uses(SLEEP, [source], except_in=MAY_SLEEP)
        found += [place for place in here if int(place.partition(" ")[0].rpartition(":")[2]) not in yields]
    return found


def _is_yield(call: ast.Call) -> bool:
    return dotted(call.func) == "asyncio.sleep" and [ast.unparse(argument) for argument in call.args] == ["0"]


def test_tests_do_not_sleep() -> None:
    assert sleeps(source for source in sources() if source.path.startswith("tests/")) == []


def test_tests_do_not_skip() -> None:
    skip = re.compile(r"pytest\.(skip|mark\.(skip|skipif|xfail)|xfail|importorskip)\b")
    tests = [source for source in sources() if source.path.startswith("tests/")]
    assert _uses(skip, tests, except_in=MAY_SKIP) == []


def test_everything_public_says_what_it_is() -> None:
    assert without_docstring(product()) == []


def test_nothing_is_left_over() -> None:
    assert leftovers(sources()) == []


def test_every_limit_says_where_it_comes_from() -> None:
    assert uncommented_limits((ROOT / "src/overnight/limits.py").read_text()) == []


def test_every_invariant_that_code_cites_is_in_the_architecture() -> None:
    known = set(re.findall(r"^\| (I\d+) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
    cited = [
        (f"{source.path} {name}", name)
        for source in product()
        for name in re.findall(r"(?:\(|invariant |\")(I\d+)\b", source.text)
    ]
    assert cited
    assert [place for place, name in cited if name not in known] == []


def test_every_document_that_code_cites_exists() -> None:
    cited = re.compile(r"(?<![\w/.-])([\w/-]+\.md|docs/adr/\d{4})")
    missing = [
        f"{source.path} {name}"
        for source in sources()
        if not source.path.startswith(("tests/tidy/", "tests/docs/"))
        for name in cited.findall(source.text)
        if not (ROOT / name).exists() and not list(ROOT.glob(f"{name}-*.md"))
    ]
    assert missing == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    home = re.compile(r"(?<![\w.])/(?:" + "|".join(("work", "root", "home", "Users")) + r")/\w|\.\./" + "shared")
    allowed = "tests/tidy/"
    assert [name for name, text in texts().items() if not name.startswith(allowed) and home.search(text)] == []


EXAMPLES: list[tuple[Callable[[Iterable[Source]], list[str]], str]] = [
    (long_functions, "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX),
    (long_files, "x = 1\n" * (FILE_LINES_MAX + 1)),
    (bare_tasks, "import asyncio\nasyncio.create_task(f())\n"),
    (bare_tasks, "import asyncio\nasyncio.get_running_loop().create_task(f())\n"),
    (broad_handlers, "try:\n    f()\nexcept Exception:\n    pass\n"),
    (broad_handlers, "try:\n    f()\nexcept:\n    log()\n"),
    (without_docstring, '"""A module."""\nclass A:\n    """A class."""\n    def f(self): ...\n'),
    (leftovers, "x = 1  # TO" + "DO: y\n"),
    (lambda among: _uses(TIME, among, except_in=()), "from time import monotonic as now\nnow()\n"),
    (lambda among: _uses(TIME, among, except_in=()), "from datetime import datetime\ndatetime.now()\n"),
    (lambda among: _uses(DICE, among, except_in=()), "import random\nrandom.random()\n"),
    (lambda among: _uses(ENVIRONMENT, among, except_in=()), "import os\nos.environ['A']\n"),
    (sleeps, "import asyncio\nawait asyncio.sleep(1)\nawait asyncio.sleep(0)\n"),
]


@pytest.mark.parametrize(("check", "text"), EXAMPLES)
def test_the_checks_find_what_they_look_for(check: Callable[[Iterable[Source]], list[str]], text: str) -> None:
    assert len(check([Source("src/overnight/example.py", text, ast.parse(text))])) == 1


@pytest.mark.parametrize(
    "text",
    [
        "async with TaskGroup() as group:\n    group.create_task(f())\n",
        "try:\n    f()\nexcept BaseException:\n    g()\n    raise\n",
        "try:\n    f()\nexcept ValueError:\n    pass\n",
    ],
)
def test_the_checks_let_pass_what_is_right(text: str) -> None:
    source = Source("src/overnight/example.py", text, ast.parse(text))
    assert bare_tasks([source]) + broad_handlers([source]) == []


def test_a_limit_without_a_comment_is_found() -> None:
    assert uncommented_limits("# --- A section ---\nA: Final = 1\nB: Final = 2  # Why.\n") == ["A"]
    assert uncommented_limits("# --- A section (with a source) ---\nA: Final = 1\n") == []
