"""Runs a script as Python runs it, with the SDKs that it uses paced: `python -m ratelimited_llm old_script.py [args]`.

    python -m ratelimited_llm [options] script.py [args]
    python -m ratelimited_llm [options] -m package.module [args]

    --rpm N, --tpm N       limits (10k is read); what is not given is learned from the answers
    --journal FILE         answers are kept there; the same command again asks only for what is missing
    --max-cost DOLLARS     what each client of the script may spend; calls beyond it fail with CostLimitReached
    --budget WHERE         shares the limits: "sqlite" on this machine, "redis://host:6379/0" between machines
    --mode MODE            "blocking" (the default here) or "future"

The installed command does the same: `ratelimited-llm script.py`, or `ratelimited-llm run -- python script.py`, where
the Python is the one that we are installed for, whatever is written.

As `python -m cProfile` does, but closer: `sys.argv`, `sys.path[0]`, `__main__`, `__file__`, tracebacks, exit codes and
Ctrl-C are what they are without us. Each call waits for its turn and returns the SDK's plain object (blocking mode).
The script's own process is all that is changed, and what it forks: programs that it starts, and the children of
multiprocessing's "spawn", run plain Python.

A first argument that names a command (`demo`, `batch`...) is that command; a script of that name is `./demo`. What ends
in .py, exists as a file, or is a folder or zip file with a `__main__.py`, is a script.
"""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import pkgutil
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from .options import PREFIX, CallOptions, parse_amount

__all__ = ["COMMANDS", "Script", "read_arguments", "run"]

# Written down here, since to ask the command line would import all of it.
COMMANDS = frozenset({
    "batch", "cancel", "demo", "estimate", "journal", "limit", "limits", "pause", "resume", "serve", "sim", "top",
    "worker",
})  # fmt: skip
OPTIONS = {"--rpm": "RPM", "--tpm": "TPM", "--journal": "JOURNAL", "--max-cost": "MAX_COST", "--mode": "MODE",
           "--budget": "BUDGET"}  # fmt: skip
USAGE = (
    "usage: python -m ratelimited_llm [--rpm N] [--tpm N] [--journal FILE] [--max-cost DOLLARS] "
    "[--mode future|blocking] [--budget WHERE] (script.py | -m package.module) [args]"
)


@dataclass(frozen=True)
class Script:
    """What to run, and how.

    Attributes:
        name: the path of the script, or the name of the module.
        is_module: which of the two.
        arguments: the script's own.
        environment: the variables that our options are handed on by.
    """

    name: str
    is_module: bool
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def read_arguments(argv: Sequence[str]) -> Script | None:
    """What a command line (without the program's name) asks to run; None when it is for the commands.

    Raises:
        SystemExit: with code 2 and a message on stderr, when it makes no sense.
    """
    rest, environment = list(argv), {}
    told = rest[:1] == ["run"]  # that a script follows, whatever its name
    if told:
        rest.pop(0)
    while rest and rest[0].partition("=")[0] in OPTIONS:
        option, given, value = rest.pop(0).partition("=")
        if not given:
            if not rest:
                _usage(f"{option} needs a value")
            value = rest.pop(0)
        environment[PREFIX + OPTIONS[option]] = _checked(option, value)
    if told:
        rest = _after_run(rest)
    if rest and rest[0].startswith("-m"):
        name = rest.pop(0)[2:] or (rest.pop(0) if rest else _usage("-m needs the name of a module"))
        return Script(name, True, rest, environment)
    if rest and (told or rest[0] not in COMMANDS) and (rest[0].endswith(".py") or os.path.exists(rest[0])):
        return Script(rest[0], False, rest[1:], environment)
    if told:
        what = f"{rest[0]} is no Python script" if rest else "run needs a script"
        _usage(f"{what}; other programs are paced by `ratelimited-llm serve` and their OPENAI_BASE_URL")
    if rest and rest[0].startswith("-") and not any(each.startswith(rest[0]) for each in ("--help", "--version", "-h")):
        _usage(
            f"there is no option {rest[0].partition('=')[0]} here; those of a command or a script come after its name"
        )
    if environment:
        what = f"no script there: {rest[0]}" if rest else "these options need a script"
        _usage(f"{rest[0]} is a command: its options come after it" if rest and rest[0] in COMMANDS else what)
    return None


def _after_run(rest: list[str]) -> list[str]:
    """What stands after `run` and our options, without `--` and the name of a Python: it is this one that runs it."""
    if rest[:1] == ["--"]:
        rest = rest[1:]
    return rest[1:] if rest and re.fullmatch(r"(.*[/\\])?python[0-9.]*(\.exe)?", rest[0]) else rest


def _checked(option: str, value: str) -> str:
    from .stores.budget_spec import checked_budget

    try:
        if option in ("--rpm", "--tpm", "--max-cost") and not parse_amount(value, option) > 0:
            raise ValueError(f"{option} must be above 0, not {value}")
        if option == "--mode":
            CallOptions(mode=value)
        if option == "--budget":
            return checked_budget(value)  # a relative path in it too
        if option == "--journal":
            return os.path.abspath(value)  # the script may go elsewhere before its first client
    except (ValueError, ImportError) as error:
        _usage(str(error))
    return value


def _usage(what: str) -> NoReturn:
    print(f"{USAGE}\nratelimited_llm: {what}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)


def run(script: Script) -> None:
    """Run it as `__main__`, in this thread; returns when its last line has run.

    Raises:
        SystemExit, BaseException: what ended the script. Its traceback is shown without our frames.
    """
    # Set here and not given to clients: a script makes many, and libraries make theirs.
    os.environ.update(script.environment)
    os.environ.setdefault(PREFIX + "MODE", "blocking")
    from .takeover import take_over

    take_over()
    try:
        code, module = _module(script) if script.is_module else _file(script)
        _replaced.append(sys.modules["__main__"])
        sys.modules["__main__"] = module
        exec(code, vars(module))
    except SystemExit:
        raise
    except BaseException:
        _hide_us(from_the_top=not script.is_module)
        raise


_replaced: list[ModuleType] = []  # this program's own __main__, which is still running


# -- finding it -------------------------------------------------------------------------------------------------------


def _file(script: Script) -> tuple[CodeType, ModuleType]:
    path = os.path.abspath(script.name)
    sys.argv[:] = [script.name, *script.arguments]
    if os.path.isdir(path) or (not path.endswith(".py") and pkgutil.get_importer(path) is not None):
        _replace_path(path)
        spec = _spec_in(path)
        return _code_of(spec), _main(spec)
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        reason = f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}"
        print(f"{sys.executable}: {reason}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    _replace_path(os.path.dirname(os.path.realpath(path)))
    code = compile(source, path, "exec", dont_inherit=True)
    return code, _new_main(__file__=path, __loader__=SourceFileLoader("__main__", path), __cached__=None)


def _replace_path(folder: str) -> None:
    """Put a folder where Python has put its own: the working directory, or that of the installed command."""
    if getattr(sys.flags, "safe_path", False) or sys.flags.isolated:
        return  # then neither is there
    sys.path[0] = folder


def _spec_in(path: str) -> ModuleSpec:
    importer = pkgutil.get_importer(path)
    spec = None if importer is None else importer.find_spec("__main__", None)
    if spec is None:
        _cannot(f"can't find '__main__' module in {path!r}")
    return spec


def _module(script: Script) -> tuple[CodeType, ModuleType]:
    sys.argv[:] = ["-m", *script.arguments]  # as it is while the module is looked for
    _replace_path(os.getcwd())
    name = script.name
    spec = _find(name)
    if spec.submodule_search_locations is not None:
        if name.rpartition(".")[2] == "__main__":
            _cannot("Cannot use package as __main__ module")
        spec = _find(f"{name}.__main__", package=name)
    code = _code_of(spec)
    if spec.origin is not None:
        sys.argv[0] = spec.origin
    return code, _main(spec)


def _find(name: str, package: str | None = None) -> ModuleSpec:
    wanted = package or name
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        parents = [name[:at] for at, letter in enumerate(name) if letter == "."]
        if error.name not in parents:
            raise  # the package is there, and imports what is not
        _cannot(f"Error while finding module specification for {name!r} ({type(error).__name__}: {error})")
    if spec is None:
        also = f".__main__; {wanted!r} is a package and cannot be directly executed" if package else ""
        _cannot(f"No module named {wanted}{also}")
    return spec


def _code_of(spec: ModuleSpec) -> CodeType:
    get_code: Any = getattr(spec.loader, "get_code", None)
    code: CodeType | None = None if get_code is None else get_code(spec.name)
    if code is None:
        _cannot(f"No code object available for {spec.name}")
    return code


def _main(spec: ModuleSpec) -> ModuleType:
    return _new_main(
        __file__=spec.origin, __loader__=spec.loader, __package__=spec.parent, __spec__=spec, __cached__=spec.cached
    )


def _new_main(**names: Any) -> ModuleType:
    module = ModuleType("__main__")
    module.__dict__.update(names, __builtins__=builtins)
    if sys.version_info < (3, 14):
        module.__annotations__ = {}
    return module


def _cannot(why: str) -> NoReturn:
    print(f"{sys.executable}: {why}", file=sys.stderr)  # noqa: T201
    raise SystemExit(1)


# -- its end ----------------------------------------------------------------------------------------------------------

_HERE = os.path.join(os.path.dirname(__file__), "")
_TAKEOVER = os.path.join(_HERE, "takeover.py")


def _hide_us(*, from_the_top: bool) -> None:
    """Have the traceback that is about to be shown, by whatever hook the script has set, look as without us.

    The exception itself goes on to the interpreter, which knows what to do at the end: exit codes, the signal that
    Ctrl-C ends a process with, `-i`.

    Args:
        from_the_top: also the frames of `python -m` itself, which a script run by its path has not.
    """
    shown = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        sys.excepthook = shown
        _clean(error, from_the_top)
        sys.last_traceback = error.__traceback__
        shown(kind, error, error.__traceback__)

    sys.excepthook = excepthook


def _clean(error: BaseException, from_the_top: bool) -> None:
    """Take our frames out of an exception and of all that led to it."""
    todo, seen = [error], {id(error)}
    while todo:
        each = todo.pop()
        each.__traceback__ = _without_us(each.__traceback__, from_the_top)
        for other in (each.__cause__, each.__context__, *getattr(each, "exceptions", ())):
            if isinstance(other, BaseException) and id(other) not in seen:
                seen.add(id(other))
                todo.append(other)


def _without_us(traceback: TracebackType | None, from_the_top: bool) -> TracebackType | None:
    frames = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    if from_the_top:
        ours = [at for at, each in enumerate(frames) if _file_of(each) == __file__]
        frames = frames[ours[0] :] if ours else frames
    # Python leaves out the frames of an import by itself, but not when ours stand among them.
    ours_imports = any(_file_of(each) == _TAKEOVER for each in frames)
    kept = None
    for each in reversed(frames):
        name = _file_of(each)
        if not (name.startswith(_HERE) or (ours_imports and name.startswith("<frozen importlib"))):
            kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return kept


def _file_of(traceback: TracebackType) -> str:
    return traceback.tb_frame.f_code.co_filename
