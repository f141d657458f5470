"""A folder keeps the store's promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from xstilts.record.local import LocalStore

from .store import StoreContract


class TestLocalStore(StoreContract):
    """Under tmp_path; a folder that does not exist yet."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore.open(tmp_path / "results" / "store")
