"""What every door has, whether threads or tasks wait for its calls: whose limits they spend, and the SDK's hooks.

Every call of the SDKs passes `request()`. What spends rate limit becomes a queued call there (`client`,
`async_client`); the rest passes straight through. A door is a class of two bases,
`class OpenAI(QueuedClient, openai.OpenAI)`, and nothing else: arguments, methods, errors and retries stay the SDK's.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .accounts import Account, account_for
from .calls.attempt import Attempt, connection_error, current_attempt
from .calls.queued_call import QueuedCall
from .calls.transport import widen
from .conveniences import Looking
from .core.feedback import Kind
from .exceptions import WorkerStopped
from .options import CALL_NAMES, PREFIX
from .providers import dialect_for
from .runtime import OWN_NAMES, Runtime
from .shared_workers import worker_for

__all__ = ["Seam"]

_HOPELESS = (Kind.EXHAUSTED, Kind.TOO_LARGE)  # the SDKs retry these; waiting changes nothing

SDKClient = TypeVar("SDKClient")
Door = TypeVar("Door", bound="Seam[Any]")


class Seam(Looking[SDKClient]):
    """The part of a door that is ours and the same for all.

    Class attributes:
        _provider_name: what the dialects call it. (`_provider` is a name of openai's own.)
        _endpoints: path endings of the POSTs that spend rate limit.
    """

    __slots__ = ()  # see Looking

    _provider_name: ClassVar[str]
    _endpoints: ClassVar[tuple[str, ...]]
    _sdk: ClassVar[Any]
    _base: ClassVar[Any]

    if TYPE_CHECKING:  # made by `__init_subclass__`, out of the SDK's

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

        def with_options(self: Door, **changes: Any) -> Door:
            """A copy with other options, the SDK's or ours for calls (priority, tenant, deadline...); one queue."""

        def copy(self: Door, **changes: Any) -> Door:
            """The same, by the SDKs' other name for it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not _is_door(cls):
            return  # a user's own subclass of a door
        base = cls._base = next(each for each in cls.__mro__ if each.__module__.partition(".")[0] != __package__)
        cls._sdk = sys.modules[base.__module__.partition(".")[0]]
        cls.__init__ = _initializer(base)  # type: ignore[method-assign]
        cls.copy = cls.with_options = _copier(base)  # type: ignore[method-assign]

    def _made(self) -> None:
        """Called when the SDK's constructor has returned."""
        self._runtime.lane.width = widen(self._client)  # type: ignore[attr-defined]

    def request(self, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None) -> Any:
        """Queue what spends rate limit, and send the rest as the SDK does.

        Raises:
            WorkerStopped: the client is closed.
        """
        send, runtime = super().request, self._runtime  # type: ignore[misc]
        if runtime.disabled or not self._spends(options):
            return send(cast_to, options, stream=stream, stream_cls=stream_cls)
        if self.is_closed():  # type: ignore[attr-defined]
            raise WorkerStopped("this client is closed: make a new one, or submit before close()")
        if runtime.worker.closed:
            runtime.worker = worker_for(runtime.queue)
        return self._enqueue(
            QueuedCall(self, send, runtime, self._account(runtime), cast_to, options, stream, stream_cls)
        )

    def _enqueue(self, call: QueuedCall) -> Any:
        """Have a call answered in its turn; answers what `request` returns."""
        raise NotImplementedError

    def _spends(self, options: Any) -> bool:
        if options.method.lower() != "post":
            return False
        path: str = options.url
        return path.partition("?")[0].rstrip("/").endswith(self._endpoints)

    def _account(self, runtime: Runtime) -> Account:
        whose = self._whose()
        seen = runtime.account
        if seen is not None and seen[0] == whose:
            return seen[1]
        base_url = str(self.base_url)  # type: ignore[attr-defined]
        dialect = dialect_for(runtime.provider, base_url)
        account = account_for(runtime.provider, base_url, _identity(whose[1:]), runtime.limits, dialect)
        runtime.account = (whose, account)
        return account

    def _whose(self) -> tuple[Any, ...]:
        """What tells accounts apart, as the client has it now: it may be given another key at any time."""
        # A function that makes keys counts instead of them: a fresh key has the limits of the one before.
        return (
            self.base_url,  # type: ignore[attr-defined]
            getattr(self, "_api_key_provider", None) or getattr(self, "api_key", None),
            getattr(self, "auth_token", None),
            getattr(self, "organization", None),
            getattr(self, "project", None),
        )

    # -- the SDK's hooks: each is the SDK's own unless this thread is making an attempt -------------------------------

    def _build_request(self, options: Any, *, retries_taken: int = 0, **kwargs: Any) -> Any:
        attempt = current_attempt()
        made = retries_taken if attempt is None else retries_taken + attempt.made
        return super()._build_request(options, retries_taken=made, **kwargs)  # type: ignore[misc]

    def _process_response(self, *, response: Any, retries_taken: int = 0, **kwargs: Any) -> Any:
        attempt = current_attempt()
        if attempt is not None:
            attempt.saw(response)
            retries_taken += attempt.made
        return super()._process_response(  # type: ignore[misc]
            response=response, retries_taken=retries_taken, **kwargs
        )

    def _should_retry(self, response: Any) -> bool:
        attempt = current_attempt()
        if attempt is not None:
            outcome = attempt.judge(response)
            if outcome.kind in _HOPELESS:
                return False
            if attempt.may_wait(outcome):
                return True
        return bool(super()._should_retry(response))  # type: ignore[misc]

    def _failure(self, attempt: Attempt, options: Any, response: Any) -> BaseException:
        """The SDK's own error for an attempt that it would repeat."""
        if response is None:
            attempt.outcome = None
            return connection_error(self._sdk, lambda: self._build_request(options))
        attempt.judge(response)
        error: BaseException = super()._make_status_error_from_response(response)  # type: ignore[misc]
        return error

    def _make_status_error_from_response(self, response: Any) -> Any:
        error = super()._make_status_error_from_response(response)  # type: ignore[misc]
        attempt = current_attempt()
        if attempt is not None and attempt.may_wait(attempt.judge(response)):
            raise attempt.failure_to_retry(error)  # its retries are used up, but waiting for a limit is none
        return error


def _identity(whose: tuple[Any, Any, Any, Any]) -> str:
    """Whose limits: the key and what else tells accounts apart. Only ever used as a digest."""
    key, token, organization, project = whose
    parts = []
    for name, value in (("api_key", key), ("auth_token", token)):
        if value:
            parts.append(value if isinstance(value, str) else f"{name}-{id(value)}")
    # anthropic has resources of such names.
    parts += [value for value in (organization, project) if isinstance(value, str) and value]
    return "\n".join(parts)


def _initializer(base: Any) -> Callable[..., None]:
    @functools.wraps(base.__init__)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        ours = {name: kwargs.pop(name) for name in list(kwargs) if name in OWN_NAMES}
        if ours.get("queue") is None:
            ours["queue"] = os.environ.get(PREFIX + "QUEUE")
        cls = type(self)
        if _is_door(cls):
            # The SDKs look at the exact class in their constructors (anthropic finds credentials by it).
            self.__class__ = base
        try:
            base.__init__(self, *args, **kwargs)
        finally:
            self.__class__ = cls
        self._runtime = Runtime(cls._provider_name, ours)
        self._made()

    return __init__


def _copier(base: Any) -> Callable[..., Any]:
    @functools.wraps(base.copy)
    def copy(self: Any, **kwargs: Any) -> Any:
        ours = {name: kwargs.pop(name) for name in CALL_NAMES if name in kwargs}
        stranger = next((name for name in kwargs if name in OWN_NAMES), None)
        if stranger is not None:
            name = type(self).__name__
            raise TypeError(f"{stranger}= belongs to the client, whose copies share one queue: {name}({stranger}=...)")
        runtime = self._runtime.with_options(ours)
        if _is_door(type(self)):
            twin = object.__new__(base)
            twin.__dict__ = self.__dict__
            made = base.copy(twin, **kwargs)
            made.__class__ = type(self)
        else:
            made = base.copy(self, **kwargs)  # made by the user's own constructor, as the SDK does it
        made._runtime = runtime
        return made

    return copy


def _is_door(cls: type) -> bool:
    """Whether a class is a door itself, and no subclass that a user made of one: a door says whose it is."""
    return "_provider_name" in vars(cls)
