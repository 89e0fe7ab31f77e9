"""python -m ratelimited_llm script.py: a script cannot tell that it is not plain Python that runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import zipfile

import pytest

from ratelimited_llm.cli import _parser
from ratelimited_llm.runner import COMMANDS, Script, read_arguments
from ratelimited_llm.runtime import Runtime


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")


ITSELF = """
    import sys, pickle, dataclasses, atexit
    import helper

    @dataclasses.dataclass
    class Point:
        x: int = 1

    def division(by):
        return Point().x / by

    if __name__ == "__main__":
        print(sys.argv, __file__, __spec__ and __spec__.name, __package__, __doc__, sys.path[0], __builtins__)
        print(type(__loader__).__name__, sys.modules["__main__"].Point is Point, helper.HERE, sorted(globals()))
        print(pickle.loads(pickle.dumps(Point(4))), len(open(__file__).read()) > 100)
        atexit.register(lambda: print("at exit", Point(5), pickle.loads(pickle.dumps(Point(6)))))
        try:
            division(0)
        except ZeroDivisionError as error:
            raise RuntimeError("the last word") from error
    """


def test_a_script_sees_what_it_sees_in_plain_python_and_ends_with_the_same_traceback(same, tmp_path):
    """argv, __file__, path, __main__, pickles, dataclasses, atexit, and the text of a traceback with its cause."""
    write(tmp_path / "sub" / "script.py", ITSELF)
    write(tmp_path / "sub" / "helper.py", "HERE = __file__")
    ended = same("sub/script.py", "--rpm", "a", "-m", "")
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr
    assert "ratelimited_llm" not in ended.stderr


def test_a_module_sees_what_it_sees_in_plain_python(same, tmp_path):
    """-m package.module: spec, package, relative imports; and a package with a __main__."""
    write(tmp_path / "package" / "__init__.py", "")
    write(tmp_path / "package" / "module.py", ITSELF.replace("import helper", "from . import helper"))
    write(tmp_path / "package" / "helper.py", "HERE = __name__")
    write(tmp_path / "package" / "__main__.py", "import sys; print(sys.argv, __package__); sys.exit(7)")
    assert "ZeroDivisionError" in same("-m", "package.module", "q").stderr
    assert same("-m", "package").returncode == 7


@pytest.mark.parametrize(
    "body",
    ["import sys; sys.exit('a text')", "raise SystemExit(9)", "x = (", "import missing", "raise KeyboardInterrupt"],
    ids=["text", "code", "syntax", "import", "interrupt"],
)
def test_scripts_end_as_they_end_in_plain_python(same, tmp_path, body):
    """Exit codes, texts for stderr, syntax errors; and Ctrl-C that nobody catches ends by the signal."""
    write(tmp_path / "script.py", body)
    ended = same("script.py")
    if "Interrupt" in body and os.name == "posix":
        assert ended.returncode == -signal.SIGINT


def test_what_is_not_there_is_said_as_python_says_it(same, tmp_path):
    """A missing file is 2, a missing module 1; a folder without a __main__ too."""
    (tmp_path / "empty").mkdir()
    assert same("missing.py").returncode == 2
    assert same("-m", "missing").returncode == 1
    assert same("empty").returncode == 1


def test_a_zip_file_with_a_main_is_a_script(same, tmp_path):
    """As in plain Python; and so is a folder."""
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as file:
        file.writestr("__main__.py", "import sys, other; print(sys.argv, other.X, __spec__.name, __package__)")
        file.writestr("other.py", "X = 3")
    assert "3 __main__" in same("app.zip", "a").stdout


def test_hooks_and_children_of_the_script_are_its_own(same, tmp_path):
    """sys.excepthook of the script is called once with its frames only; spawned children find the script's classes."""
    write(
        tmp_path / "script.py",
        """
        import multiprocessing, sys, traceback

        def double(number):
            return number * 2, __name__

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(double, [1, 2]))
            sys.excepthook = lambda kind, error, trace: print("mine", kind, len(traceback.extract_tb(trace)))
            double(None)
        """,
    )
    assert "mine <class 'TypeError'> 2" in same("script.py").stdout


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_a_waiting_script_at_once_with_its_own_traceback(tmp_path):
    """The script's finally runs, the traceback is the script's, and the exit is by the signal."""
    write(
        tmp_path / "script.py",
        """
        import threading
        try:
            print("ready", flush=True)
            threading.Event().wait(30)
        finally:
            print("finally")
        """,
    )
    command = [sys.executable, "-m", "ratelimited_llm", "script.py"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
    assert (child.returncode, out) == (-signal.SIGINT, "finally\n")
    assert err.startswith('Traceback (most recent call last):\n  File "' + str(tmp_path / "script.py"))
    assert "ratelimited_llm" not in err


# -- reading the command line


def test_the_commands_are_known():
    """What the command line answers to is no script."""
    choices = next(action.choices for action in _parser()._actions if action.dest == "command_name")
    assert set(choices or ()) == COMMANDS


def test_scripts_and_commands_are_told_apart(tmp_path, monkeypatch):
    """A command's name is a command, even beside a file of that name; ./demo is the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("")
    (tmp_path / "other").write_text("")
    for argv in ([], ["demo"], ["--help"], ["nonsense"], ["sim", "--rpm", "3"]):
        assert read_arguments(argv) is None
    assert read_arguments(["./demo", "a"]) == Script("./demo", False, ["a"])
    assert read_arguments(["other"]) == Script("other", False, [])
    assert read_arguments(["missing.py", "--rpm", "3"]) == Script("missing.py", False, ["--rpm", "3"])
    assert read_arguments(["-m", "a.b", "-m", "c"]) == Script("a.b", True, ["-m", "c"])
    assert read_arguments(["-ma.b"]) == Script("a.b", True, [])


def test_options_before_the_script_become_the_environment(tmp_path, monkeypatch):
    """Each is checked at once; the journal's path is made absolute, since the script may go elsewhere."""
    monkeypatch.chdir(tmp_path)
    argv = ["--rpm", "10k", "--tpm=2M", "--journal", "run.db", "--max-cost", "5", "--mode", "future", "x.py", "--rpm"]
    script = read_arguments(argv)
    assert script is not None
    assert script.arguments == ["--rpm"]
    assert script.environment == {
        "RATELIMITED_LLM_RPM": "10k",
        "RATELIMITED_LLM_TPM": "2M",
        "RATELIMITED_LLM_JOURNAL": str(tmp_path / "run.db"),
        "RATELIMITED_LLM_MAX_COST": "5",
        "RATELIMITED_LLM_MODE": "future",
    }


def test_max_cost_is_every_clients_cap(monkeypatch):
    """The variable is read where the others are; what a client was given itself counts more."""
    monkeypatch.setenv("RATELIMITED_LLM_MAX_COST", "5")
    assert Runtime("openai", {}).ledger.spending.max_cost == 5.0
    assert Runtime("openai", {"max_cost": 2.0}).ledger.spending.max_cost == 2.0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rpm", "x", "s.py"], "--rpm must be a number"), (["--rpm", "0", "s.py"], "above 0"),
        (["--rpm"], "needs a value"), (["--mode", "x", "s.py"], "mode must be"), (["--rpm", "3", "demo"], "come after"),
        (["--rpm", "3", "nothing"], "no script there: nothing"), (["--rpm=3"], "need a script"), (["-m"], "the name"),
        (["--max-cost", "nan", "s.py"], "above 0"), (["--rmp", "5", "s.py"], "no option --rmp here"),
    ],
)  # fmt: skip
def test_bad_options_are_a_usage_error(argv, message, capsys):
    """Exit code 2, and what is wrong, before anything is run."""
    with pytest.raises(SystemExit) as stopped:
        read_arguments(argv)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_run_takes_a_script_whatever_stands_before_it(tmp_path, monkeypatch):
    """`run`, our options, `--` and the name of a Python; a script may be called as a command is."""
    monkeypatch.chdir(tmp_path)
    for name in ("old.py", "worker"):
        write(tmp_path / name, "")
    assert read_arguments(["run", "old.py", "--rpm", "3"]) == Script("old.py", False, ["--rpm", "3"])
    assert read_arguments(["run", "--", "/usr/bin/python3.11", "old.py", "a"]) == Script("old.py", False, ["a"])
    assert read_arguments(["run", "--rpm", "10", "--", "python", "-m", "pkg"]) == Script(
        "pkg", True, [], {"RATELIMITED_LLM_RPM": "10"}
    )
    assert read_arguments(["run", "worker"]) == Script("worker", False, [])
    assert read_arguments(["worker"]) is None


@pytest.mark.parametrize("rest", [[], ["--"], ["ls", "-l"], ["run"]])
def test_run_says_what_it_cannot_run(rest, capsys):
    """Anything but a Python script is paced by the gateway."""
    with pytest.raises(SystemExit) as ended:
        read_arguments(["run", *rest])
    assert ended.value.code == 2
    assert "ratelimited-llm serve" in capsys.readouterr().err


def test_the_installed_command_runs_a_script_as_python_does(tmp_path):
    """Exit code and traceback are the script's own, also behind `ratelimited-llm`."""
    write(tmp_path / "old.py", "import sys\nprint(sys.argv)\nraise ValueError('its own')")
    command = "import sys; from ratelimited_llm.cli import main; sys.argv[0] = 'ratelimited-llm'; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", command, "run", "old.py", "a"], capture_output=True, text=True, cwd=tmp_path, timeout=50
    )
    assert (ended.returncode, ended.stdout) == (1, "['old.py', 'a']\n")
    assert "old.py" in ended.stderr
    assert "ratelimited_llm" not in ended.stderr


def test_the_installed_command_finds_the_modules_of_the_working_directory(tmp_path):
    """As `python -m` does; the command itself stands in a folder of its own, which is no place for imports."""
    write(tmp_path / "bin" / "command", "import sys\nfrom ratelimited_llm.cli import main\nsys.exit(main())")
    write(tmp_path / "package" / "__init__.py", "")
    write(tmp_path / "package" / "job.py", "import sys\nprint(__package__, sys.path[0])\nraise ValueError('its own')")
    ended = subprocess.run(
        [sys.executable, "bin/command", "run", "-m", "package.job"],
        capture_output=True, text=True, cwd=tmp_path, timeout=50,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, f"package {os.path.realpath(tmp_path)}\n"), ended.stderr
    assert "job.py" in ended.stderr
    assert "ratelimited_llm" not in ended.stderr
