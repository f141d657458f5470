"""Kept encoders as MLflow's transformers flavour loads them: `xstilts export mlflow JOB --models`.

    import mlflow
    mlflow.transformers.load_model("runs:/RUN_ID/model", return_type="components")    # model, tokenizer
    mlflow.pyfunc.load_model("runs:/RUN_ID/model").predict(["a sentence"])            # features of its tokens

Only when asked, and never while a job runs: an encoder of XLM-R Large has 2.2 GB, and a grid keeps hundreds.
Where runs and store are on one machine nothing of that is copied: the run gets the tokenizer and an MLmodel
file that names the folder in the store (`load_model(..., base_model_path=...)` for a store that has moved).
A server's runs are read from elsewhere, and a bucket is no folder: there the weights are copied.
Without MLflow, the run's tag `model` is the folder that `AutoModel.from_pretrained` loads.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.dropped import dropped
from xstilts.record.mlflow.runs import Run, Runs
from xstilts.record.mlflow.words import model_folder
from xstilts.record.schema import Output, StepRecord

FOLDER = "model"
"""Of the run's artifacts; also what the flavour calls the folder of the weights within."""

_WEIGHTS = (".safetensors", ".safetensors.index.json")


def attach_model(runs: Runs, record: StepRecord, store: ArtifactStore, served: bool) -> bool:
    """Gives the run that computed `record` its encoder, unless it has it; whether it has one now.

    `served`: artifacts are a server's, for others to read.

    Raises:
        StoreError: a file of the model is missing. Exception: whatever MLflow raises.
    """
    run, folder = runs.of(record.key), model_folder(record)
    if run is None or folder is None or dropped(store, record.key) is not None:
        return False
    # It is written last: a copy that was cut short is made again.
    if runs.has_artifact(run, f"{FOLDER}/MLmodel"):
        return True
    copied = served or "://" in store.location
    files = {
        name.removeprefix("model/"): output
        for name, output in record.outputs.items()
        if name.startswith("model/")
    }
    with tempfile.TemporaryDirectory(prefix="xstilts-") as scratch:
        place = Path(scratch)
        for name, output in files.items():
            small = not name.endswith(_WEIGHTS)
            if small:
                _copy(runs, run, record, store, output, place, f"{FOLDER}/components/tokenizer")
            if copied:
                _copy(runs, run, record, store, output, place, f"{FOLDER}/{FOLDER}")
        made = _description(run, place, None if copied else f"{store.location}/{folder}")
        runs.attach(run, made, FOLDER)
    return True


def _copy(
    runs: Runs, run: Run, record: StepRecord, store: ArtifactStore, output: Output, scratch: Path, folder: str
) -> None:
    """Copies one file of the store to the run's artifacts."""
    file = store.local(f"{StepPaths(record.key).root}/{output.path}", scratch)
    runs.attach(run, file, folder)


def _description(run: Run, place: Path, folder: str | None) -> Path:
    """The MLmodel file; `folder` holds the weights, or None: they are beside it."""
    from mlflow.models import Model

    # transformers' own classes by name: for one that it does not know, MLflow would run the model's code.
    conf = {
        "task": "feature-extraction",
        "instance_type": "FeatureExtractionPipeline",
        "pipeline_model_type": "AutoModel",
        "components": ["tokenizer"],
        "tokenizer_type": "AutoTokenizer",
        "source_model_name": folder or FOLDER,
    }
    conf |= {"model_binary": FOLDER} if folder is None else {"local_base_model_path": folder}
    model = Model(artifact_path=FOLDER, run_id=run.id)
    model.add_flavor("transformers", **conf)
    model.add_flavor("python_function", loader_module="mlflow.transformers")
    path = place / "MLmodel"
    model.save(str(path))
    return path
