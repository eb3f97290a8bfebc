"""Files that are there whole or not at all, and the record beside each artefact of what made it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write to a temporary file beside `path` and rename it; on any failure the folder is left as it was.

    Args:
        path: the file; folders that are missing are made.
        write: writes the content into the open binary file.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        for folder in made:  # innermost first
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def remove_partial(folder: Path) -> list[Path]:
    """Delete what killed processes left half-written below `folder`; files of living processes stay."""
    removed = []
    for path in list(folder.rglob(f".*{PARTIAL}")):
        process = path.name.removesuffix(PARTIAL).rsplit(".", 1)[-1]
        if process.isdecimal() and not _lives(int(process)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed.append(path)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
    return removed


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes; of a folder's index.json, which holds the digests of its other files."""
    path = path / "index.json" if path.is_dir() else path
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def altered(path: Path, digest: str) -> bool:
    """Whether the artefact at `path` has another `sha256`, or is a folder some of whose files are not what its index
    says; one that cannot be read is left to whoever loads it.
    """
    try:
        if sha256(path) != digest:
            return True
        listed = json.loads((path / "index.json").read_text())["sha256"] if path.is_dir() else {}
        return any(sha256(path / name) != theirs for name, theirs in listed.items())
    except (OSError, ValueError, KeyError):
        return False


def record_path(path: Path) -> Path:
    """Where the record of the artefact at `path` lies: `<name>.made.json` beside it."""
    return path.with_name(f"{path.name}.made.json")


def write_record(path: Path, record: dict) -> None:
    """Write the record of what made the artefact at `path`, its own sha256 included."""
    text = json.dumps({"sha256": sha256(path), **record}, indent=2)
    write_whole(record_path(path), lambda file: file.write(text.encode()))
