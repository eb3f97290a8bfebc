import os
import subprocess
import sys

import pytest

from iic.files import remove_partial, write_whole


def test_a_failed_save_leaves_nothing(tmp_path):
    def half(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a" / "b" / "file", half)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_whole(path, lambda file: file.write(b"old"))
    with pytest.raises(OSError, match="full"):
        write_whole(path, lambda _: (_ for _ in ()).throw(OSError("disk full")))
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = (
        "import os, sys, pathlib; from iic.files import write_whole\n"
        "def killed(file): file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
        "write_whole(pathlib.Path(sys.argv[1]) / 'v1' / 'file', killed)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    (tmp_path / f".other.{os.getpid()}.partial").write_bytes(b"still being written")
    assert len(list(tmp_path.rglob(".*.partial"))) == 2
    assert not (tmp_path / "v1" / "file").exists()
    assert len(remove_partial(tmp_path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == [f".other.{os.getpid()}.partial"]
