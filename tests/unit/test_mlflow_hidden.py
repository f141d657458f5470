"""Passwords in what is shown of MLflow."""

from __future__ import annotations

import pytest

from xstilts.record.mlflow.hidden import address, hidden
from xstilts.record.mlflow.ui import server_address

SECRET = "pl4nted-Secr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"API request to http://me:{SECRET}@mlflow:5000/api/2.0/mlflow/runs/create failed",
        f"API request to http://me:p@{SECRET}@mlflow:5000/api failed",
        f"(psycopg.OperationalError) postgresql+psycopg://me:{SECRET}@db:5432/mlflow?sslmode=require",
        f"connection to postgresql://db/mlflow?user=me&password={SECRET} failed",
        f'{{"password": "{SECRET}", "user": "me"}}',
        f"PGPASSWORD={SECRET} psql",
        f"headers: {{'Authorization': 'Basic {SECRET}'}}",
        f"Authorization: Bearer {SECRET}",
        f"sent Bearer {SECRET}",
        f"aws_secret_access_key = {SECRET}",
        f"AWS_SESSION_TOKEN={SECRET}",
        f"api-key: {SECRET}",
    ],
)
def test_no_secret_is_shown(text: str) -> None:
    assert "pl4nted" not in hidden(text)
    assert "Secr3t" not in hidden(text)


@pytest.mark.parametrize(
    "text",
    [
        "the dataset s3://bucket/prefix/xnli has no column premise, only: text",
        "ValueError: pad_token: <pad> is not in the vocabulary; max_tokens=512",
        "https://mlflow.org/docs/latest: see there; someone@example.org wrote it",
        "basic training of a model, token by token; secretly none",
        "a / b @ c",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert hidden(text) == text


def test_what_the_environment_holds_is_hidden_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:an%20other%2Fone@mlflow:5000")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "training")
    shown = hidden(f"he said {SECRET}, then 'an other/one' and an%20other%2Fone while training")
    assert shown == "he said (hidden), then '(hidden)' and (hidden) while training"


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://me:word@mlflow:5000/path", "http://mlflow:5000/path"),
        ("http://me:w/o@rd@mlflow:5000", "http://mlflow:5000"),
        ("postgresql+psycopg://me:word@db:5432/mlflow?password=word", "postgresql+psycopg://db:5432/mlflow"),
        ("sqlite:////results/a@b/mlflow.db", "sqlite:////results/a@b/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_an_address_is_told_without_its_password(uri: str, told: str) -> None:
    assert address(uri) == told


def test_the_page_of_a_server_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:word@mlflow")
    assert server_address() == "https://mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert server_address() is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert server_address() is None
