"""A warm process that forks the real command as often as it is asked to: what is loaded takes seconds, a run of tiny films less.

A child is a run of `latentray encode` with these words, or a call of another function, in a session and with a death of its own; the only
thing that it is spared is importing. `python -m tests.faults.stable` is the process; `Stable` is how a test speaks to it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from tests.faults.operations import Operations, Strike

ROOT = Path(__file__).resolve().parents[2]
# What a run loads on its way, and none of which starts a thread: threads do not survive a fork.
LOADED = (
    *("engine.encode_dataset", "engine.flow", "engine.networks.pca", "engine.archive.object_store"),
    *("torch._dynamo", "torch.utils.flop_counter", "torch.onnx", "pandas", "sympy", "xarray"),
)


class Stable:
    """Starts runs, waits for them. `prefix`: words before the interpreter, such as `unshare`."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"RAY_USAGE_STATS_ENABLED": "0"}
        command = [*prefix, sys.executable, "-m", "tests.faults.stable"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == "ready"

    def __enter__(self) -> Stable:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def start(
        self,
        words: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        strike: Strike | None = None,
        call: str = "tests.faults.stable:encode",
    ) -> Run:
        """One run of `latentray encode`, or of `call`, which takes words and returns an exit code; what it prints goes to `log`."""
        ask = {"words": list(words), "log": str(log), "env": dict(env or {}), "strike": strike and strike.to_json(), "call": call}
        return Run(self, int(self._asked(ask)), log)

    def _asked(self, what: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class Run:
    """One child. `pid` is also its session and its group."""

    def __init__(self, stable: Stable, pid: int, log: Path) -> None:
        self._stable, self.pid, self.log, self.code = stable, pid, log, None

    def wait(self, seconds: float = 240.0) -> int:
        """Its exit code, or minus the signal that ended it; a run that takes longer is killed, and an error."""
        code = self.ended(seconds)
        if code is None:
            self.signal(signal.SIGKILL)
            raise AssertionError(f"a run did not end in {seconds:g} s: {self.log.read_text()}")
        return code

    def ended(self, seconds: float) -> int | None:
        """The same, or None when it has not ended after so many seconds."""
        if self.code is None:
            answer = self._stable._asked({"wait": self.pid, "seconds": seconds})
            self.code = int(answer) if answer != "runs" else None
        return self.code

    def stopped(self, seconds: float = 60.0) -> bool:
        """Waits until it stands still after SIGSTOP; False when it ended instead."""
        return self._stable._asked({"stopped": self.pid, "seconds": seconds}) == "stopped"

    def signal(self, number: int) -> None:
        """Sends a signal to the command itself."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end_session(self) -> None:
        """Kills what the command started and left, its own Ray for one."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text()


def encode(words: Sequence[str]) -> int:
    """What `latentray encode` does."""
    from engine.cli import run_verb
    from engine.verbs import encode as verb

    return run_verb("encode", verb, words)


def _serve(asks: IO[str]) -> None:
    for name in LOADED:
        import_module(name)

    gc.freeze()
    print("ready", flush=True)
    while line := asks.readline():
        ask = json.loads(line)
        if "wait" in ask:
            print(_wait(ask["wait"], ask["seconds"]), flush=True)
        elif "stopped" in ask:
            print(_wait_stopped(ask["stopped"], ask["seconds"]), flush=True)
        else:
            module, _, function = ask["call"].partition(":")
            call = getattr(import_module(module), function)  # here, so that it is loaded once
            pid = os.fork()
            if pid == 0:
                _run(call, ask)
            print(pid, flush=True)


def _run(call: Callable[[list[str]], int], ask: dict[str, Any]) -> None:
    os.setsid()
    log = os.open(ask["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for target in (1, 2):
        os.dup2(log, target)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(ask["env"])
    import tempfile

    tempfile.tempdir = None  # so that TMPDIR is looked at again
    watch = Operations(Strike(**ask["strike"])) if ask["strike"] else None
    if watch is not None:
        watch.install()
    code = call(ask["words"])
    if watch is not None:
        watch.write_count()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without taking apart all that was loaded, which would take longer than the run


def _wait(pid: int, seconds: float) -> str:
    handle = os.pidfd_open(pid)
    try:
        if not select.select([handle], [], [], seconds)[0]:
            return "runs"
    finally:
        os.close(handle)
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _wait_stopped(pid: int, seconds: float) -> str:
    signal.setitimer(signal.ITIMER_REAL, seconds)  # whose default is the end of this process, which the test then notices
    found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return "stopped" if found is not None and found.si_code == os.CLD_STOPPED else "ended"


if __name__ == "__main__":
    _serve(sys.stdin)
