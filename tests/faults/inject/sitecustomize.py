"""Faults injected from outside: this folder on the PYTHONPATH of a process, and XSTILTS_FAULTS set.

Python imports a module of this name before anything else, in the command and in every worker of Ray's. The
variable holds a JSON list; each fault has

    at      module:function or module:Class.method, wrapped as the module is imported; a module for `run`
    when    expression over a (positional arguments), k (by name), r (what came back), n (calls before, in
            this process), label() (of the step being done), os, errno, sys; always when left out
    after   true: once the call has returned
    do      kill      SIGKILL to this process
            stop      SIGSTOP to it
            hold      waits until the test makes MARK.go
            raise     what `with` gives
            give      what `with` gives is returned instead
            note      a line with what `with` gives is added to MARK.log
            run       the statements `with`, in the module, once it is imported
    with    see above; over the same names
    times   in all processes together; 0, and for `note` and `run`: always
    mark    name of the files in XSTILTS_FAULT_MARKS that say that it happened, with the process's number
"""

from __future__ import annotations

import errno
import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

MARKS = Path(os.environ.get("XSTILTS_FAULT_MARKS", os.devnull))
HOLD_SECONDS = 300.0


def label() -> str:
    """Of the step that this thread does, or ""."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        for name in ("step", "work"):
            found = getattr(frame.f_locals.get(name), "label", None)
            found = found or getattr(getattr(frame.f_locals.get(name), "step", None), "label", None)
            if isinstance(found, str):
                return found
        frame = frame.f_back
    return ""


class Fault:
    """One of the list."""

    def __init__(self, words: dict[str, Any]) -> None:
        self.module, _, self.place = words["at"].partition(":")
        self.do, self.after, self.mark = words["do"], words.get("after", False), words["mark"]
        self.times = 0 if self.do in ("note", "run") else words.get("times", 1)
        self.when = compile(words.get("when", "True"), "<when>", "eval")
        self.value = compile(words.get("with", "None"), "<with>", "exec" if self.do == "run" else "eval")
        self.calls = 0

    def put_in(self, module: ModuleType) -> None:
        """Wraps what it is about, or runs its statements."""
        if self.do == "run":
            exec(self.value, vars(module))
            return
        *outer, name = self.place.split(".")
        owner: Any = functools.reduce(getattr, outer, module)
        original = getattr(owner, name)
        static = isinstance(vars(owner).get(name), classmethod | staticmethod)

        @functools.wraps(original)
        def wrapped(*a: Any, **k: Any) -> Any:
            if self.after:
                return self.meet(a, k, original(*a, **k))
            back = self.meet(a, k, wrapped)
            return original(*a, **k) if back is wrapped else back

        setattr(owner, name, staticmethod(wrapped) if static else wrapped)

    def meet(self, a: tuple[Any, ...], k: dict[str, Any], r: Any) -> Any:
        """Does it, if it is time; what the call is to give back."""
        words = {
            "a": a,
            "k": k,
            "r": r,
            "n": self.calls,
            "label": label,
            "os": os,
            "errno": errno,
            "sys": sys,
        }
        met = eval(self.when, words)
        self.calls += 1
        if not met or not self.claim():
            return r
        match self.do:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hold":
                self.wait()
            case "raise":
                raise eval(self.value, words)
            case "give":
                return eval(self.value, words)
            case "note":
                line = f"{eval(self.value, words)}\n".encode()
                handle = os.open(MARKS / f"{self.mark}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(handle, line)
                os.close(handle)
        return r

    def claim(self) -> bool:
        """Whether it is to happen now; of several processes one gets each time."""
        if not self.times:
            return True
        for number in range(self.times):
            try:
                handle = os.open(MARKS / f"{self.mark}.{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                continue
            os.write(handle, str(os.getpid()).encode())
            os.close(handle)
            return True
        return False

    def wait(self) -> None:
        """Until the test lets it go on."""
        deadline = time.monotonic() + HOLD_SECONDS
        while not (MARKS / f"{self.mark}.go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)


class Finder(importlib.abc.MetaPathFinder):
    """Lets a module be imported as ever, and then puts its faults in."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """The module's own, whose loader does one thing more."""
        mine = [fault for fault in self.faults if fault.module == fullname]
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if mine else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            for fault in mine:
                fault.put_in(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if os.environ.get("XSTILTS_FAULTS"):
    sys.meta_path.insert(0, Finder([Fault(each) for each in json.loads(os.environ["XSTILTS_FAULTS"])]))
