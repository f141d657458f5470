"""The files of a model folder: which must be there, their checksums, and how to fetch one from a hub.

Kept apart from `families.encoder`, which imports torch: a plan needs checksums in well under a second.
"""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from xstilts.errors import ModelError

TOKENIZER_FILES = (
    "tokenizer.json",
    "sentencepiece.bpe.model",  # XLM-R
    "spm.model",  # mDeBERTa-v3
    "spiece.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
)
"""Any one of them is enough for AutoTokenizer; the first is what this project writes."""

DECIDING = ("*.safetensors", "*.safetensors.index.json", "*.model", "*.spm", "*.txt", "tokenizer*.json")
"""What can change a result, beside the JSON files below; a README cannot."""

JSON_FILES = (
    "config.json",
    "vocab.json",
    "target_vocab.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
"""Fields of config.json in which descendants of one pretrained encoder agree."""

_CHUNK = 1 << 20


def check(folder: Path) -> None:
    """Refuses a folder that is no model snapshot.

    Raises:
        ModelError: says which file is missing and what to do.
    """
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}", "give a folder with config.json, or a hub id")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json", "give the folder that save_pretrained wrote")
    try:
        json.loads((folder / "config.json").read_bytes())
    except ValueError as problem:
        raise ModelError(f"{folder}/config.json is not JSON", f"fetch it again ({problem})") from problem
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer", f"put one of {', '.join(TOKENIZER_FILES)} there")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        remedy = (
            "convert its pickled weights with save_pretrained; unpickling runs whatever code is in the file"
            if pickled
            else "put model.safetensors there, as save_pretrained writes it"
        )
        raise ModelError(f"{folder} has no safetensors weights", remedy)


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that can change a result, by file name, sorted: the identity of a local model.

    Raises:
        ModelError: the folder is no model snapshot.
    """
    check(folder)
    names = {path.name for pattern in DECIDING for path in folder.glob(pattern) if path.is_file()}
    names |= {name for name in JSON_FILES if (folder / name).is_file()}
    return {name: sha256(folder / name) for name in sorted(names)}


def unlike(folder: Path, other: Path) -> dict[str, tuple[object, object]]:
    """Fields of SHAPE in which two model folders differ, with both values: {} where one can descend from the
    other. A field that one of them leaves out is its architecture's default and is not compared.

    Raises:
        ModelError: one of them is no model snapshot.
    """
    check(folder)
    check(other)
    one, two = (json.loads((each / "config.json").read_bytes()) for each in (folder, other))
    both = [name for name in SHAPE if name in one and name in two]
    return {name: (one[name], two[name]) for name in both if one[name] != two[name]}


def cased_without_saying(folder: Path) -> bool:
    """Whether a folder's only tokenizer file is a WordPiece vocab.txt that has words in upper case."""
    saying = (*(name for name in TOKENIZER_FILES if name != "vocab.txt"), "tokenizer_config.json")
    if not (folder / "vocab.txt").is_file() or any((folder / name).is_file() for name in saying):
        return False
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return any(word != word.lower() for word in words if not word.startswith("["))


def find(name: str, data: Path | None) -> Path | None:
    """Where an encoder lies on this machine: a folder of the user's, else of the data folder, else None."""
    places = [Path(name)] + ([data / "models" / name] if data else [])
    return next((folder for folder in places if (folder / "config.json").is_file()), None)


def decides(name: str) -> bool:
    """Whether a file of this name can change a result."""
    return name in JSON_FILES or any(fnmatch(name, pattern) for pattern in DECIDING)


def sha256(path: Path) -> str:
    """SHA-256 of a file; read again only when its size or time of change differ."""
    about = path.stat()
    return _sha256(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, changed: int) -> str:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def hub(name: str, revision: str | None) -> Path:
    """The local snapshot of a hub model at a pinned commit, fetched once (safetensors and tokenizer only).

    Raises:
        ModelError: no commit is given, the hub is not reached, or it has no such model.
    """
    if revision is None:
        remedy = "give `revision` (a commit of 40 hex digits), or a folder, or a model of the mirror"
        raise ModelError(f"model {name!r} is no folder and has no revision", remedy)
    from huggingface_hub import snapshot_download  # 0.3 s, and not needed for local models

    try:
        fetched = snapshot_download(name, revision=revision, allow_patterns=[*DECIDING, *JSON_FILES])
    except (OSError, ValueError) as problem:  # the hub's own errors derive from these two
        reason = str(problem).split("\n", 1)[0]
        remedy = f"check name and network, or give a local folder ({type(problem).__name__}: {reason})"
        raise ModelError(f"cannot fetch {name!r} at {revision[:12]}", remedy) from problem
    folder = Path(fetched)
    check(folder)
    return folder
