"""What made a result, so that old and new numbers never mix: a hash of the code that determines it."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

# Parts of this package that decide what a map, or a judgement of maps, is. Networks have a fingerprint of their own.
EXPLAINING = ("data", "classifiers", "explainers", "draws.py", "cluster.py", "pipelines/attribution")
JUDGING = (*EXPLAINING, "evaluation", "pipelines/evaluation")

REPORT_SCHEMA = 4  # of the accuracy report: raised whenever a field changes its meaning or goes


@functools.cache
def code_hash(parts: tuple[str, ...]) -> str:
    """Hash of the source files of some parts of this package: 16 hex digits.

    Args:
        parts: folders and files below the package, such as `EXPLAINING`.

    Raises:
        FileNotFoundError: a part that does not exist.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for part in sorted(parts):
        path = package / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


# what has to be the same in two records of one method's maps
LIKE = ("method", "parameters", "segments", "model", "data", "train", "precision", "device", "code")


def made_like(made: dict) -> dict:
    """What has to be the same in two records of one method's maps: all that determines them; null where a record of an
    older version lacks it."""
    return {key: made.get(key) for key in LIKE}


# what has to be the same in maps of different methods that are shown or compared side by side, and what to call it
SHARED = {
    "model": "another network",
    "data": "other images",
    "parameters": "other parameters",
    "segments": "other superpixels",
    "train": "other training images",
    "code": "another version of the code",
}


def made_otherwise(made: dict, expected: dict) -> str | None:
    """In words, the first of SHARED in which a record of maps differs from what is expected; None if all agree.

    What `expected` does not name is not compared.
    """
    return next((words for key, words in SHARED.items() if key in expected and made.get(key) != expected[key]), None)
