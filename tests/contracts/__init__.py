"""Promises that several implementations keep, each written once as a class of tests."""

import pytest

# Without this, asserts inside an imported class say "AssertionError" and nothing else.
pytest.register_assert_rewrite(f"{__name__}.store")
pytest.register_assert_rewrite(f"{__name__}.leases")
pytest.register_assert_rewrite(f"{__name__}.housekeeping")
