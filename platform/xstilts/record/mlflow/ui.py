"""Where the runs of a store are kept, and the command that shows them in a browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from xstilts.record.mlflow.hidden import address


def where(location: str) -> tuple[str, str | None] | None:
    """Tracking URI and artifact root for the store at `location`; MLFLOW_TRACKING_URI goes first.

    The URI may have a password in it: show `hidden.address` of it.

    A server chooses its own artifact root (None). A store that is no folder needs a server: without
    MLFLOW_TRACKING_URI there is no live view of it, and the answer is None.
    """
    if server := os.environ.get("MLFLOW_TRACKING_URI"):
        return server, None
    if "://" in location:
        return None
    root = Path(location).expanduser().absolute()
    # A path, not a file: URI of it: the database and the artifacts are then found by the same words.
    return f"sqlite:///{root / 'mlflow.db'}", str(root / "mlflow-artifacts")


def server_address() -> str | None:
    """Where a browser finds the server that MLFLOW_TRACKING_URI names; None when it names no server."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    return address(named) if named.startswith(("http://", "https://")) else None


def ui_command(store_root: Path | str, port: int = 5000) -> tuple[list[str], dict[str, str]]:
    """The command that serves a folder store's runs on this machine only, and its whole environment."""
    root = Path(store_root).expanduser().absolute()
    artifacts = str(root / "mlflow-artifacts")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}"]
    command += ["--default-artifact-root", artifacts, "--artifacts-destination", artifacts]
    environment = {
        **os.environ,
        # Its job runner serves GenAI evaluation only and costs some seven processes and 12 s of start.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    # Otherwise the server would ask the server that the variable names, not its own database.
    environment.pop("MLFLOW_TRACKING_URI", None)
    return command, environment
