"""A job of the generated world small enough for a test, and how tests run the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]

SMALL = """\
name: small
world: {seed: 1}
pretrain:
  {data: world, vocabulary: 800, layers: 2, width: 32, heads: 2, length: 32, batch: 32, steps: 60,
   learning_rate: 2.0e-3, sentences: 500}
intermediate: [none, world_nli]
targets: [world_paraphrase, world_tagging, world_retrieval]
languages: [w0, w1, w5]
seeds: [1, 2]
train:
  intermediate: {learning_rate: 1.0e-3, epochs: 0.3, effective_batch: 32, max_length: 48}
  target: {learning_rate: 1.0e-3, epochs: 2, effective_batch: 32, max_length: 48}
evaluate: {split: test, first: 40, selection: {first: 50}, retrieval: {layer: -1, centre: true}}
execution: {backend: inline, workers: 1, threads: 1, checkpoint_seconds: 0.5}
"""

COMMAND = [sys.executable, "-c", "from xstilts.cli.main import main; main()"]


def environment() -> dict[str, str]:
    """This process's, with the package on the path."""
    return {**os.environ, "PYTHONPATH": str(REPO / "platform"), "COLUMNS": "200"}


def xstilts(*words: str | Path, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    command = [*COMMAND, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(), check=False
    )


def records(store: Path) -> dict[str, dict[str, Any]]:
    """Key -> record, of every finished step of a store."""
    return {
        path.parent.name: json.loads(path.read_bytes()) for path in sorted(store.glob("steps/*/record.json"))
    }
