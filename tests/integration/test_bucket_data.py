"""A job whose data, encoder and store all lie in a bucket: what is read is fetched, the result the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_run import SETTINGS, run, write

import made_mirror
from xstilts import api
from xstilts.errors import DataError
from xstilts.execute import scratch
from xstilts.record.s3 import S3Store

pytestmark = [pytest.mark.slow, pytest.mark.s3]

WORDS = {
    "intermediate": ["none"],
    "targets": ["xnli"],
    "languages": ["en", "de"],
    "train": {"target": SETTINGS},
}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "mirror"
    made_mirror.make(folder, ["xnli", "mnli"], languages=["en", "de"])
    made_mirror.encoder(folder)
    return folder


def test_scores_are_those_of_a_local_run(mirror: Path, tmp_path: Path, bucket: str) -> None:
    here = run(tmp_path / "here", mirror, **WORDS)
    bucket_store = S3Store(f"s3://{bucket}/mirror")
    for path in sorted(mirror.rglob("*")):
        if path.is_file():
            bucket_store.upload(path, path.relative_to(mirror).as_posix())

    job = api.open_job(write(tmp_path, **WORDS), f"s3://{bucket}/store", f"s3://{bucket}/mirror")
    result, _ = api.run(job, live=False)
    assert result.complete, [failure.text for failure in result.failed]
    there = api.results(job)
    assert there.key.tolist() == here.frame.key.tolist()
    assert there.value.tolist() == here.frame.value.tolist()
    fetched = {path.name for path in scratch.kept().rglob("*.parquet") if "mirror" not in path.parts}
    assert fetched, "nothing was fetched, so nothing was tested"


def test_a_file_that_the_bucket_lacks_is_named(mirror: Path, tmp_path: Path, bucket: str) -> None:
    store = S3Store(f"s3://{bucket}/mirror")
    for path in sorted(mirror.rglob("*")):
        if path.is_file() and not path.match("*/en/test*.parquet"):
            store.upload(path, path.relative_to(mirror).as_posix())
    job = api.open_job(write(tmp_path, **WORDS), f"s3://{bucket}/store", f"s3://{bucket}/mirror")
    result, _ = api.run(job, live=False)
    assert not result.complete
    texts = [failure.text for failure in result.failed] + list(result.survey.plan.missing.values())
    assert any("is missing in s3://" in text for text in texts), texts
    with pytest.raises(DataError, match="holds no manifest"):
        api.open_job(write(tmp_path, **WORDS), f"s3://{bucket}/store", f"s3://{bucket}/nothing")
