"""Nothing leaks and nothing is run: secrets that are planted, code that is, names that point elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fault_kit import TINY, Bench, fault

import made_mirror
from conftest import NewBench
from end_state import results
from xstilts import api
from xstilts.errors import XstiltsError
from xstilts.record.artifacts import StepPaths

pytestmark = [pytest.mark.slow]

PLANTED = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
    "HF_TOKEN",
    "WANDB_API_KEY",
)

MODEL = """\
name: tiny
model: {name: MODEL}
targets: [udpos]
languages: [en]
seeds: [1]
train: {target: {learning_rate: 1.0e-3, epochs: 0.3, effective_batch: 8, max_length: 48}}
evaluate: {split: test, first: 8, selection: {first: 8}}
execution: {backend: inline}
"""


@pytest.mark.cluster
def test_no_secret_is_in_anything_a_job_leaves_and_ray_is_on_loopback(
    bench: NewBench, whole: dict[str, Any]
) -> None:
    planted = {name: secrets.token_hex(24) for name in PLANTED}
    held = fault("score", "xstilts.execute.predictions:run_score", "hold")
    place: Bench = bench(words=("--backend", "ray", "--mlflow"), faults=[held])
    driver = place.start("run", RAY_AUTH_MODE="token", **planted)
    place.wait("score")
    processes = place.processes()
    words = [word.encode() for process in processes for word in process.cmdline()]
    assert len(processes) > 4 and not _leaks(words, planted)
    assert not _leaks(_files(place.tmp), planted), "in Ray's own files, while it runs"
    modes = {process.environ().get("RAY_AUTH_MODE") for process in processes if process.environ()}
    assert modes - {None} == {"token"}
    open_to = {each for process in processes for each in _listens(process)}
    assert open_to and all(address.startswith("127.") for address in open_to), open_to
    place.go("score")
    assert driver.end() == 0, driver.said

    assert (place.folder / "store" / "mlflow.db").is_file()
    left = [data for data in _files(place.folder) if data]
    assert len(left) > 50 and not _leaks(left, planted)
    place.check(whole)


@pytest.mark.s3
def test_no_secret_of_a_bucket_or_a_tracking_server_is_told(
    bench: NewBench, whole: dict[str, Any], bucket: str, gateway: Any
) -> None:
    """With an MLflow that is not there, whose address has a password in it."""
    password = secrets.token_hex(24)
    planted = {"aws": gateway.environment["AWS_SECRET_ACCESS_KEY"], "mlflow": password}
    tracking = {
        "MLFLOW_TRACKING_URI": f"http://me:{password}@127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    place: Bench = bench(location=f"s3://{bucket}/results", words=("--mlflow",), environment=tracking)
    said = place.run("run")
    assert not _leaks([said.encode()], planted), said
    objects = [place.store.read(name) or b"" for name in place.store.list("")]
    assert len(objects) > 40 and not _leaks(objects, planted)
    assert not _leaks(_files(place.folder), planted)
    place.check(whole)


def test_no_password_of_an_endpoint_is_told(bench: NewBench) -> None:
    password = secrets.token_hex(24)
    place: Bench = bench(location="s3://somewhere/results")
    keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(24)}
    said = place.run("run", code=2, AWS_ENDPOINT_URL_S3=f"http://me:{password}@127.0.0.1:9", **keys)
    assert not _leaks([said.encode()], {"endpoint": password, **keys}), said


@pytest.mark.parametrize(
    "line",
    [
        'question: !!python/object/apply:os.system ["touch PLANTED"]',
        "question: !!python/object/new:os.system [touch PLANTED]",
        'question: !!python/name:os.system ""',
    ],
)
def test_tags_of_a_job_file_are_not_run(tmp_path: Path, line: str) -> None:
    job, planted = tmp_path / "job.yaml", tmp_path / "planted"
    job.write_text(TINY + line.replace("PLANTED", str(planted)) + "\n")
    with pytest.raises(XstiltsError):
        api.look(api.open_job(job, str(tmp_path / "store")))
    assert not planted.exists()


@pytest.mark.parametrize(
    "name", ["../up", "a/../../up", "/etc/up", ".", "..", "a/b", "a\\b", "a\x00b", "~root"]
)
def test_no_name_leaves_its_folder(tmp_path: Path, name: str) -> None:
    job, store = tmp_path / "job.yaml", tmp_path / "in" / "store"
    for text in (
        TINY.replace("name: tiny", f"name: {json.dumps(name)}"),
        TINY.replace("[none, world_nli]", f"[none, {{task: world_nli, name: {json.dumps(name)}}}]"),
    ):
        job.write_text(text)
        with pytest.raises(XstiltsError):
            api.look(api.open_job(job, str(store)))
    with pytest.raises(XstiltsError):
        api.open_stored(name, str(store))
    assert [path.name for path in tmp_path.rglob("*")] == ["job.yaml"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of one task, and an encoder."""
    folder = made_mirror.make(tmp_path_factory.mktemp("mirror"), tasks=["udpos"], rows=24, languages=["en"])
    made_mirror.encoder(folder)
    return folder


@pytest.fixture
def model(data: Path, tmp_path: Path) -> Path:
    """A user's model folder, with pickles and a module beside its weights that leave a file when run."""
    folder = tmp_path / "model"
    shutil.copytree(data / "models" / made_mirror.ENCODER, folder)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pt", "tokenizer.pkl"):
        (folder / name).write_bytes(_bomb(tmp_path / "planted"))
    (folder / "evil.py").write_text(
        f"open({str(tmp_path / 'planted')!r}, 'w').close()\n"
        "from transformers import PreTrainedConfig as Config, PreTrainedModel as Model\n"
        "from transformers import PreTrainedTokenizerFast as Tokenizer\n"
    )
    return folder


TRUSTING = {
    name: "1"
    for name in (
        "HF_HUB_TRUST_REMOTE_CODE",
        "HF_TRUST_REMOTE_CODE",
        "TRUST_REMOTE_CODE",
        "TRANSFORMERS_TRUST",
    )
}


def test_code_and_pickles_of_a_model_folder_are_not_run(
    bench: NewBench, data: Path, model: Path, tmp_path: Path
) -> None:
    _name(model / "config.json", AutoConfig="evil.Config", AutoModel="evil.Model")
    _name(model / "tokenizer_config.json", AutoTokenizer=["evil.Tokenizer", "evil.Tokenizer"])
    text = MODEL.replace("MODEL", str(model))
    place: Bench = bench(text=text, words=("--data", str(data)), environment=TRUSTING)
    place.run("run")
    assert len(results(place.records())) == 3
    assert not (tmp_path / "planted").exists(), "a model's own code was run"

    # Of a kind that only its own code knows: another folder, for the first one's checksum is remembered.
    other = tmp_path / "other"
    shutil.copytree(model, other)
    _name(other / "config.json", model_type="evil")
    place = bench(text=MODEL.replace("MODEL", str(other)), words=("--data", str(data)), environment=TRUSTING)
    said = place.run("run", code=2)
    assert "no known architecture" in said and "Traceback" not in said
    assert not (tmp_path / "planted").exists(), "a model's own code was run"
    place.check_nothing_left()


def test_a_model_of_pickles_alone_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    job = tmp_path / "job.yaml"
    job.write_text(MODEL.replace("MODEL", str(model)))
    with pytest.raises(XstiltsError, match="unpickling runs whatever code"):
        api.look(api.open_job(job, str(tmp_path / "store"), str(data)))
    assert not (tmp_path / "planted").exists()


def test_pickles_in_a_store_are_not_opened(bench: NewBench, whole: dict[str, Any], tmp_path: Path) -> None:
    """A checkpoint whose sum is right, and a record: both written by somebody who can write to the store."""
    place: Bench = bench()
    planted = tmp_path / "planted"
    bomb = _bomb(planted)
    pretrain, nli = StepPaths(place.key("pretrain")), StepPaths(place.key("train-world_nli"))
    folder = f"{pretrain.checkpoints('somebody')}00000020/"
    files = {
        f"{name}.safetensors": hashlib.sha256(bomb).hexdigest() for name in ("model", "optimizer", "rng")
    }
    for name in files:
        place.store.put(folder + name, bomb)
    state = {"step": 20, "files": files, "state": {}}
    place.store.put(folder + "state.json", json.dumps(state).encode())
    said = place.run("run")
    assert "is torn" in said, said
    assert not planted.exists()
    place.check(whole)

    place.store.put(nli.record, bomb)
    said = place.run("run", code=2)
    assert "Traceback" not in said and nli.key in said
    assert not planted.exists()


def _bomb(planted: Path) -> bytes:
    """A pickle that leaves a file when it is opened."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str, str]]:
            return open, (str(planted), "w")

    return pickle.dumps(Bomb(), protocol=2)


def _name(file: Path, model_type: str = "", **classes: Any) -> None:
    words = json.loads(file.read_text())
    words |= {"model_type": model_type} if model_type else {"auto_map": classes}
    file.write_text(json.dumps(words))


def _files(folder: Path) -> Iterator[bytes]:
    """The bytes of every file below; sockets and what goes meanwhile are none."""
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                yield path.read_bytes()
        except OSError:
            continue


def _leaks(found: Any, planted: dict[str, str]) -> list[str]:
    """Names of the secrets that are in it, as they are or in base64."""
    wanted = {name: _spellings(value.encode()) for name, value in planted.items()}
    data = b"\n".join(found)
    return [name for name, spellings in wanted.items() if any(each in data for each in spellings)]


def _spellings(secret: bytes) -> list[bytes]:
    """As it is, and in base64, where it may begin at each of three places in a group."""
    coded = []
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + secret)
        # The first characters hold what comes before, the last what comes after.
        coded.append(whole[[0, 2, 3][before] : 4 * ((before + len(secret)) // 3)])
    return [secret, *coded, *(each.replace(b"+", b"-").replace(b"/", b"_") for each in coded)]


def _listens(process: psutil.Process) -> list[str]:
    try:
        found = process.net_connections(kind="inet")
    except psutil.Error:
        return []
    name = process.name()
    # 127.0.0.1 as a socket for both versions of IP tells it.
    return [
        f"{each.laddr.ip.removeprefix('::ffff:')} {name}"
        for each in found
        if each.status == psutil.CONN_LISTEN
    ]
