"""Original files of data sets that no hub serves as rows, to rows: BUCC, LAReQA, Mewsli-X and CCGbank.

A reader takes the files in the order in which the task's split names them, packed (gzip) or not, and returns
rows in published order. Every complaint names the file and the line, or the part, that is wrong.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xstilts.errors import DataError
from xstilts.families import sentences

Row = dict[str, Any]
Reader = Callable[[Sequence[Path]], list[Row]]

PULL_AGAIN = "take the file from its owner again, whole and unchanged"
RESTORE = "run the owner's get-mewsli-x.sh, which puts the articles' text into the file"

LEAF = re.compile(r"\(<L ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+)>\)")
"""A leaf of CCGbank's AUTO files: category, two part-of-speech tags, word, category with indices."""


def bucc(files: Sequence[Path]) -> list[Row]:
    """Foreign file, English file and gold file of BUCC 2018: a row a sentence, the foreign ones first.

    Lines are "<id>\\t<sentence>", in the gold file "<foreign id>\\t<English id>". Columns: side ("foreign" or
    "english"), id, text, and gold: English ids of a foreign sentence, None for English ones.
    """
    foreign, english, gold = _named(files, "a foreign, an English and a gold file", 3)
    sides = {"foreign": _pairs(foreign), "english": _pairs(english)}
    known = {side: {name for _, name, _ in pairs} for side, pairs in sides.items()}
    right: dict[str, list[str]] = {}
    for number, one, other in _pairs(gold):
        for name, side in ((one, "foreign"), (other, "english")):
            if name not in known[side]:
                raise _wrong(gold, number, f"no {side} sentence has the id {name!r}")
        right.setdefault(one, []).append(other)
    found: list[Row] = [
        {"side": "foreign", "id": name, "text": text.strip(), "gold": right.get(name, [])}
        for _, name, text in sides["foreign"]
    ]
    for _, name, text in sides["english"]:
        found.append({"side": "english", "id": name, "text": text.strip(), "gold": None})
    return found


def lareqa_queries(files: Sequence[Path]) -> list[Row]:
    """Questions of the first file (XQuAD-R), with their right answers in all the other files.

    Columns: item (SQuAD's question id, the same in every language), query, targets (candidates as
    `lareqa_candidates` names them: in each language the sentence that the answer begins in, and any equal to
    it in its paragraph), cluster (the article's title).
    """
    own, *every = _named(files, "a language's own file, then those of all languages", 2, more=True)
    targets: dict[str, list[str]] = {}
    for path in every:
        for paragraph in _paragraphs(path):
            names = paragraph["names"]
            for question in paragraph["questions"]:
                said = _sentence_of(path, question, paragraph["spans"], paragraph["texts"])
                same = [name for name, text in zip(names, paragraph["texts"], strict=True) if text == said]
                targets.setdefault(question["id"], []).extend(same)
    return [
        {
            "item": question["id"],
            "query": question["question"],
            "targets": targets.get(question["id"], []),
            "cluster": paragraph["title"],
        }
        for paragraph in _paragraphs(own)
        for question in paragraph["questions"]
    ]


def lareqa_candidates(files: Sequence[Path]) -> list[Row]:
    """Every sentence of XQuAD-R's files, in order: item, document (the sentence), context (its paragraph).

    The item is "<language>_<paragraph>_<sentence>", as the benchmark's code has it: the file's language,
    paragraphs numbered from 1 through the file, sentences from 0 through the paragraph.
    """
    return [
        {"item": name, "document": text, "context": paragraph["context"]}
        for path in files
        for paragraph in _paragraphs(path)
        for name, text in zip(paragraph["names"], paragraph["texts"], strict=True)
    ]


def squad_sentences(files: Sequence[Path]) -> list[Row]:
    """SQuAD as the hub serves it, each question with the sentence that its first answer begins in.

    Columns: item, query, document (the sentence), context (its paragraph), title. Sentences are those of
    `families.sentences`; questions without an answer are left out.
    """
    import pyarrow.parquet as pq  # 0.2 s, and the other readers need none of it

    found: list[Row] = []
    context, spans = "", sentences.split("")
    for row in (row for path in files for row in pq.read_table(path, partitioning=None).to_pylist()):
        if not row["answers"]["answer_start"]:
            continue
        if row["context"] != context:  # questions of one paragraph follow one another
            context, spans = row["context"], sentences.split(row["context"])
        start = row["answers"]["answer_start"][0]
        begin, end = next((span for span in spans if start < span[1]), spans[-1])
        said = {"query": row["question"], "document": context[begin:end], "context": context}
        found.append({"item": row["id"], **said, "title": row["title"]})
    return found


def mewslix_queries(files: Sequence[Path]) -> list[Row]:
    """Mentions in Wikinews articles (wikinews_mentions-dev.jsonl or -test.jsonl): a row a mention.

    Columns: item, query (see `_mention`), targets (the one entity meant), language, cluster (the article).
    """
    found = []
    for path, number, article in _objects(files):
        with _Part(path, number):
            context = article["context"]
            for mention in article["mentions"]:
                found.append(
                    {
                        "item": mention["example_id"],
                        "query": _mention(path, number, context, mention["mention_span"]),
                        "targets": [mention["entity_id"]],
                        "language": context["language"],
                        "cluster": context["document_id"],
                    }
                )
    return found


def mewslix_candidates(files: Sequence[Path]) -> list[Row]:
    """Entities (candidate_set_entities.jsonl): item (Wikidata id) and document (see `_description`)."""
    found = []
    for path, number, entity in _objects(files):
        with _Part(path, number):
            found.append({"item": entity["entity_id"], "document": _description(entity)})
    return found


def mewslix_pairs(files: Sequence[Path]) -> list[Row]:
    """English Wikipedia mentions with their entity (wikipedia_pairs-train.jsonl or -dev.jsonl).

    Columns: item, query, document, entity (Wikidata id).
    """
    found = []
    for path, number, pair in _objects(files):
        with _Part(path, number):
            said, entity = pair["contextual_mention"], pair["entity"]
            found.append(
                {
                    "item": said["mention"]["example_id"],
                    "query": _mention(path, number, said["context"], said["mention"]["mention_span"]),
                    "document": _description(entity),
                    "entity": entity["entity_id"],
                }
            )
    return found


def ccgbank(files: Sequence[Path]) -> list[Row]:
    """Derivations of CCGbank (LDC2005T13), files data/AUTO/<section>/*.auto: item, words, tags (categories).

    A line "ID=wsj_0001.1 PARSER=GOLD NUMPARSE=1" and a line with the tree follow each other; the tree's
    leaves are "(<L category POS POS word indexed-category>)".
    """
    found: list[Row] = []
    for path in files:
        name: str | None = None
        for number, line in _lines(path):
            if line.startswith("ID="):
                name = line[3:].partition(" ")[0]
            elif line.strip():
                leaves = LEAF.findall(line)
                if name is None or not leaves or len(leaves) != line.count("(<L "):
                    raise _wrong(
                        path, number, "no tree whose leaves are (<L category POS POS word category>)"
                    )
                words, tags = [leaf[3] for leaf in leaves], [leaf[0] for leaf in leaves]
                found.append({"item": name, "words": words, "tags": tags})
                name = None
    return found


READERS: dict[str, Reader] = {
    "bucc": bucc,
    "lareqa_queries": lareqa_queries,
    "lareqa_candidates": lareqa_candidates,
    "squad_sentences": squad_sentences,
    "mewslix_queries": mewslix_queries,
    "mewslix_candidates": mewslix_candidates,
    "mewslix_pairs": mewslix_pairs,
    "ccgbank": ccgbank,
}
"""Name, as in `Split.reader` -> what makes rows of its files."""


class _Part:
    """Turns a missing or mistyped field met inside into a complaint about this line of this file."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: Any) -> None:
        if isinstance(problem, KeyError):
            raise _wrong(self.path, self.number, f"there is no field {problem.args[0]!r}") from problem
        if isinstance(problem, TypeError | IndexError | ValueError):
            raise _wrong(self.path, self.number, f"a field has another form ({problem})") from problem


def _mention(path: Path, number: int, context: Mapping[str, Any], span: Mapping[str, Any]) -> str:
    """ "<mention>: <left> { <mention> } <right>" with the mention's own sentence on either side.

    The mention comes first so that no limit of length cuts it off; braces of the text become parentheses. A
    mention across sentences keeps all of them. As the benchmark's baseline writes it.
    """
    text, begin, end = context["text"], span["start"], span["end"]
    if text[begin:end] != span["text"]:
        remedy = PULL_AGAIN if text else RESTORE
        raise DataError(f"{path}, line {number}: the text lacks the mention {span['text']!r}", remedy)
    touched = [one for one in context["sentence_spans"] if one["start"] < end and begin < one["end"]]
    first = min([begin, *(one["start"] for one in touched)])
    last = max([end, *(one["end"] for one in touched)])
    left, right = (_unbraced(part) for part in (text[first:begin], text[end:last]))
    return _spaced(f"{span['text']}: {left} {{ {span['text']} }} {right}")


def _unbraced(text: str) -> str:
    return re.sub(r"\{(.*?)\}", r"(\1)", text)


def _description(entity: Mapping[str, Any]) -> str:
    """The sentences of an entity's description: up to three of the beginning of its Wikipedia page."""
    text = entity["description"]
    return _spaced(" ".join(text[span["start"] : span["end"]] for span in entity["sentence_spans"]))


def _spaced(text: str) -> str:
    """On one line, pairs of spaces made one, as the benchmark's baseline does."""
    return " ".join(text.splitlines()).replace("  ", " ").strip()


def _paragraphs(path: Path) -> Iterator[Row]:
    """Paragraphs of an XQuAD-R file: context, title, questions, and its sentences' spans, texts and names."""
    with _open(path) as file:
        try:
            articles = json.load(file)["data"]
        except json.JSONDecodeError as problem:
            raise _wrong(path, problem.lineno, f"no JSON ({problem.msg})") from problem
        except (KeyError, TypeError) as problem:
            raise _wrong(path, 1, "no SQuAD file: it has no `data`") from problem
    language = path.name.partition(".")[0]
    every = [(article, paragraph) for article in articles for paragraph in article["paragraphs"]]
    for number, (article, paragraph) in enumerate(every, 1):
        if "sentence_breaks" not in paragraph:
            without = f"{path}, paragraph {number}: there are no sentence_breaks"
            raise DataError(without, "take XQuAD-R's file from its owner; XQuAD's own has no sentences")
        spans = [(begin, end) for begin, end in paragraph["sentence_breaks"]]
        yield {
            "context": paragraph["context"],
            "title": article.get("title", ""),
            "questions": paragraph["qas"],
            "spans": spans,
            "texts": [paragraph["context"][begin:end] for begin, end in spans],
            "names": [f"{language}_{number}_{place}" for place in range(len(spans))],
        }


def _sentence_of(
    path: Path, question: Mapping[str, Any], spans: Sequence[tuple[int, int]], texts: Sequence[str]
) -> str:
    """The sentence that the answer begins in."""
    start = question["answers"][0]["answer_start"]
    for (begin, end), text in zip(spans, texts, strict=True):
        if begin <= start < end:
            return text
    raise DataError(f"{path}: the answer of question {question['id']} begins in no sentence", PULL_AGAIN)


def _named(files: Sequence[Path], wanted: str, count: int, more: bool = False) -> Sequence[Path]:
    if len(files) == count or (more and len(files) > count):
        return files
    shown = ", ".join(str(path) for path in files) or "none"
    raise DataError(f"{wanted} belong together, and there is {shown}", "mend `files` of the task's split")


def _pairs(path: Path) -> list[tuple[int, str, str]]:
    """Number and the two fields of each line; empty ones are passed over."""
    found = []
    for number, line in _lines(path):
        one, tab, other = line.partition("\t")
        if not tab and line:
            raise _wrong(path, number, "no two fields with a tab between them")
        if tab:
            found.append((number, one, other))
    return found


def _objects(files: Sequence[Path]) -> Iterator[tuple[Path, int, Any]]:
    """File, line number and object of every line of JSON."""
    for path in files:
        for number, line in _lines(path):
            if line.strip():
                try:
                    yield path, number, json.loads(line)
                except json.JSONDecodeError as problem:
                    raise _wrong(path, number, f"no JSON ({problem.msg})") from problem


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without the line end; only \\n and \\r\\n end a line, U+2028 does not."""
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            yield number, line.rstrip("\n").removesuffix("\r")


@contextmanager
def _open(path: Path) -> Iterator[io.TextIOWrapper]:
    """The file's text, unpacked where it is packed, by its first bytes.

    Raises:
        DataError: there is no such file, it is cut off, or it is no text in UTF-8.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            inner: Any = gzip.GzipFile(fileobj=raw) if packed else raw
            yield io.TextIOWrapper(inner, encoding="utf-8", newline="\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as problem:
        raise DataError(f"{path} cannot be read ({problem})", PULL_AGAIN) from problem


def _wrong(path: Path, number: int, problem: str) -> DataError:
    return DataError(f"{path}, line {number}: {problem}", PULL_AGAIN)
