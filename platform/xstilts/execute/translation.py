"""The body of the translate step: training rows in another language."""

from __future__ import annotations

import pyarrow as pa

from xstilts.evaluate.predict import save
from xstilts.execute import inputs
from xstilts.execute.machine import device_of, tidy
from xstilts.execute.steps import Outcome, Work
from xstilts.families import reading, translation
from xstilts.plan.step import TranslateBody
from xstilts.train.loop import Interrupted

BATCH = 32
"""Sentences at a time, fewer where a device ran out of memory."""


@tidy
def run_translate(work: Work) -> Outcome:
    """Rows with the same columns, labels and ids, their texts translated."""
    body = work.step.body
    assert isinstance(body, TranslateBody)
    device = device_of(work.site.execution.device)
    batch = min(BATCH, work.terms.per_device_batch or BATCH)
    with work.timed("load"):
        rows = reading.read(body.rows, work.site.data_root)
        folder = inputs.published_folder(body.model, work.site.data_root)
        translator = translation.Translator(folder)

    def told(done: int, total: int) -> None:
        work.tell(done / max(total, 1))
        if work.should_stop():
            raise Interrupted(f"stopped after {done} of {total} texts")

    def translate(texts: list[str]) -> list[str]:
        return translator.translate(
            texts, body.rows.language, body.into, batch, device, body.beams, body.max_length, told
        )

    with work.timed("compute"):
        found = translation.translated_rows(body.task, rows, translate)
    path = work.scratch / "rows.parquet"
    save(pa.Table.from_pylist(found), path)
    return Outcome(files={"rows": path}, result={"rows": len(found)})
