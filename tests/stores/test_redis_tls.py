"""A shared budget over TLS (`rediss://`): a real server behind a proxy that speaks TLS, with certificates made here."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from servers import KeyServer, valkey_server
from shared_contract import order

from ratelimited_llm import OpenAI
from ratelimited_llm.cli import main
from ratelimited_llm.exceptions import SharedStoreLost
from ratelimited_llm.stores.redis_store import RedisStore

OPENSSL = shutil.which("openssl")
SECRET = "hunter2"
MESSAGES = [{"role": "user", "content": "hello"}]
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="certificates are made by openssl")


def certificate(folder: Path, name: str, *, host: str = "DNS:localhost,IP:127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate for these names, and its key."""
    made, key = folder / f"{name}.pem", folder / f"{name}.key"
    words = [
        str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
        "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={host}", "-keyout", str(key), "-out", str(made),
    ]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return made, key


class Proxy:
    """Speaks TLS on a port of loopback, and hands on what it hears to a server that does not."""

    def __init__(self, to: int, made: Path, key: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(made, key)
        self._to = to
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.agreed: list[str | None] = []
        self._threads = [threading.Thread(target=self._serve)]
        self._open: list[socket.socket] = []
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._server.accept()
            except OSError:
                return
            plain.settimeout(10.0)
            try:
                encrypted = self._context.wrap_socket(plain, server_side=True)
            except OSError:  # the other side does not trust us
                plain.close()
                continue
            self.agreed.append(encrypted.version())
            behind = socket.create_connection(("127.0.0.1", self._to))
            self._open += [encrypted, behind]
            for here, there in ((encrypted, behind), (behind, encrypted)):
                thread = threading.Thread(target=self._pump, args=(here, there))
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _pump(here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while heard := here.recv(65_536):
                there.sendall(heard)
        with suppress(OSError):
            there.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End every connection, and the threads."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads[0].join(30)
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(30)
        for each in self._open:
            each.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def trusted(folder: Path) -> tuple[Path, Path]:
    return certificate(folder, "trusted")


@pytest.fixture(scope="module")
def server() -> Iterator[KeyServer]:
    with valkey_server(password=SECRET) as running:
        yield running


@pytest.fixture
def proxy(server: KeyServer, trusted: tuple[Path, Path]) -> Iterator[Proxy]:
    with closing(Proxy(server.port, *trusted)) as running:
        yield running


def url(port: int, query: str = "", host: str = "localhost") -> str:
    return f"rediss://:{SECRET}@{host}:{port}/0{query}"


def trouble(address: str) -> str:
    """What a store says that cannot be used; the password is in no part of it."""
    with closing(RedisStore(address)) as store, pytest.raises(SharedStoreLost) as caught:
        store.book("pool", order(1))
    error = caught.value
    assert SECRET not in "".join(traceback.format_exception(error)) + repr(error) + repr(error.__context__)
    return str(error)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_budget_is_shared_over_tls(proxy: Proxy, trusted: tuple[Path, Path], host: str) -> None:
    """With a certificate that the file of trusted ones has, for the name that was asked for."""
    with closing(RedisStore(url(proxy.port, f"?ssl_ca_certs={trusted[0]}&prefix={host}", host))) as store:
        assert store.book("pool", order(1)).wait == 0.0
        assert store.book("pool", order(2)).members == 1
        assert store.members() == []
    assert proxy.agreed
    assert set(proxy.agreed) <= {"TLSv1.2", "TLSv1.3"}


def test_a_certificate_that_nobody_trusts_is_said_to_be_one(proxy: Proxy, folder: Path) -> None:
    """Without a file of trusted ones, and with a wrong one: nothing is sent, and the words say what to give."""
    other, _ = certificate(folder, "other")
    for query in ("", f"?ssl_ca_certs={other}"):
        said = trouble(url(proxy.port, query))
        assert "certificate is not trusted" in said
        assert "?ssl_ca_certs=" in said
        assert f"localhost:{proxy.port}" in said
    assert not proxy.agreed


def test_a_certificate_of_another_host_is_not_taken(server: KeyServer, folder: Path) -> None:
    """Whatever redis-py does by itself; `ssl_cert_reqs=none` takes any, for who says so."""
    made, key = certificate(folder, "elsewhere", host="DNS:elsewhere.example")
    with closing(Proxy(server.port, made, key)) as proxy:
        assert "not valid for 'localhost'" in trouble(url(proxy.port, f"?ssl_ca_certs={made}"))
        with closing(RedisStore(url(proxy.port, "?ssl_cert_reqs=none&prefix=any"))) as store:
            assert store.book("pool", order(1)).wait == 0.0


def test_a_server_without_tls_and_a_file_that_is_not_there_are_said(server: KeyServer, proxy: Proxy) -> None:
    """Each in words of its own, within the store's second."""
    assert "TLS" in trouble(url(server.port)) or "no answer" in trouble(url(server.port))
    assert "is not there" in trouble(url(proxy.port, "?ssl_ca_certs=/nowhere/ca.pem"))


def test_the_command_line_and_a_client_say_it_without_the_password(
    proxy: Proxy, simulator, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One line and exit code 1; the client goes on with its part, and says why, once."""
    assert main(["limits", "--budget", url(proxy.port)]) == 1
    assert "certificate is not trusted" in (said := capsys.readouterr().err)
    provider = simulator()
    with OpenAI(api_key="sk-test", base_url=provider.base_url, budget=url(proxy.port), rpm=6_000) as client:
        for _ in range(2):
            assert client.chat.completions.create(model="m", messages=MESSAGES).choices
    lost = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "budget_lost"]
    assert len(lost) == 1
    assert "certificate is not trusted" in lost[0]
    assert SECRET not in said + caplog.text
