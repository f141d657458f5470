"""What the machine under a step is doing, by the names that MLflow's page of system metrics shows.

A worker samples for as long as it does a step and passes the values on as events: only the driver speaks to
MLflow. Loads neither torch nor Ray, and needs no NVIDIA library: one that is there is used.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

EVERY = 10.0
"""Seconds between samples, as MLflow's own; a sample takes 0.3 ms."""

FIRST = 1.0
"""Seconds before it looks, and from there to the first sample: a step of a second needs none."""

Tell = Callable[[tuple[tuple[str, float], ...], str], None]
"""Told the values, and the name of the node."""


class Gauges:
    """Reads this machine. Not thread-safe: it remembers what it saw last."""

    def __init__(self, node: str = "") -> None:
        """`node`: what to call the machine, by default its own name."""
        self.node = node or socket.gethostname()
        self._disk = tempfile.gettempdir()
        self._process = psutil.Process()
        self._network = psutil.net_io_counters()
        self._cards = _Cards()
        psutil.cpu_percent()  # what the first call says is since nothing, and 0

    def sample(self) -> dict[str, float]:
        """Name -> value now: percent, megabytes (10^6 bytes), watts. What cannot be read is left out."""
        found: dict[str, float] = {}
        for read in (self._machine, self._traffic, self._cards.sample):
            # A gauge that breaks, such as a driver that is being replaced, must not end a step.
            with suppress(Exception):
                found |= read()
        return {f"system/{name}": round(value, 1) for name, value in found.items()}

    def _machine(self) -> dict[str, float]:
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(self._disk)
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.percent,
            "process_memory_usage_megabytes": self._process.memory_info().rss / 1e6,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / 1e6,
            "disk_available_megabytes": disk.free / 1e6,
        }

    def _traffic(self) -> dict[str, float]:
        """Since this object was made."""
        traffic = psutil.net_io_counters()
        if traffic is None or self._network is None:
            return {}
        return {
            "network_receive_megabytes": (traffic.bytes_recv - self._network.bytes_recv) / 1e6,
            "network_transmit_megabytes": (traffic.bytes_sent - self._network.bytes_sent) / 1e6,
        }


class _Cards:
    """The accelerators that this process may use, by NVIDIA's library where there is one, else by torch."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: dict[int, Any] = {}
        with suppress(Exception):
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = self._visible(os.environ.get("CUDA_VISIBLE_DEVICES"))

    def sample(self) -> dict[str, float]:
        """Memory, and with NVIDIA's library use and power."""
        if self._nvml is None:
            return self._by_torch()
        found: dict[str, float] = {}
        for index, handle in self._handles.items():
            for read in (self._memory, self._use, self._power):
                # Not every card tells everything: a share of one (MIG) has no power of its own.
                with suppress(self._nvml.NVMLError):
                    found |= {f"gpu_{index}_{name}": value for name, value in read(handle).items()}
        return found

    def _memory(self, handle: Any) -> dict[str, float]:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return _memory_words(memory.used, memory.total)

    def _use(self, handle: Any) -> dict[str, float]:
        return {"utilization_percentage": float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)}

    def _power(self, handle: Any) -> dict[str, float]:
        power = self._nvml.nvmlDeviceGetPowerUsage(handle)
        limit = self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle)
        return {"power_usage_watts": power / 1000, "power_usage_percentage": 100 * power / limit}

    def _visible(self, named: str | None) -> dict[int, Any]:
        """Number -> card, of those that CUDA_VISIBLE_DEVICES leaves, by number or by id; None leaves all."""
        if named is None:
            count = self._nvml.nvmlDeviceGetCount()
            return {index: self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)}
        found: dict[int, Any] = {}
        for place, word in enumerate(word.strip() for word in named.split(",") if word.strip()):
            with suppress(self._nvml.NVMLError):
                if word.isdigit():
                    found[int(word)] = self._nvml.nvmlDeviceGetHandleByIndex(int(word))
                else:
                    found[place] = self._nvml.nvmlDeviceGetHandleByUUID(word)
        return found

    def _by_torch(self) -> dict[str, float]:
        """Of cards on which this process holds memory: asking of another would take some of it there."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return {}
        found: dict[str, float] = {}
        for index in range(torch.cuda.device_count()):
            if torch.cuda.memory_reserved(index):
                free, total = torch.cuda.mem_get_info(index)
                words = _memory_words(total - free, total)
                found |= {f"gpu_{index}_{name}": value for name, value in words.items()}
        return found


@contextmanager
def gauged(tell: Tell, node: str = "", every: float = EVERY, first: float = FIRST) -> Iterator[None]:
    """While inside, tells what the machine does every so many seconds, from a thread of its own.

    Nothing that `tell` raises reaches the step; after the end nothing more is told.
    """
    ended = threading.Event()

    def work() -> None:
        if ended.wait(first):
            return
        gauges, wait = Gauges(node), first
        while not ended.wait(wait):
            with suppress(Exception):
                tell(tuple(gauges.sample().items()), gauges.node)
            wait = every

    thread = threading.Thread(target=work, name="gauges", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(1.0)


def _memory_words(used: float, total: float) -> dict[str, float]:
    return {"memory_usage_megabytes": used / 1e6, "memory_usage_percentage": 100 * used / total}
