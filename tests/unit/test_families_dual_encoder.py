"""Dual encoders: kinds of rows, lengths, in-batch loss, average precision; the search over all candidates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_encoder import Model, tokenizer
from torch.nn import functional

from xstilts.errors import DataError
from xstilts.evaluate import dense
from xstilts.families import batching, code_of, originals
from xstilts.families.base import Example, Length
from xstilts.families.dual_encoder import DualHead
from xstilts.tasks import metrics
from xstilts.tasks.task import Family, Task

MEWSLIX = Task(
    name="mewslix", family=Family.DUAL_ENCODER, roles=("target",), metric="map@20", languages=("de",),
    columns={"item": "item", "query": "query", "document": "document", "targets": "targets"},
    source="-", licence="-",
)  # fmt: skip
LAREQA = MEWSLIX.model_copy(
    update={
        "name": "lareqa",
        "columns": {**MEWSLIX.columns, "context": "context", "cluster": "cluster"},
        "parallel": True,
    }
)
CODE = code_of(Family.DUAL_ENCODER)
NAMES = ("cat", "mat", "Paris", "London", "the cat sat", "a mat in Paris", "who", "is")


def trained(count: int) -> list[dict[str, Any]]:
    return [{"query": f"who is {NAMES[n % 8]} {n}", "document": f"{NAMES[n % 8]} {n}"} for n in range(count)]


def model() -> Model:
    torch.manual_seed(0)
    return Model(DualHead(16)).eval()


def vector(text: str, whole: Model) -> torch.Tensor:
    ids = torch.tensor([tokenizer()(text).input_ids])
    with torch.no_grad():
        return whole.head(whole.encoder(ids).last_hidden_state[:, 0])[0]


def test_what_a_row_is_follows_from_its_columns() -> None:
    (pair,) = CODE.examples(LAREQA, [{"query": "q", "document": "d", "context": "c", "title": "t"}])
    assert pair == Example("0", {"query": "q", "document": "d", "context": "c"}, ("0",), "0", "0")
    row = {"item": "q7", "query": "q", "targets": ["a", "b"], "cluster": "Paris"}
    asked = CODE.examples(LAREQA, [row, {**row, "item": "q8"}])
    assert asked[1] == Example("q8", {"query": "q"}, ("a", "b"), "0", "q8")
    (candidate,) = CODE.examples(MEWSLIX, [{"item": "Q1", "document": "d"}])
    assert candidate == Example("Q1", {"document": "d"}, None, "Q1", "")
    assert CODE.examples(MEWSLIX, []) == []
    with pytest.raises(DataError, match="rows of mewslix have item, text"):
        CODE.examples(MEWSLIX, [{"item": "Q1", "text": "d"}])
    with pytest.raises(DataError, match="row 0 of lareqa has 'a' where a list of targets belongs"):
        CODE.examples(LAREQA, [{**row, "targets": "a"}])


def test_training_rows_with_one_document_share_their_gold() -> None:
    rows = [
        {"item": "a", "query": "1", "document": "d"},
        {"item": "b", "query": "2", "document": "e"},
        {"item": "c", "query": "3", "document": "d"},
    ]
    examples = CODE.examples(MEWSLIX, rows)
    assert [example.gold for example in examples] == [("a",), ("b",), ("a",)]
    features = CODE.encode(MEWSLIX, examples, tokenizer(), Length(), True)
    assert features[0].target == features[2].target != features[1].target
    assert min(feature.target for feature in features) >= 0
    asked = CODE.encode(MEWSLIX, examples, tokenizer(), Length(), False)
    assert [(one.example, one.keep["side"]) for one in asked[3:]] == [(0, "document"), (1, "document")]


def test_lengths_are_96_and_256_of_352_with_a_context_and_64_each_without() -> None:
    long = "cat " * 400
    with_context = CODE.examples(LAREQA, [{"query": long, "document": "the mat", "context": long}])
    (feature,) = CODE.encode(LAREQA, with_context, tokenizer(), Length(352), True)
    assert [len(ids) for ids in feature.input_ids] == [96, 256]
    pair = tokenizer()("the mat", long, max_length=256, truncation="longest_first").input_ids
    assert feature.input_ids[1] == tuple(pair)
    asked = CODE.encode(LAREQA, with_context, tokenizer(), Length(352), False)
    assert [one.length for one in asked] == [96, 256]
    alone = CODE.examples(MEWSLIX, [{"query": long, "document": long}])
    (feature,) = CODE.encode(MEWSLIX, alone, tokenizer(), Length(64), True)
    assert [len(ids) for ids in feature.input_ids] == [64, 64]


def test_token_types_of_both_sides_reach_the_batch() -> None:
    words = tokenizer(True)
    examples = CODE.examples(LAREQA, [{"query": "who", "document": "the cat", "context": "the cat sat"}] * 2)
    batch = CODE.collate(CODE.encode(LAREQA, examples, words, Length(352), True), 1)
    assert batch["document_token_type_ids"].shape == batch["document_input_ids"].shape
    assert batch["document_token_type_ids"].max() == 1 and batch["token_type_ids"].max() == 0
    assert batch["input_ids"].shape[1] < batch["document_input_ids"].shape[1]


def products_of(whole: Model, rows: list[dict[str, Any]]) -> torch.Tensor:
    queries = torch.stack([vector(row["query"], whole) for row in rows])
    torch.testing.assert_close(queries.norm(dim=1), torch.ones(len(rows)))
    return 100 * queries @ torch.stack([vector(row["document"], whole) for row in rows]).T


def loss_of(whole: Model, rows: list[dict[str, Any]]) -> torch.Tensor:
    features = CODE.encode(MEWSLIX, CODE.examples(MEWSLIX, rows), tokenizer(), Length(), True)
    total, count = CODE.loss(whole, CODE.collate(features, 1))
    assert float(count) == len(rows)
    return total


def test_the_loss_is_the_cross_entropy_among_the_documents_of_the_batch() -> None:
    whole, rows = model(), trained(5)
    total = loss_of(whole, rows)
    wanted = functional.cross_entropy(products_of(whole, rows), torch.arange(5), reduction="sum")
    torch.testing.assert_close(total, wanted, rtol=1e-3, atol=1e-3)
    total.backward()
    assert whole.head.scale.grad is not None and whole.head.scale.grad != 0
    assert whole.head.dense.weight.grad.abs().sum() > 0
    assert CODE.whole_batches  # type: ignore[attr-defined]


def test_a_document_that_a_batch_has_twice_is_no_negative_of_itself() -> None:
    whole, rows = model(), trained(3)
    rows.append({"query": "London", "document": rows[0]["document"]})
    products = products_of(whole, rows)
    with_it = functional.cross_entropy(products, torch.arange(4), reduction="sum")
    products[0, 3] = products[3, 0] = -torch.inf
    wanted = functional.cross_entropy(products, torch.arange(4), reduction="sum")
    torch.testing.assert_close(loss_of(whole, rows), wanted, rtol=1e-3, atol=1e-3)
    assert float(with_it - wanted) > 0.5


def test_training_finds_the_pairs() -> None:
    whole = model()
    examples = CODE.examples(MEWSLIX, trained(8))
    batch = CODE.collate(CODE.encode(MEWSLIX, examples, tokenizer(), Length(), True), 1)
    optimiser = torch.optim.AdamW(whole.parameters(), lr=2e-3)
    for _ in range(100):
        optimiser.zero_grad()
        CODE.loss(whole, batch)[0].backward()
        optimiser.step()
    said = predicted(whole, examples)
    items = CODE.items(MEWSLIX, examples, said, "en")
    assert sum(one["ap"] for one in items) > 7 > sum_before(examples)


def predicted(whole: Model, examples: list[Example]) -> dict[str, Any]:
    features = CODE.encode(MEWSLIX, examples, tokenizer(), Length(), False)
    outputs = batching.outputs_of(whole, CODE, features, 1, 4, "cpu", "fp32")
    return {made.item: made.prediction for made in CODE.decode(MEWSLIX, examples, features, outputs)}


def sum_before(examples: list[Example]) -> float:
    return sum(one["ap"] for one in CODE.items(MEWSLIX, examples, predicted(model(), examples), "en"))


@pytest.mark.parametrize(
    ("ranked", "targets", "wanted"),
    [
        ("a b c", "a", 1.0),
        ("b a c", "a", 0.5),
        ("b c d", "a", 0.0),
        ("a b c d", "a c", (1 + 2 / 3) / 2),
        ("a a c", "a c", (1 + 2 / 3) / 2),  # the second "a" is passed over, its place is not
        ("a b", "a c e", 1 / 3),
        ("", "a", 0.0),
        ("a", "", 0.0),
    ],
)
def test_average_precision_by_hand(ranked: str, targets: str, wanted: float) -> None:
    assert metrics.average_precision(ranked.split(), set(targets.split())) == pytest.approx(wanted)


def test_average_precision_ends_at_twenty() -> None:
    every = [str(n) for n in range(40)]
    assert metrics.average_precision(every, set(every[20:])) == 0.0
    # The divisor is 20, not 30.
    assert metrics.average_precision(every, set(every[:30])) == pytest.approx(1.0)
    assert metrics.average_precision(every, {"19", "25"}) == pytest.approx(1 / 20 / 2)


def reported(names: list[str], targets: list[str]) -> list[Example]:
    rows = [
        {"item": f"q{n}", "query": f"who is {name}", "targets": [target]}
        for n, (name, target) in enumerate(zip(names, targets, strict=True))
    ]
    return CODE.examples(MEWSLIX, rows)


def test_the_search_ranks_every_candidate_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model()
    candidates = CODE.examples(
        MEWSLIX, [{"item": f"Q{n}", "document": f"{NAMES[n % 8]} {n // 16}"} for n in range(50)]
    )
    asked = {"de": reported(["Paris", "London"], ["Q2", "Q3"]), "fi": [], "tr": reported(["mat"], ["Q1"])}
    told: list[tuple[int, int]] = []
    found = []
    for size, given in ((50, candidates), (7, iter(candidates))):
        monkeypatch.setattr(dense, "BLOCK", size)
        words = (tokenizer(), Length(64), 8, "cpu", "fp32")
        found.append(
            dense.search(whole, CODE, MEWSLIX, asked, given, *words, lambda *done: told.append(done))
        )
    assert found[0] == found[1] and list(found[0]) == ["de", "fi", "tr"] and found[0]["fi"] == []
    assert (3, 53) in told and told[-1] == (53, 53)
    queries = torch.stack([vector(f"who is {name}", whole) for name in ("Paris", "London", "mat")])
    documents = torch.stack([vector(each.inputs["document"], whole) for each in candidates])
    products = (queries.double() @ documents.double().T).round(decimals=4)
    for line, made in zip(products, [*found[0]["de"], *found[0]["tr"]], strict=True):
        scores = [float(line[int(item[1:])]) for item in made.prediction]
        assert scores == sorted(scores, reverse=True) and len(scores) == 20
        assert scores[0] == pytest.approx(float(line.max())) == pytest.approx(made.score, abs=1e-4)
        # Candidates n and n + 8 have one text where n // 16 agrees: the earlier comes first.
        assert made.prediction.index(made.prediction[0]) == 0
        assert int(made.prediction[0][1:]) + 8 == int(made.prediction[1][1:])


def test_candidates_that_share_an_item_and_none_at_all_are_refused() -> None:
    examples = CODE.examples(MEWSLIX, [{"item": "Q1", "document": "a"}])
    words = (tokenizer(), Length(64), 8, "cpu", "fp32")
    asked = {"de": reported(["Paris"], ["Q1"])}
    with pytest.raises(DataError, match="1 of 2 candidates of mewslix share the item"):
        dense.search(model(), CODE, MEWSLIX, asked, [*examples, *examples], *words)
    with pytest.raises(DataError, match="no candidates for mewslix"):
        dense.search(model(), CODE, MEWSLIX, asked, [], *words)
    features = CODE.encode(MEWSLIX, asked["de"], tokenizer(), Length(64), False)
    with pytest.raises(DataError, match="came without the documents"):
        CODE.decode(MEWSLIX, asked["de"], features, [torch.zeros(16)])
    with pytest.raises(DataError, match="has no query with its document to train on"):
        CODE.encode(MEWSLIX, asked["de"], tokenizer(), Length(64), True)


def test_missing_predictions_count_as_nothing_found() -> None:
    asked = reported(["Paris", "London"], ["Q1", "Q2"])
    items = CODE.items(MEWSLIX, asked, {"q0": ["Q9", "Q1"]}, "de")
    assert [one["ap"] for one in items] == [0.5, 0.0]
    assert CODE.score(MEWSLIX, {"ap": math.fsum(one["ap"] for one in items), "items": 2}) == {"map@20": 25.0}


def test_the_whole_way_from_published_files(mirror: Path) -> None:
    files = [mirror / f"files/lareqa/xquad-r/{code}.json.gz" for code in ("de", "en")]
    asked = {
        path.name[:2]: CODE.examples(LAREQA, originals.READERS["lareqa_queries"]([path, *files]))[:5]
        for path in files
    }
    candidates = CODE.examples(LAREQA, originals.READERS["lareqa_candidates"](files))[:60]
    squad = mirror / "datasets/rajpurkar/squad/plain_text/train.parquet"
    pairs = CODE.examples(LAREQA, originals.READERS["squad_sentences"]([squad])[:4])
    assert len(CODE.encode(LAREQA, pairs, tokenizer(), Length(352), True)) == 4
    found = dense.search(
        model(),
        CODE,
        LAREQA,
        asked,
        candidates,
        tokenizer(),
        Length(120),
        16,
        "cpu",
        "fp32",
    )
    items = CODE.items(LAREQA, asked["de"], {made.item: made.prediction for made in found["de"]}, "de")
    assert len(items) == 5 and all(0 <= one["ap"] <= 1 for one in items)
