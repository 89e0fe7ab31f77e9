"""The door is requests, but for a few names."""

import importlib
import subprocess
import sys

import requests as plain

from ratelimited_llm import requests

OURS = {"Session", "post", "request", "session"}


def test_every_name_of_requests_is_the_same_object_unless_it_is_ours():
    """Exceptions, classes, codes and functions are those of requests, so that old handlers go on working."""
    public = [name for name in dir(plain) if not name.startswith("_")]
    differ = {name for name in public if getattr(requests, name) is not getattr(plain, name)}
    assert differ == OURS


def test_the_doors_own_modules_hide_nothing_of_requests():
    """A module inside the package would be an attribute of it, and hide the name of requests that it has."""
    inside = {name.rpartition(".")[2] for name, module in sys.modules.items()
              if name.startswith("ratelimited_llm.requests.") and module.__name__ == name}  # fmt: skip
    assert inside
    assert not inside & set(dir(plain))


def test_modules_of_requests_can_be_imported_through_the_door():
    """`from requests.adapters import HTTPAdapter` takes the prefix as every import does."""
    for name in ("adapters", "exceptions", "auth", "structures"):
        assert importlib.import_module(f"ratelimited_llm.requests.{name}") is getattr(plain, name)


def test_a_session_is_a_session_of_requests():
    """isinstance, `requests.session()` and the version go by what they were."""
    with requests.session() as session:
        assert isinstance(session, plain.Session)
        assert type(session) is requests.Session
    assert requests.__version__ == plain.__version__


def test_importing_the_package_imports_no_requests():
    """Only who uses the door pays for it."""
    check = "import sys, ratelimited_llm; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
