"""Trainings that several processes of one machine do together, and what they give, for tests to compare."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_encoder import tokenizer
from torch import distributed as dist
from torch import nn
from training_kit import Watching, checkpoints
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaXLConfig, XLMRobertaXLModel

from xstilts.families import classification, dual_encoder, multiple_choice
from xstilts.families.base import Feature
from xstilts.families.encoder import TaskModel
from xstilts.families.heads import LinearHead, SentenceHead
from xstilts.spec.experiment import PretrainSpec, Selection, TrainSettings
from xstilts.train import mixture, pretrain
from xstilts.train.batches import FineTuning
from xstilts.train.loop import Interrupted, Layout, Optimisation, Rung, Signal, run
from xstilts.train.team import Team

SETTINGS = TrainSettings(learning_rate=1e-2, clip=0.5, adam_epsilon=1e-4)
"""Gradients that are zero but for rounding (biases of keys) stay small with this epsilon."""
TEXTS = {
    "en": ["the cat sat on the mat .", "who is in Paris ?", "a cat", "London is a mat"] * 5,
    "zh": ["東京是中国", "", " "],
}


def features(count: int, choices: int = 1) -> list[Feature]:
    """Sequences of 3 to 12 sub-words."""
    return [
        Feature(
            number,
            tuple((0, *(5 + (number * 7 + at + 3 * one) % 40 for at in range(1 + number * 5 % 10)), 2)
                  for one in range(choices)),
            number % 2,
        )
        for number in range(count)
    ]  # fmt: skip


def encoder(dropout: float = 0.0, layers: int = 2) -> Any:
    """XLM-R's shape."""
    torch.manual_seed(1)
    words = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "pad_token_id": 1}
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer()), hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, type_vocab_size=1, **words,
    )  # fmt: skip
    return XLMRobertaModel(config, add_pooling_layer=False)


def xl_encoder(layers: int, heads: int, width: int) -> Any:
    """The shape of XLM-R XL (36 layers of 2560, 32 heads) and XXL (48 of 4096): norms come first."""
    torch.manual_seed(1)
    words = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": 1}
    config = XLMRobertaXLConfig(
        vocab_size=len(tokenizer()), hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, max_position_embeddings=40, type_vocab_size=1, **words,
    )  # fmt: skip
    return XLMRobertaXLModel(config, add_pooling_layer=False)


def finetuned(
    team: Team,
    root: Path | None,
    made: Any,
    then: dict[int, Signal | Exception],
    attempt: str,
    epochs: float = 5,
    **words: Any,
) -> dict[str, Any]:
    """20 steps of classification: steps of 6 examples, the last of an epoch of 1, micro-batches of 4 and 2
    (of 2 and 2 for two ranks); evaluated each 6 steps, and at a quarter of the way for a search."""
    code = classification.CODE
    own = features(19)
    torch.manual_seed(2)
    model = TaskModel(made, SentenceHead(made.config.hidden_size, 2, 0.0))
    batches = FineTuning(own, epochs, 6, 4, 3, lambda chosen: code.collate(chosen, 1))

    def assess() -> dict[str, float]:
        with torch.no_grad():
            total, count = code.loss(model, code.collate(own, 1))
        return {"log_loss": -float(total / count)}

    return ran(model, code.loss, batches, team, root, then, attempt, assess=assess, **words)


def ran(
    model: nn.Module,
    objective: Any,
    batches: Any,
    team: Team,
    root: Path | None,
    then: dict[int, Signal | Exception],
    attempt: str,
    **words: Any,
) -> dict[str, Any]:
    """What came of `loop.run`: losses as they were reported, weights, and whether it was stopped."""
    reporter, rungs = Watching(then), list[Rung]()
    settings = words.pop("settings", SETTINGS)
    found: dict[str, Any] = {"stopped": False, "outcome": None}
    try:
        found["outcome"] = run(
            model,
            objective,
            batches,
            Optimisation.of_training(settings, batches.steps),
            seed=1,
            layout=Layout(workers=team.size),
            selection=Selection(every=6),
            checkpoints=None if root is None or not team.first else checkpoints(root, attempt),
            reporter=reporter,
            note=lambda _: None,
            report_seconds=0,
            team=team,
            rungs=(0.25,),
            on_rung=rungs.append,
            **words,
        )
    except Interrupted:
        found["stopped"] = True
    found["losses"] = [metrics["loss"] for _, metrics in reporter.seen]
    found["steps"] = [progress.step for progress, _ in reporter.seen]
    found["rungs"] = rungs
    if not found["stopped"]:
        found["weights"] = {name: each.cpu().clone() for name, each in model.state_dict().items()}
    return found


def plain(team: Team, root: Path) -> dict[str, Any]:
    """Fine-tuning without dropout."""
    return finetuned(team, None, encoder(), {}, "a")


def half(team: Team, root: Path) -> dict[str, Any]:
    """The same in bf16."""
    settings = SETTINGS.model_copy(update={"precision": "bf16"})
    return finetuned(team, None, encoder(), {}, "a", settings=settings)


def stopped(team: Team, root: Path) -> dict[str, Any]:
    """Fine-tuning that is stopped after 9 steps, with a checkpoint in `root`."""
    return finetuned(team, root, encoder(), {4: Signal.CHECKPOINT, 9: Signal.STOP}, f"a{team.size}")


def stopped_there(team: Team, root: Path) -> dict[str, Any]:
    """The same in a folder of its own."""
    return stopped(team, root / "there")


def resumed(team: Team, root: Path) -> dict[str, Any]:
    """Goes on from what is in `root`."""
    return finetuned(team, root, encoder(), {}, "b")


def dropped(team: Team, root: Path) -> dict[str, Any]:
    """With dropout: all at once, then stopped after 9 steps and resumed."""
    whole = finetuned(team, None, encoder(0.3), {}, "a")
    finetuned(team, root / "dropped", encoder(0.3), {9: Signal.STOP}, "a")
    parts = finetuned(team, root / "dropped", encoder(0.3), {}, "b")
    return {"whole": whole, "parts": parts}


def xl(team: Team, root: Path) -> dict[str, Any]:
    """XLM-R XL at width 16."""
    return finetuned(team, None, xl_encoder(36, 2, 16), {}, "a", epochs=1.5)


def xxl(team: Team, root: Path) -> dict[str, Any]:
    """XLM-R XXL at width 24."""
    return finetuned(team, None, xl_encoder(48, 3, 24), {}, "a", epochs=1.5)


def mixed(team: Team, root: Path) -> dict[str, Any]:
    """Three tasks with a head each, one of them masked language modelling."""
    made = encoder()
    parts = [
        mixture.MlmComponent(TEXTS, tokenizer(), effective_batch=4, max_length=10),
        mixture.Component("nli", classification.CODE, features(24), 4, _collated(classification.CODE), 24),
        mixture.Component(
            "copa", multiple_choice.CODE, features(9, 3), 2, _collated(multiple_choice.CODE), 9
        ),
    ]
    torch.manual_seed(2)
    heads = {
        "nli": SentenceHead(16, 2, 0.0),
        "copa": LinearHead(16, 1, 0.0),
        "mlm": mixture.mlm_head(made, 3),
    }
    batches = mixture.Mixture(parts, 1.2, 3, seed=7)
    return ran(mixture.MixtureModel(made, heads), batches.loss, batches, team, None, {}, "a")


def paired(team: Team, root: Path) -> dict[str, Any]:
    """A dual encoder: its loss compares all examples of a step, and its scale is a scalar."""
    code: Any = dual_encoder.CODE
    made = encoder()
    torch.manual_seed(2)
    model = TaskModel(made, dual_encoder.DualHead(16))
    number = iter(range(1000))
    own = [Feature(each.example, each.input_ids, next(number)) for each in features(16)]

    def collate(chosen: Any) -> Any:
        batch = classification.CODE.collate(chosen, 1)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        return {"input_ids": ids, "attention_mask": mask, "document_input_ids": ids.flip(0).clone(),
                "document_attention_mask": mask.flip(0).clone(), "target": batch["target"]}  # fmt: skip

    batches = FineTuning(own, 3, 5, 5, 3, collate, whole=True)

    def loss(model: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        queries, documents = (model.head(code_states(model, batch, prefix)) for prefix in ("", "document_"))  # type: ignore[operator]
        logits = queries @ documents.T * model.head.scale / 50  # type: ignore[union-attr,operator]
        total = nn.functional.cross_entropy(logits, torch.arange(len(logits)), reduction="sum")
        return total, torch.tensor(float(len(logits)))

    assert code.whole_batches
    return ran(model, loss, batches, team, None, {}, "a")


def code_states(model: nn.Module, batch: Any, prefix: str) -> torch.Tensor:
    """First-token vectors."""
    made: Any = model.encoder
    states: torch.Tensor = made(
        input_ids=batch[prefix + "input_ids"], attention_mask=batch[prefix + "attention_mask"]
    ).last_hidden_state
    return states[:, 0]


def pretrained(team: Team, root: Path) -> dict[str, Any]:
    """Masked-LM pretraining; 7 rows a step in micro-batches of at most 3."""
    spec = PretrainSpec(
        data="world", vocabulary=40, layers=3, width=16, heads=2, length=12, batch=7, steps=20, mask=0.3,
        learning_rate=1e-2,
    )  # fmt: skip
    reporter = Watching()
    texts = {"en": [f"{one} {two} {one}{two}" for one in "abcdefgh" for two in "ijklmnop"]}
    made = pretrain.pretrain(
        texts, spec, layout=Layout(per_device_batch=3), reporter=reporter, report_seconds=0, team=team
    )
    losses = [metrics["loss"] for _, metrics in reporter.seen]
    tied = made.encoder.lm_head.decoder.weight is made.encoder.get_input_embeddings().weight
    weights = {name: each.clone() for name, each in made.encoder.state_dict().items()}
    return {"losses": losses, "weights": weights, "tied": tied}


def _collated(code: Any) -> Callable[[Any], Any]:
    return lambda chosen: code.collate(chosen, 1)


def _rank(rank: int, size: int, shard: bool, port: int, names: tuple[str, ...], root: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", rank=rank, world_size=size)
    found = {name: globals()[name](Team.of_group(shard), root) for name in names}
    if rank == 0:
        torch.save(found, root / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


def together(size: int, shard: bool, root: Path, *names: str) -> dict[str, Any]:
    """What the trainings of these names give on rank 0 of `size` processes."""
    root.mkdir(parents=True, exist_ok=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=_rank, args=(rank, size, shard, port, names, root)) for rank in range(size)
    ]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join(240)
    for each in ranks:
        if each.is_alive():
            each.kill()
    assert [each.exitcode for each in ranks] == [0] * size
    found: dict[str, Any] = torch.load(root / "found.pt", weights_only=False)
    return found


def alone(root: Path, *names: str) -> dict[str, Any]:
    """The same in this process."""
    return {name: globals()[name](Team.alone(), root) for name in names}
