"""A data folder of made-up rows in the exact published formats, for every task of the registry.

    make(tmp_path / "mirror", tasks=["xnli", "udpos"], rows=12, languages=["en", "th"])
    encoder(tmp_path / "mirror")         # made/encoder, one layer of width 16 that knows every script

Equal arguments give equal bytes. A data set that the registry names and `made_rows` does not know is a
KeyError: what is added there is to be added here.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Collection, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

import made_rows
from made_rows import Row, said
from xstilts.families.reading import in_selection
from xstilts.tasks import languages as tongues
from xstilts.tasks import registry
from xstilts.tasks.manifest import FILE, sha256_of
from xstilts.tasks.task import Family, Split, Task

BOTH: tuple[Literal["dev", "test"], ...] = ("dev", "test")
ENCODER = "made/encoder"
SHARDED = "wikimedia/wikipedia"
"""Served in several files a split."""
Place = tuple[str, str, str]
"""Hub id, config, split."""


def make(
    folder: Path, tasks: Iterable[str] | None = None, rows: int = 24, languages: Iterable[str] | None = None
) -> Path:
    """Writes every file that `tasks` (all but the generated world's) are trained, chosen and reported on, dev
    and test, in `languages` (all), with so many rows a language and split; and the manifest. The folder."""
    wanted = None if languages is None else frozenset(languages)
    chosen = everything() if tasks is None else [registry.task(name) for name in tasks]
    found = {each for task in chosen for each in splits(task, wanted)}
    spoken: dict[Place, set[str]] = {}
    for language, split in found:
        if split.files:
            _original(folder, split, language, rows)
        else:
            spoken.setdefault(split.place(), set()).add(language)
    held = _held_out()
    for place, codes in spoken.items():
        _published(folder, place, sorted(codes), rows, held.get(place))
    enter(folder)
    return folder


def everything() -> list[Task]:
    """Every task of the registry but those of the generated world."""
    return [task for task in registry.all_tasks() if not _of_the_world(task)]


def splits(task: Task, languages: Collection[str] | None = None) -> Iterator[tuple[str, Split]]:
    """Language and published split of all that a job could ask of the task, each part on its own."""
    for language, split in _asked(task, languages):
        yield from ((language, each) for each in (split, *split.more))


def without(folder: Path, *paths: str) -> None:
    """Takes files out of the folder and out of its manifest."""
    for path in paths:
        (folder / path).unlink()
    enter(folder)


def encoder(
    folder: Path, name: str = ENCODER, layers: int = 1, width: int = 16, positions: int = 130
) -> Path:
    """A tiny untrained encoder of XLM-R's shape below `models/`, whose vocabulary has every script."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    from xstilts.train.pretrain import train_tokenizer

    spoken = [each.code for each in tongues.all_languages() if each.script in made_rows.SYLLABLES]
    texts = [said(code, range(at, at + 8)) for code in spoken for at in range(0, made_rows.MEANINGS, 8)]
    tokenizer = train_tokenizer(texts, 900)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * width, max_position_embeddings=positions + 2, pad_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name))
        model = XLMRobertaModel(config)
    path = folder / "models" / name
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    enter(folder)
    return path


def enter(folder: Path) -> None:
    """Writes the manifest of what lies in the folder now."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    files = [_entry(folder, path) for path in paths]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"version": 1, "files": files}, indent=0), encoding="utf-8")


def _of_the_world(task: Task) -> bool:
    places = [task.train, task.dev, task.test]
    return any(place is not None and place.path == "world" for place in places)


def _asked(task: Task, languages: Collection[str] | None) -> Iterator[tuple[str, Split]]:
    def meant(codes: Iterable[str]) -> list[str]:
        return [code for code in codes if languages is None or code in languages]

    for reporting in BOTH:
        for fitting in registry.fittings(task, reporting):
            yield fitting.language, fitting.train
            if fitting.selection is not None:
                yield fitting.language, fitting.selection
            if fitting.task.translations is not None:
                for language in meant(task.languages):
                    yield language, fitting.task.translations.at(fitting.task.code(language))
        for language in meant(task.reported(reporting)):
            split = task.place(reporting, language)
            assert split is not None
            yield language, split
    if task.candidates is not None:
        yield "all", task.candidates
    if task.family is Family.MASKED_LM and task.train is not None:
        for language in meant(each.code for each in tongues.all_languages()):
            yield language, task.train.at(language)


def _held_out() -> dict[Place, tuple[str, float]]:
    """Published split -> the column and share by which some job holds out a part of it."""
    fittings = [each for task in everything() for split in BOTH for each in registry.fittings(task, split)]
    holdouts = {each.train.place(): each.train.holdout for each in fittings if each.train.holdout is not None}
    return {place: (holdout.by, holdout.share) for place, holdout in holdouts.items()}


def _published(
    folder: Path, place: Place, spoken: list[str], rows: int, held: tuple[str, float] | None
) -> None:
    path, config, split = place
    name = path if path in made_rows.HUB else f"{path}/{config.partition('.')[0]}"
    maker, schema = made_rows.HUB[name]

    def made(language: str) -> list[Row]:
        every = (maker(f"{name}/{split}", language, index) for index in count())
        return [next(every) for _ in range(rows)] if held is None else _on_both_sides(every, rows, *held)

    found = [row for language in spoken for row in made(language)]
    half = len(found) // 2 if path == SHARDED else len(found)
    shards = [each for each in (found[:half], found[half:]) if each]
    for number, shard in enumerate(shards):
        ending = "" if len(shards) == 1 else f"-{number:05d}-of-{len(shards):05d}"
        target = folder / "datasets" / path / config / f"{split}{ending}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(shard, schema=schema), target)


def _on_both_sides(every: Iterator[Row], rows: int, by: str, share: float) -> list[Row]:
    """So many of `every`, a sixth of them on the side that is held out, which has few by chance alone."""
    sides: dict[bool, list[Row]] = {True: [], False: []}
    wanted = {True: max(3, rows // 6), False: rows - max(3, rows // 6)}
    for row in every:
        side = in_selection(row[by], share)
        if len(sides[side]) < wanted[side]:
            sides[side].append(row)
        elif all(len(sides[each]) == wanted[each] for each in sides):
            break
    return [*sides[False], *sides[True]]


def _original(folder: Path, split: Split, language: str, rows: int) -> None:
    """Files that no hub serves; those that hold several languages have all of them."""
    if split.path == "bucc2018":
        _bucc(folder, split, language, rows)
    elif split.path == "lareqa":
        for code in registry.task("lareqa").languages:
            _put(folder / f"files/lareqa/xquad-r/{code}.json.gz", json.dumps(_xquad_r(code, rows)))
    elif split.path == "mewslix":
        _mewslix(folder, split, rows)
    elif split.path == "ccgbank":
        for section in ("00", "02", "10", "21"):
            _ccgbank(folder / f"files/ccgbank/data/AUTO/{section}/wsj_{section}01.auto", section, rows)
    else:
        raise KeyError(split.path)


def _bucc(folder: Path, split: Split, language: str, rows: int) -> None:
    """As many sentences a side, in two orders; of three, two have their translation, and two are alike."""
    foreign, english, gold = (folder / f"{name}.gz" for name in split.files)
    seed = f"bucc2018/{language}/{split.split}"
    meanings = [made_rows.some(made_rows.draw_of(seed, index), 6) for index in range(2 * rows)]
    meanings[1] = meanings[0]
    own = {f"{language}-{index + 1:09d}": meanings[index] for index in range(rows)}
    paired = [index for index in range(rows) if index % 3 != 2 and index > 1]
    other = [meanings[index] for index in [*paired[::-1], *range(rows, 2 * rows - len(paired))]]
    named = {f"en-{index + 1:09d}": each for index, each in enumerate(other)}
    _put(foreign, "".join(f"{name}\t{said(language, each)}\n" for name, each in own.items()))
    _put(english, "".join(f"{name}\t{said('en', each)}\n" for name, each in named.items()))
    names, english_names = list(own), list(named)
    pairs = [(names[index], english_names[place]) for place, index in enumerate(paired[::-1])]
    _put(gold, "".join(f"{one}\t{two}\n" for one, two in sorted(pairs)))


def _xquad_r(language: str, rows: int) -> Any:
    """Two questions a paragraph, two paragraphs an article; sentences beside XQuAD's own fields."""
    articles: list[Any] = []
    for number in range((rows + 1) // 2):
        passage = made_rows.passage_of("lareqa", language, number)
        asked = [
            {"id": f"made{number:04d}{place}", "question": question,
             "answers": [{"text": answer, "answer_start": start}]}
            for place, (question, answer, start) in enumerate(passage.questions[:2])
        ]  # fmt: skip
        if number % 2 == 0:
            articles.append({"title": f"Made_up_{number // 2}", "paragraphs": []})
        paragraph = {"context": passage.context, "qas": asked, "sentence_breaks": passage.breaks}
        paragraph["sentences"] = [passage.context[begin:end] for begin, end in passage.breaks]
        articles[-1]["paragraphs"].append(paragraph)
    return {"data": articles, "version": "1.1"}


def _mewslix(folder: Path, split: Split, rows: int) -> None:
    """Entities are told by two words, which their mentions have; half of the entities are never meant."""
    entities = [_entity(number) for number in range(2 * rows)]
    name = split.files[0]
    if name.endswith("candidate_set_entities.jsonl"):
        lines = entities
    elif "wikipedia_pairs" in name:
        said_of = [(_article(split.split, "en", number), entities[number]) for number in range(rows)]
        lines = [
            {"contextual_mention": {"context": article["context"], "mention": article["mentions"][0]},
             "entity": entity}
            for article, entity in said_of
        ]  # fmt: skip
    else:
        spoken = registry.task("mewslix").languages
        lines = [_article(split.split, code, number) for number in range(rows) for code in spoken]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    _put(folder / name, text)


def _entity(number: int) -> dict[str, Any]:
    one, two = said("en", _name(number)), said("en", made_rows.some(made_rows.draw_of("entity", number), 6))
    text = f"{one} {two}"
    spans = [{"start": 0, "end": len(one)}, {"start": len(one) + 1, "end": len(text)}]
    return {"entity_id": f"Q{number + 1}", "title": one, "description": text, "sentence_spans": spans}


def _name(number: int) -> list[int]:
    return [number % made_rows.MEANINGS, (number // 8 + 7 * number) % made_rows.MEANINGS]


def _article(split: str, language: str, number: int) -> dict[str, Any]:
    """Two sentences, the second with a mention."""
    meanings = made_rows.some(made_rows.draw_of(f"mewslix/{split}/{language}", number), 8)
    first = said(language, meanings[:4])
    mention = said(language, _name(number)).rstrip(".。")
    second = f"{said(language, meanings[4:])} {mention} {said(language, meanings[:2])}"
    text = f"{first} {second}"
    begin = text.rindex(mention)
    name = f"{language}-{split}-{number}"
    spans = [{"start": 0, "end": len(first)}, {"start": len(first) + 1, "end": len(text)}]
    span = {"start": begin, "end": begin + len(mention), "text": mention}
    context = {"document_id": name, "language": language, "text": text, "sentence_spans": spans}
    said_of = {"example_id": name, "entity_id": f"Q{number + 1}", "mention_span": span}
    return {"context": context, "mentions": [said_of]}


def _ccgbank(path: Path, section: str, rows: int) -> None:
    """Derivations that lean to the right; a word's meaning decides its category."""
    categories = ("NP", "N", "NP[nb]/N", "S[dcl]\\NP", "(S[dcl]\\NP)/NP", "(NP\\NP)/NP", "S/S", ".")
    lines = []
    for index in range(rows):
        length = made_rows.LONG_WORDS if index == made_rows.LONG else 4 + index % 5
        draw = made_rows.draw_of(f"ccgbank/{section}", index)
        leaves = []
        for meaning in (draw.randrange(made_rows.MEANINGS) for _ in range(length)):
            category, said_as = categories[meaning % len(categories)], made_rows.word("en", meaning)
            leaves.append(f"(<L {category} NN NN {said_as} {category}>)")
        tree = leaves[-1]
        for leaf in reversed(leaves[:-1]):
            tree = f"(<T S[dcl] 0 2> {leaf} {tree} )"
        lines.append(f"ID=wsj_{section}01.{index + 1} PARSER=GOLD NUMPARSE=1\n{tree}\n")
    _put(path, "".join(lines))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    entry: dict[str, Any] = {"path": name, "dataset": "", "config": "", "split": "", "rows": None}
    entry |= {"bytes": path.stat().st_size, "sha256": sha256_of(path), "columns": []}
    if name.startswith("datasets/"):
        file = pq.ParquetFile(path)
        dataset, config = "/".join(name.split("/")[1:-2]), name.split("/")[-2]
        split = path.stem.partition("-0")[0]
        entry |= {"dataset": dataset, "config": config, "split": split, "rows": file.metadata.num_rows}
        entry["columns"] = file.schema_arrow.names
    return entry | {"licence": "made up", "origin": "made up", "note": ""}
