"""MLflow as the live view of jobs: never the truth, never in the way, made again from the store.

`LiveView` streams while a job runs; `rebuild` makes the same runs from the store's records alone;
`ui_command` opens them. One experiment per job name; in it one parent run per plan, with a nested
run for each training step and each cell of the table. Importing this imports no MLflow (1.4 s):
`runs` does, when its first run is asked for, and `twins` and `models`, which it or an export calls.
"""

from xstilts.record.mlflow.export import rebuild
from xstilts.record.mlflow.hidden import hidden
from xstilts.record.mlflow.links import mlflow_file, read_links
from xstilts.record.mlflow.live import LiveView
from xstilts.record.mlflow.ui import server_address, ui_command, where
from xstilts.record.mlflow.words import (
    CURVED,
    GAUGE,
    all_step_words,
    cell_words,
    job_store_words,
    job_words,
    metrics_of,
    params_of,
    step_words,
    store_words,
)

__all__ = [
    "CURVED",
    "GAUGE",
    "LiveView",
    "all_step_words",
    "cell_words",
    "hidden",
    "job_store_words",
    "job_words",
    "metrics_of",
    "mlflow_file",
    "params_of",
    "read_links",
    "rebuild",
    "server_address",
    "step_words",
    "store_words",
    "ui_command",
    "where",
]
