"""The package as users get it, on every Python: builds it, installs it and tries it. Run by hand; stops at what fails.

    pip install build uv
    python tests/integrations/everywhere.py                         # 3.10 to 3.13, with nothing but the package
    python tests/integrations/everywhere.py --suite 3.10 3.13       # there with the extras, and the whole suite
    python tests/integrations/everywhere.py --suite oldest          # on 3.10 with the lower bounds of pyproject.toml

The wheel is made out of the sdist, and the suite is the sdist's, far from any checkout. uv finds the Pythons.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
OLDEST = VERSIONS[0]
# Beside the code: what is opened by name while it runs, and what tools look for.
SHIPPED = {
    "py.typed", "stores/board.lua", "stores/book.lua", "cli/prompts.jsonl", "gateway/dashboard.html",
    "gateway/dashboard.css", "gateway/dashboard.js",
}  # fmt: skip
# Lower bounds of ours that no resolver reaches, since something else in the extras asks for more; and what lower bounds
# forget to say: pandas 2.0 was built for numpy 1.
OVERRIDES = "requests==2.28.0\nh11==0.14.0\n"
CONSTRAINTS = "numpy<2\ncertifi>=2024\n"
NEED_EXTRAS = {"09_groq_and_anthropic", "16_metrics", "17_shared_queue", "18_fastapi_service"}

TRIED_BARE = """
import sys, ratelimited_llm
known = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
assert known <= {"ratelimited_llm", "__main__", "__mp_main__", "_distutils_hack", "sitecustomize"}, known
for door in "groq", "anthropic":
    try:
        __import__(f"ratelimited_llm.{door}")
    except ImportError as error:
        assert f"ratelimited-llm[{door}]" in str(error), error
    else:
        raise AssertionError(f"{door} needs no {door}?")
from ratelimited_llm import OpenAI
for options, extra in (
    ({"budget": "redis://localhost/0"}, "redis"),
    ({"queue": "dramatiq+redis://localhost/0"}, "dramatiq"),
    ({"queue": "celery+redis://localhost/0"}, "celery"),
):
    try:
        OpenAI(api_key="k", **options)
    except ImportError as error:
        assert f"ratelimited-llm[{extra}]" in str(error), error
    else:
        raise AssertionError(f"{options} needs no extra?")
"""


def run(*command: object, cwd: Path, quiet: bool = True) -> str:
    """Run it, and answer what it printed; what it said is shown when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, stdout=subprocess.PIPE if quiet else None, text=True)
    if done.returncode:
        print(done.stdout or "", f"{' '.join(words)} ended with {done.returncode}", sep="\n")
        raise SystemExit(1)
    return done.stdout or ""


def built(work: Path) -> tuple[Path, Path]:
    """The wheel, and the unpacked sdist without the package: what is imported there is the installed one."""
    run(sys.executable, "-m", "build", "--outdir", work / "dist", ROOT, cwd=work)
    (wheel,), (sdist,) = (work / "dist").glob("*.whl"), (work / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as names:
        inside = {name for name in names.namelist() if ".dist-info/" not in name}
    missing = SHIPPED - {name.removeprefix("ratelimited_llm/") for name in inside}
    strange = {name for name in inside if not name.endswith(".py")} - {f"ratelimited_llm/{name}" for name in SHIPPED}
    assert not missing, f"not in the wheel: {missing}"
    assert not strange, f"in the wheel: {strange}"
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    (source,) = work.glob("ratelimited_llm-*/")
    shutil.rmtree(source / "ratelimited_llm")
    (source / "ratelimited_llm").mkdir()  # a folder without code does not hide the installed package
    return wheel, source


def environment(work: Path, name: str, *packages: object) -> Path:
    """The folder of programs of a fresh environment."""
    version = OLDEST if name == "oldest" else name
    home = work / f"{name}-{'bare' if len(packages) == 1 else 'full'}"
    run("uv", "venv", "--quiet", "--python", version, home, cwd=work)
    run("uv", "pip", "install", "--quiet", "--python", home, *packages, cwd=work)
    return home / ("Scripts" if os.name == "nt" else "bin")


def tried_bare(programs: Path, source: Path) -> None:
    """With no extra: what import costs, what errors name, every command's help, the demo, the examples."""
    python, command = programs / "python", programs / "ratelimited-llm"
    run(python, "-W", "error", "-c", TRIED_BARE, cwd=programs)
    names = run(python, "-c", "from ratelimited_llm.runner import COMMANDS; print(*COMMANDS)", cwd=programs).split()
    for words in ([], *([name] for name in names)):
        run(python, "-W", "error", "-m", "ratelimited_llm", *words, "--help", cwd=programs)
    run(command, "demo", cwd=programs)
    for example in sorted((source / "examples").glob("*.py")):
        if example.stem not in NEED_EXTRAS:
            run(command, "sim", "--", python, example, cwd=programs)


def lowest(work: Path) -> tuple[object, ...]:
    """What installs the lower bounds."""
    (work / "overrides.txt").write_text(OVERRIDES, encoding="utf-8")
    (work / "constraints.txt").write_text(CONSTRAINTS, encoding="utf-8")
    run(
        "uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--python-version", OLDEST,
        "--extra", "test", "--override", work / "overrides.txt", "--constraint", work / "constraints.txt",
        "--output-file", work / "lowest.txt", ROOT / "pyproject.toml", cwd=work,
    )  # fmt: skip
    return "--no-deps", "--requirement", work / "lowest.txt"


def main() -> None:
    """Build once, and try on each Python."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", action="store_true", help="run the whole suite there, with every extra")
    parser.add_argument("versions", nargs="*", help='Pythons, or "oldest"; none for all')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wheel, source = built(work)
        for name in args.versions or VERSIONS:
            if not args.suite:
                tried_bare(environment(work, name, wheel), source)
                print(name, "with no extra: works", flush=True)
                continue
            extras = lowest(work) if name == "oldest" else (f"ratelimited-llm[test] @ {wheel.as_uri()}", "pip")
            programs = environment(work, name, wheel, *extras)
            run(programs / "pytest", "-q", "-p", "no:cacheprovider", cwd=source, quiet=False)


if __name__ == "__main__":
    main()
