"""A folder keeps the store's promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from xstilts.record.local import LocalStore

from .housekeeping import HousekeepingContract
from .leases import LeaseContract
from .store import StoreContract


class TestLocalStore(StoreContract):
    """Under tmp_path; a folder that does not exist yet."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore.open(tmp_path / "results" / "store")


class TestLocalLeases(LeaseContract):
    """Of steps in a folder."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore.open(tmp_path / "store")


class TestLocalHousekeeping(HousekeepingContract):
    """Of a folder; its twin is one too, so this shows that the contract holds for itself."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore.open(tmp_path / "store")
