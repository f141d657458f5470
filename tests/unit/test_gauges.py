"""What a machine under a step does, by MLflow's names; and that no step waits or fails for it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from xstilts.execute import gauges
from xstilts.execute.gauges import Gauges, gauged

# As mlflow.system_metrics of MLflow 3.17 calls them.
OF_MLFLOW = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/system_memory_usage_percentage",
    "system/disk_usage_percentage",
    "system/disk_usage_megabytes",
    "system/disk_available_megabytes",
    "system/network_receive_megabytes",
    "system/network_transmit_megabytes",
}
OF_CARDS = {
    "memory_usage_megabytes",
    "memory_usage_percentage",
    "utilization_percentage",
    "power_usage_watts",
    "power_usage_percentage",
}


@pytest.fixture(autouse=True)
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_the_names_are_mlflows_own() -> None:
    found = Gauges("a").sample()
    assert found.keys() - {"system/process_memory_usage_megabytes"} == OF_MLFLOW
    assert 0 < found["system/system_memory_usage_percentage"] < 100
    assert found["system/process_memory_usage_megabytes"] > 10
    assert Gauges("a").node == "a"
    assert Gauges().node


def test_a_gauge_that_breaks_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Gauges()
    monkeypatch.setattr(gauges.psutil, "net_io_counters", lambda: 1 / 0)
    assert len(broken.sample()) == len(OF_MLFLOW) - 2 + 1


class Nvml(ModuleType):
    """Two cards; the second tells no power."""

    class NVMLError(Exception):
        """As the library's."""

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, name: str) -> int:
        return {"GPU-b": 1}[name]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=20e9 * (handle + 1), total=80e9)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=93)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if handle == 1:
            raise self.NVMLError
        return 350_000

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return 700_000


@pytest.mark.parametrize(
    ("visible", "cards"), [(None, {0, 1}), ("1", {1}), ("GPU-b", {0}), ("", set()), ("0,1", {0, 1})]
)
def test_only_the_cards_of_the_step_are_read(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, cards: set[int]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml("pynvml"))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = {name: value for name, value in Gauges().sample().items() if name.startswith("system/gpu_")}
    assert {int(name.split("_")[1]) for name in found} == cards
    if visible is None:
        assert {name.removeprefix("system/gpu_0_") for name in found if "gpu_0" in name} == OF_CARDS
        assert found["system/gpu_0_memory_usage_percentage"] == 25.0
        assert found["system/gpu_0_power_usage_watts"] == 350.0
        assert found["system/gpu_1_utilization_percentage"] == 93
        assert "system/gpu_1_power_usage_watts" not in found


def test_without_the_library_torch_tells_the_memory_of_cards_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_reserved=lambda index: index,
        mem_get_info=lambda index: (60e9, 80e9),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    found = Gauges().sample()
    assert found["system/gpu_1_memory_usage_megabytes"] == 20_000
    assert not any("gpu_0" in name for name in found), "asking a card that is not used takes memory there"


def test_samples_are_told_while_a_step_runs_and_not_after() -> None:
    told: list[tuple[str, int]] = []
    with gauged(lambda values, node: told.append((node, len(values))), "n", every=0.02, first=0.01):
        time.sleep(0.3)
    count = len(told)
    assert count >= 3
    assert {node for node, _ in told} == {"n"}
    time.sleep(0.1)
    assert len(told) == count
    assert not any(thread.name == "gauges" for thread in threading.enumerate())


def test_a_short_step_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "Gauges", None)
    began = time.perf_counter()
    with gauged(lambda values, node: None):
        pass
    assert time.perf_counter() - began < 0.2


def test_what_telling_raises_reaches_no_step() -> None:
    calls = []

    def tell(values: object, node: str) -> None:
        calls.append(node)
        raise OSError("gone")

    with gauged(tell, every=0.01, first=0.01):
        time.sleep(0.2)
    assert len(calls) > 1


def test_importing_it_loads_no_library_of_a_card() -> None:
    heavy = ("torch", "ray", "pynvml", "mlflow")
    code = f"import sys, xstilts.execute.gauges; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
