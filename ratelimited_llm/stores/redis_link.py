"""The way to a Redis or Valkey server: its URL, its connections, and what its errors are called here.

Every round trip has its own timeouts, and nothing is repeated but where it is said. Whatever goes wrong is a
`SharedStoreLost` that names host and port, or the path of a socket: never a user, a password or a query.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ..exceptions import SharedStoreLost

__all__ = ["Address", "RedisLink", "Script"]

CONNECT = READ = 0.25  # seconds
PATIENCE = 0.5  # seconds after which what failed is not tried again, so that nobody waits for more than a second
KEPT_OPEN = 8  # idle connections
SCHEMES = {"redis": False, "valkey": False, "rediss": True, "valkeys": True, "unix": False}
OPTIONS = ("db", "prefix", "ssl_ca_certs", "ssl_cert_reqs")
FORM = "redis://[[user]:password@]host[:port][/db][?prefix=...]"
PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
CODE = re.compile(r"[A-Z]{3,20}\b")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, as a URL told.

    Attributes:
        shown: host and port, or the path of a socket: what may be read by everybody.
        prefix: what all of our keys begin with.
        options: what redis-py's connection takes; holds the password.
    """

    shown: str
    prefix: str
    tls: bool
    options: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, url: str) -> Address:
        """Take a URL apart.

        Raises:
            ValueError: it is none that is understood; the message does not repeat it.
        """
        scheme = url.partition("://")[0].lower()
        if scheme not in SCHEMES:
            raise ValueError(f"budget= takes {FORM} (or rediss://, valkey://, unix://), not that scheme")
        try:
            parts = urlsplit(url)
            place = parts.hostname, parts.port
            query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:
            place, query = None, {}
        if place is None:
            raise ValueError(f"budget= is no such URL: {FORM}; quote what is special in a password (%40 for @)")
        unknown = sorted(set(query) - set(OPTIONS))
        if unknown or parts.fragment:
            raise ValueError(
                f"budget= takes {', '.join(f'?{name}=' for name in OPTIONS)} and nothing else in its query"
            )
        options: dict[str, Any] = {"db": _database(scheme, parts.path, query)}
        for name, value in (("username", parts.username), ("password", parts.password)):
            if value:
                options[name] = unquote(value)
        options |= {name: query[name] for name in ("ssl_ca_certs", "ssl_cert_reqs") if name in query}
        prefix = query.get("prefix", "rll")
        if not PREFIX.fullmatch(prefix):
            raise ValueError("?prefix= takes up to 64 letters, digits and _ . : -")
        if scheme == "unix":
            path = unquote(parts.path)
            return cls(path, prefix, False, options | {"path": path})
        host, port = place[0] or "localhost", place[1] or 6379
        return cls(f"{host}:{port}", prefix, SCHEMES[scheme], options | {"host": host, "port": port})


def _database(scheme: str, path: str, query: dict[str, str]) -> int:
    text = query.get("db") or ("" if scheme == "unix" else path.strip("/")) or "0"
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"budget= takes the number of a database behind the host: {FORM}")
    return int(text)


class Script:
    """A Lua script of this folder, which the server keeps under its hash."""

    def __init__(self, name: str) -> None:
        self.source = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """Connections to one server; a new one is made when all are in use, and none is shared with a child of a fork.

    Raises:
        ImportError: redis-py is missing.
    """

    def __init__(self, address: Address) -> None:
        try:
            import redis
            from redis import connection
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise ImportError('budget="redis://..." needs redis: pip install "ratelimited-llm[redis]"') from error
        self.address = address
        self._errors = redis.exceptions
        self._losses = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)
        if "path" in address.options:
            self._kind: Any = connection.UnixDomainSocketConnection
        else:
            self._kind = connection.SSLConnection if address.tls else connection.Connection
        self._options: dict[str, Any] = {
            **address.options,
            "socket_timeout": READ,
            "socket_connect_timeout": CONNECT,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "decode_responses": True,
            "encoding_errors": "surrogateescape",
        }
        if address.tls:  # what redis-py does by itself has changed with its versions
            self._options["ssl_check_hostname"] = address.options.get("ssl_cert_reqs") != "none"
        self._idle: deque[Any] = deque()
        self._pid = os.getpid()

    def run(self, script: Script, keys: Sequence[str], words: Sequence[Any], *, repeat: bool = False) -> Any:
        """Run a script in one round trip (two when the server does not have it yet).

        Args:
            script: which one.
            keys, words: what it is given.
            repeat: whether it does no harm to send it again when the answer was lost; then it is tried twice.

        Raises:
            SharedStoreLost: it was not done, or nobody knows.
        """
        began = time.monotonic()
        while True:
            try:
                return self._once(script, keys, words)
            except Exception as error:
                trouble = self._told(error)
                lost = isinstance(error, self._losses) and not isinstance(error, self._errors.AuthenticationError)
            self.drop()
            if not (repeat and lost) or time.monotonic() - began > PATIENCE:
                raise SharedStoreLost(f"{self.address.shown}: {trouble}")  # here, so that it has no context that tells
            repeat = False

    def _once(self, script: Script, keys: Sequence[str], words: Sequence[Any]) -> Any:
        connection = self._connection()
        try:
            try:
                reply = self._ask(connection, "EVALSHA", script.sha, len(keys), *keys, *words)
            except self._errors.NoScriptError:
                reply = self._ask(connection, "EVAL", script.source, len(keys), *keys, *words)
        except BaseException:  # a Ctrl-C, too: an answer that is still to come must not be taken for another's
            connection.disconnect()
            raise
        if len(self._idle) < KEPT_OPEN:
            self._idle.append(connection)
        else:
            connection.disconnect()
        return reply

    @staticmethod
    def _ask(connection: Any, *words: Any) -> Any:
        connection.send_command(*words, check_health=False)
        return connection.read_response()

    def _connection(self) -> Any:
        if os.getpid() != self._pid:
            self.after_fork()
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                with suppress(Exception):
                    if not connection.can_read(timeout=0):
                        return connection
                connection.disconnect()  # the server has closed it, or has said something that nobody asked for
        connection = self._kind(**self._options)
        connection.connect()
        return connection

    def _told(self, error: Exception) -> str:
        """What an error means, without anything that it quotes."""
        errors = self._errors
        trouble = _of_tls(error) if self.address.tls else None
        if trouble is not None:
            return trouble
        for kind, meaning in (
            (errors.TimeoutError, f"no answer within {READ:g} s"),
            (errors.AuthenticationError, "it refuses the user or the password"),
            (errors.NoPermissionError, "its user may not do this"),
            (errors.ReadOnlyError, "it is a read-only replica"),
            (errors.OutOfMemoryError, "it is out of memory"),
            (errors.BusyLoadingError, "it is still loading its data"),
            (errors.ConnectionError, "no connection"),
        ):
            if isinstance(error, kind):
                return str(meaning)
        if not isinstance(error, errors.ResponseError):
            return f"it cannot be used ({type(error).__name__})"
        text = str(error)
        if "WRONGTYPE" in text:
            return "another application's keys are in the place of ours; give ?prefix= to use others"
        code = CODE.match(text)
        return f"it answers an error ({code.group() if code else 'no code'})"

    def drop(self) -> None:
        """Close the idle connections."""
        with suppress(IndexError):
            while True:
                self._idle.pop().disconnect()

    def after_fork(self) -> None:
        """In the child: the parent's connections are let go of, which does not disturb them."""
        self._pid = os.getpid()
        self.drop()


def _of_tls(error: BaseException) -> str | None:
    """What was the matter with TLS; None when that was not it. OpenSSL's own words name no user and no password."""
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({each.verify_message}); ?ssl_ca_certs= names a file of those that are"
            )
        if isinstance(each, ssl.SSLError):
            return f"no TLS can be agreed on ({each.reason or type(each).__name__}): it may not speak TLS at this port"
        if isinstance(each, FileNotFoundError):
            return "the file that ?ssl_ca_certs= names is not there"
        each = each.__cause__ or each.__context__
    return None
