"""A Python that has OpenAI's SDK imported already: scripts start in a tenth of the time.

Importing an SDK is most of what a script of these tests costs. Here a server imports it once, and forks for each of
them; our package is imported by each itself, as ever. Whoever starts `[*warm_python, "-c", code]` has a process that
hands on its streams, environment, directory, SIGINT, SIGTERM and exit status; killed, it takes the script with it, a
moment later. What needs more than that (its process number, a traceback to the letter) is for a Python of its own.

    python tests/warm.py ADDRESS                          the server, which says so when it is ready
    python tests/warm.py ADDRESS [-W FILTER] -c CODE ...  a script; also -m MODULE ... and FILE ...
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

HANDED_ON = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    address, *arguments = sys.argv[1:]
    if arguments:
        return ask(address, arguments)
    serve(address)
    return 0


def ask(address: str, arguments: list[str]) -> int:
    """Have the server run this, and be as that script is."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON)
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        wish = json.dumps({"arguments": arguments, "environ": dict(os.environ), "directory": os.getcwd()}).encode()
        socket.send_fds(server, [len(wish).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(wish)
        script = int.from_bytes(received(server, 4), "big")
        for number in HANDED_ON:
            signal.signal(number, lambda got, frame: os.kill(script, got))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
        status = int.from_bytes(received(server, 4), "big")
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.WEXITSTATUS(status)


def received(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data)) or sys.exit("tests/warm.py: the server has gone")
    return data


def serve(address: str) -> None:
    """Import, then fork for everybody who asks; only a script returns from here."""
    import gc
    import select

    preload()
    gc.collect()
    gc.freeze()
    ended, ring = socket.socketpair()
    for end in (ended, ring):
        end.setblocking(False)
    signal.set_wakeup_fd(ring.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)  # noqa: T201 - for whoever has started it
    scripts: dict[int, socket.socket] = {}
    while True:
        readable, _, _ = select.select([listener, ended, *scripts.values()], [], [])
        for script, client in scripts.items():
            if client in readable:  # nothing is ever said there: whoever asked was killed
                os.kill(script, signal.SIGKILL)
        if ended in readable:
            ended.recv(4096)
            tell_who_has_ended(scripts)
        if listener in readable:
            client, _ = listener.accept()
            size, files, _, _ = socket.recv_fds(client, 4, 3)
            wish = json.loads(received(client, int.from_bytes(size, "big")))
            script = os.fork()
            if not script:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for each in (listener, ended, ring, client, *scripts.values()):
                    each.close()
                return run(wish, files)
            for file in files:
                os.close(file)
            with suppress(OSError):  # killed meanwhile, and found so in the next round
                client.sendall(script.to_bytes(4, "big"))
            scripts[script] = client


def tell_who_has_ended(scripts: dict[int, socket.socket]) -> None:
    while scripts:
        script, status = os.waitpid(-1, os.WNOHANG)
        if not script:
            return
        with scripts.pop(script) as client, suppress(OSError):  # it may be gone
            client.sendall(status.to_bytes(4, "big"))


def preload() -> None:
    """What nearly every script needs, the types of an answer included."""
    import openai
    from openai.types.chat import ChatCompletion

    with openai.OpenAI(api_key="sk-none", base_url="http://127.0.0.1:9") as client:
        client.chat.completions  # noqa: B018 - its modules are imported by the look
    message = {"role": "assistant", "content": "hello"}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    ChatCompletion.model_validate(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    )


def run(wish: dict[str, Any], files: list[int]) -> None:
    """Be this script, as `python` would run it."""
    import builtins
    import runpy
    import warnings

    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(wish["directory"])
    os.environ.clear()
    os.environ.update(wish["environ"])
    arguments = wish["arguments"]
    while arguments[0] == "-W":
        action, _, category = arguments[1].partition("::")
        warnings.simplefilter(action, getattr(builtins, category or "Warning"))  # type: ignore[arg-type]
        del arguments[:2]
    way, *rest = arguments
    sys.path[:1] = [
        os.path.dirname(os.path.abspath(way)) if way not in ("-c", "-m") else "",
        *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
    ]
    sys.argv = ["-c", *rest[1:]] if way == "-c" else arguments if way != "-m" else rest
    if way == "-c":
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__", "__builtins__": builtins})
    elif way == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(way, run_name="__main__")


if __name__ == "__main__":
    sys.exit(main())
