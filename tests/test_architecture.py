"""The laws of the house that a machine can check: who imports whom, and what the core may not know."""

import ast
import functools
import graphlib
import re
import sys
from pathlib import Path

import ratelimited_llm

PACKAGE = Path(ratelimited_llm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"
# What nothing in the core may touch: clocks, threads, I/O, chance.
IMPURE = {"asyncio", "datetime", "logging", "os", "queue", "random", "select", "socket", "sqlite3", "threading", "time"}
# Read in another run or by another machine, so they hold wall-clock moments.
KEEPERS_OF_MOMENTS = {"history.py", "journal.py", "journaled.py", "sqlite_store.py", "stats.py"}
DOORS = {"openai", "groq", "anthropic", "requests"}
SDKS = {"openai", "groq", "anthropic", "httpx", "httpx2", "requests"}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A file of the package, which most of these tests look at."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def import_statements(path: Path) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import of a file, those inside of functions too, and whether it is for types alone."""
    found: list[tuple[ast.Import | ast.ImportFrom, bool]] = []

    def look_into(node: ast.AST, for_types: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                found.append((child, for_types))
            elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
                typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                look_into(child, for_types or typing)

    look_into(parsed(path), False)
    return found


def imports(path: Path, *, at_run_time: bool = False) -> set[tuple[str, int]]:
    """(module, level) of every import in a file; level is the number of leading dots."""
    found = set()
    for node, for_types in import_statements(path):
        if for_types and at_run_time:
            continue
        if isinstance(node, ast.Import):
            found.update((alias.name, 0) for alias in node.names)
        elif node.module is None:
            found.update((alias.name, node.level) for alias in node.names)
        else:
            found.add((node.module, node.level))
    return found


def files_imported(path: Path) -> set[Path]:
    """The files of the package that a file needs at run time, sooner or later: those imported in functions too."""
    found = set()
    for node, for_types in import_statements(path):
        if for_types or not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            place = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        elif (node.module or "").split(".")[0] == PACKAGE.name:
            place = PACKAGE.parent.joinpath(*(node.module or "").split("."))
        else:
            continue
        for alias in node.names:
            candidates = (place / f"{alias.name}.py", place / alias.name / "__init__.py",
                          place.with_suffix(".py"), place / "__init__.py")  # fmt: skip
            found.add(next(each for each in candidates if each.exists()))
    return found - {path}


def room_table() -> list[tuple[set[str], set[str] | None]]:
    """The rows of CONTRIBUTING.md's table: the rooms of each, and what they may import; None for all above."""
    rows = []
    for line in CONTRIBUTING.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rooms = set(re.findall(r"`([a-z_]+)/?`", cells[0]))
        if line.startswith("| `") and len(cells) == 3 and rooms:
            named = set(re.findall(r"`([a-z_]+)`", cells[2]))
            assert named or cells[2] in ("nothing", "all above"), line
            rows.append((rooms, None if cells[2] == "all above" else named))
    return rows


def part(path: Path) -> str:
    """Which room a file stands in: "core", "providers", or the name of a file at the top."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def files_of(room: str) -> list[Path]:
    found = sorted((PACKAGE / room).glob("*.py"))
    assert found
    return found


def outer_imports(path: Path, *, at_run_time: bool = False) -> set[str]:
    """The packages that a file imports, of the standard library and of others."""
    return {module.split(".")[0] for module, level in imports(path, at_run_time=at_run_time) if level == 0}


@functools.cache
def inner_imports(path: Path) -> set[str]:
    """The rooms that a file imports from, at run time."""
    here = path.relative_to(PACKAGE).parts
    rooms = set()
    for module, level in imports(path, at_run_time=True):
        if level == 0 and module.split(".")[0] == "ratelimited_llm":
            rooms.add([*module.split("."), "__init__"][1])
        elif level > 0:
            base = here[: len(here) - level]
            rooms.add((*base, *module.split("."))[0])
    return rooms


def test_core_has_no_clock_no_thread_no_chance_and_no_io() -> None:
    """Every file of the core is told the time, and imports nothing that could tell it."""
    assert {path.name: found for path in files_of("core") if (found := outer_imports(path) & IMPURE)} == {}


def test_core_imports_only_itself_and_the_exceptions() -> None:
    """The core depends on nobody of the house, and on the standard library outside of it."""
    allowed = {"core", "exceptions"} | set(sys.stdlib_module_names)
    found = {path.name: (inner_imports(path) | outer_imports(path)) - allowed for path in files_of("core")}
    assert {name: foreign for name, foreign in found.items() if foreign} == {}


def test_dialects_are_pure_and_know_no_sdk() -> None:
    """A dialect turns headers and bodies into values; it imports no SDK, no clock and no thread."""
    impure = SDKS | {"threading", "time", "socket", "asyncio", "logging"}
    for path in files_of("providers"):
        assert not outer_imports(path) & impure, path
        assert inner_imports(path) <= {"core", "providers"}, path


def test_only_the_doors_import_an_sdk() -> None:
    """An SDK is known to its own door, and to the demo, which runs the plain one beside ours."""
    others = [path for path in FILES if part(path) not in DOORS and path != PACKAGE / "cli" / "demo.py"]
    assert {path: sdks for path in others if (sdks := outer_imports(path, at_run_time=True) & SDKS)} == {}


def test_nobody_imports_a_door() -> None:
    """Doors are for users: nothing of the house depends on one (but the command line, which is a user)."""
    others = [path for path in FILES if part(path) not in DOORS | {"cli", "__init__"}]
    assert {path: doors for path in others if (doors := inner_imports(path) & DOORS)} == {}


def test_no_file_needs_itself_to_run() -> None:
    """Imports run one way, file by file, whether at the top or inside of a function."""
    graph = {path: files_imported(path) for path in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_table_of_rooms_names_every_room_once() -> None:
    """A room that CONTRIBUTING.md forgets would be free to import whatever it likes."""
    told = [room for rooms, _ in room_table() for room in rooms]
    assert sorted(told) == sorted({part(path) for path in FILES} - {"__init__", "__main__"})


def test_rooms_import_what_the_table_allows_them() -> None:
    """CONTRIBUTING.md says it room by room: names, or "all above", rooms of the same line included."""
    rows = room_table()
    wrong = []
    for number, (rooms, named) in enumerate(rows):
        above = set().union(*(each for each, _ in rows[:number]))
        assert named is None or named <= above, f"{rooms} may import what is below them: {named - above}"
        allowed = rooms | (above if named is None else named)
        for path in FILES:
            if part(path) in rooms:
                found = {room for room in inner_imports(path) if not room.startswith("__")}  # its version is anybody's
                wrong += [f"{path.relative_to(PACKAGE)} -> {room}" for room in found - allowed]
    assert wrong == []


def test_no_module_is_called_queue() -> None:
    """A module named like one of the standard library's would be imported in its place by scripts beside it."""
    assert not [path for path in FILES if path.name == "queue.py"]


def test_intervals_are_never_measured_with_the_wall_clock() -> None:
    """time.time() jumps when somebody sets the clock, so no file calls it."""
    callers = [
        path.name
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute)
        and node.attr == "time"
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
        and "simulator" not in path.parts  # a provider writes wall-clock moments into its headers
        and path.name not in KEEPERS_OF_MOMENTS
    ]
    assert callers == []


def test_nothing_is_pickled() -> None:
    """No file can pickle anything: keys and prompts stay where they are."""
    assert not [path.name for path in FILES if any(module == "pickle" for module, _ in imports(path))]
