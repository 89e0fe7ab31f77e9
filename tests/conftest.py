"""What every test has: processes and clients that are cheap to start, which no test is about."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest


@pytest.fixture(scope="session", autouse=True)
def cheap_starts(tmp_path_factory):
    """Clients read one certificate instead of all that there are, and child processes keep what they have compiled.

    Reading certificates is nearly all of what a client costs to make, and compiling the package a third of what a
    child costs to start. Both are for the environment that tests hand on, too.
    """
    first = Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----")
    certificate = tmp_path_factory.mktemp("tls") / "one.pem"
    certificate.write_text("".join(first[:2]) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SSL_CERT_FILE", str(certificate))
        environment.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield
