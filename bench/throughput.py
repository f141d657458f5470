"""Training and prediction throughput of our loop beside Hugging Face `Trainer`, as ratios.

Same encoder (2 layers of 128, XLM-R-shaped, float32), same sub-words, same batch size, same fused AdamW, same
machine, same run; no logging, no saving, no worker processes on either side. The text is MNLI's English
training pairs where the mirror is at hand (XSTILTS_DATA, or ../shared/mirror), else made-up ids whose lengths
are spread as MNLI's. Each figure is the median of the repeats, which take turns, so that a machine that slows
down slows all alike.
    make bench
    python bench/throughput.py --rows 1024 --repeats 3 --threads 1
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before torch is imported: OpenMP reads it then.
THREADS = next((word.split("=")[-1] for word in sys.argv if word.startswith("--threads=")), "1")
os.environ.setdefault("OMP_NUM_THREADS", THREADS)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from torch import nn  # noqa: E402
from transformers import (  # noqa: E402
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)
from transformers.trainer_callback import PrinterCallback  # noqa: E402

from xstilts.families import batching, classification  # noqa: E402
from xstilts.families.base import Feature  # noqa: E402
from xstilts.families.encoder import TaskModel  # noqa: E402
from xstilts.families.heads import SentenceHead  # noqa: E402
from xstilts.spec.experiment import TrainSettings  # noqa: E402
from xstilts.train import loop  # noqa: E402
from xstilts.train.batches import FineTuning  # noqa: E402

BATCH = 32
PREDICTED_TOGETHER = 64
PAD = 1
VOCABULARY = 12_000
LONGEST = 128
RATE = 1e-4

Timed = Callable[[], None]


class Silent:
    """A reporter that says nothing."""

    def report(self, progress: loop.Progress, metrics: dict[str, float]) -> loop.Signal:
        """Go on."""
        return loop.Signal.GO


def config() -> XLMRobertaConfig:
    """The encoder of both sides; dropout as XLM-R's."""
    made = XLMRobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=PAD,
    )
    made.num_labels = 3
    return made


def data(rows: int) -> tuple[list[list[int]], list[int], Any, str]:
    """(ids of each pair, labels, tokenizer, where they are from)."""
    named = os.environ.get("XSTILTS_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "mirror"
    file = root / "datasets" / "nyu-mll" / "multi_nli" / "default" / "train.parquet"
    encoder = root / "models" / "xstilts" / "mini-12"
    if file.is_file() and encoder.is_dir():
        import pyarrow.parquet as pq

        table = pq.read_table(file).slice(0, rows).to_pydict()
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        texts = (list(map(str, table["premise"])), list(map(str, table["hypothesis"])))
        ids = tokenizer(*texts, truncation=True, max_length=LONGEST).input_ids
        return ids, [int(label) for label in table["label"]], tokenizer, "MNLI from the mirror"
    draw = np.random.default_rng(0)
    # MNLI's pairs under that vocabulary: median 49 sub-words, the longest tenth over 89.
    lengths = np.clip(draw.lognormal(np.log(49), 0.47, rows), 8, LONGEST).astype(int)
    made = [[0, *draw.integers(5, VOCABULARY, length - 2).tolist(), 2] for length in lengths]
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    inner = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>")  # type: ignore[no-untyped-call]
    return made, draw.integers(0, 3, rows).tolist(), tokenizer, "made-up ids with MNLI's lengths"


def ours(ids: Sequence[Sequence[int]], labels: Sequence[int], threads: int) -> tuple[Timed, Timed]:
    """(train one epoch, predict everything) with our loop."""
    features = [
        Feature(number, (tuple(row),), label)
        for number, (row, label) in enumerate(zip(ids, labels, strict=True))
    ]
    bare = [Feature(each.example, each.input_ids) for each in features]
    model = TaskModel(XLMRobertaModel(config(), add_pooling_layer=False), SentenceHead(128, 3, 0.1))

    def train() -> None:
        def collate(chosen: Sequence[Feature]) -> dict[str, torch.Tensor]:
            return classification.CODE.collate(chosen, PAD)

        batches = FineTuning(features, 1, BATCH, BATCH, 1, collate)
        settings = TrainSettings(learning_rate=RATE, effective_batch=BATCH)
        loop.run(
            model,
            classification.CODE.loss,
            batches,
            loop.Optimisation.of_training(settings, batches.steps),
            seed=1,
            layout=loop.Layout(threads=threads),
            reporter=Silent(),
        )

    def predict() -> None:
        batching.outputs_of(model, classification.CODE, bare, PAD, PREDICTED_TOGETHER, "cpu", "fp32")

    return train, predict


def trainer(
    ids: Sequence[Sequence[int]], labels: Sequence[int], tokenizer: Any, sampling: str, scratch: str
) -> tuple[Timed, Timed]:
    """The same with `Trainer` and the sampling strategy "random" (its default) or "group_by_length"."""
    rows: Any = [
        {"input_ids": list(row), "attention_mask": [1] * len(row), "labels": label}
        for row, label in zip(ids, labels, strict=True)
    ]
    arguments = TrainingArguments(
        output_dir=scratch,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=PREDICTED_TOGETHER,
        num_train_epochs=1,
        learning_rate=RATE,
        weight_decay=0.01,
        warmup_steps=0.1,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        train_sampling_strategy=sampling,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        use_cpu=True,
    )
    model: nn.Module = XLMRobertaForSequenceClassification(config())
    made = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    made.remove_callback(PrinterCallback)

    def train() -> None:
        made.train()

    def predict() -> None:
        made.predict(rows)

    return train, predict


def seconds(work: Timed) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1536, help="sequences a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=int(THREADS), help="CPU threads of either side")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    torch.manual_seed(0)
    chatter: Any = transformers.logging
    chatter.set_verbosity_error()
    ids, labels, tokenizer, source = data(words.rows)
    lengths = sorted(map(len, ids))
    print(f"{len(ids)} sequences, {source}: median {lengths[len(ids) // 2]} sub-words, longest {lengths[-1]}")
    with tempfile.TemporaryDirectory() as scratch:
        print(
            f"batch {BATCH} (prediction {PREDICTED_TOGETHER}), float32, {words.threads} thread(s)", flush=True
        )
        sides = {
            "xstilts": ours(ids, labels, words.threads),
            "Trainer": trainer(ids, labels, tokenizer, "random", scratch),
            "Trainer, by length": trainer(ids, labels, tokenizer, "group_by_length", scratch),
        }
        warm(ids, labels, tokenizer, words.threads, scratch)
        taken: dict[tuple[str, int], list[float]] = {}
        for _ in range(words.repeats):
            for which in (0, 1):
                for name, works in sides.items():
                    taken.setdefault((name, which), []).append(seconds(works[which]))
    show(list(sides), taken, len(ids))


def warm(
    ids: Sequence[Sequence[int]], labels: Sequence[int], tokenizer: Any, threads: int, scratch: str
) -> None:
    """Each side once on two batches: first calls load libraries and fill memory pools."""
    few, some = ids[: 2 * BATCH], labels[: 2 * BATCH]
    for work in (*ours(few, some, threads), *trainer(few, some, tokenizer, "random", scratch)):
        work()


def show(sides: Sequence[str], taken: dict[tuple[str, int], list[float]], rows: int) -> None:
    """Sequences a second (median, lowest, highest), and the median of how many times `Trainer` ours is, each
    repeat compared with the one beside it."""
    for which, what in enumerate(("training", "prediction")):
        print(f"\n{what:<20} {'seq/s':>8} {'lowest':>8} {'highest':>8}   xstilts is")
        for name in sides:
            rates = [rows / each for each in taken[name, which]]
            pairs = zip(taken[name, which], taken["xstilts", which], strict=True)
            ratio = statistics.median(theirs / own for theirs, own in pairs)
            times = "" if name == "xstilts" else f"{ratio:8.2f} x"
            middle = statistics.median(rates)
            print(f"{name:<20} {middle:8.0f} {min(rates):8.0f} {max(rates):8.0f}   {times}")
    busy = os.getloadavg()[0]
    if busy > 1.5:
        print(f"\nload average {busy:.1f}: something else was running, so rates are low and ratios uneven")


if __name__ == "__main__":
    main()
