"""What a writer leaves where it fails or was killed, and who may write to a folder."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from condensation.cli import app
from lossbuf.files import save_tensors, write_whole
from lossbuf.files.locks import LOCK, alone_in
from lossbuf.inputs import InputError

unix = pytest.mark.skipif(sys.platform == "win32", reason="needs the limits and signals of Unix")


def new(file):
    file.write(b"new")


def part_of(path, age):
    """What a writer that is gone for ``age`` seconds left."""
    part = path.with_name(f".{path.name}.{os.urandom(16).hex()}.part")
    part.write_bytes(b"half")
    os.utime(part, (time.time() - age,) * 2)
    return part


@pytest.mark.parametrize("name", ["run.pt", "[a]*?.pt", ".hidden", "ä ö"])
def test_parts_of_killed_writers_go_after_an_hour(tmp_path, name):
    path = tmp_path / name
    old, young = part_of(path, 3700), part_of(path, 3500)
    others = [part_of(tmp_path / f"{name}{more}", 10**6) for more in (".part", "2", ".csv")]
    mine = path.with_name(f".{path.name}.my.part")
    mine.touch()
    os.utime(mine, (0, 0))
    write_whole(path, new)
    assert path.read_bytes() == b"new"
    assert not old.exists()
    assert all(part.exists() for part in (young, mine, *others))


@unix
@pytest.mark.parametrize("limit", [0, 100, 5000, 20_000])
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, limit):
    import resource

    path = tmp_path / "state.pt"
    save_tensors(path, {"x": torch.zeros(5000)})
    before = path.read_bytes()
    assert len(before) > 20_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OSError, match=r"^\[Errno \d+\] File too large: '.*state\.pt'$"):
            save_tensors(path, {"x": torch.ones(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state.pt"]


def test_places_that_hold_no_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(NotADirectoryError, match=r"file'$"):
        write_whole(tmp_path / "file" / "new", new)
    with pytest.raises(OSError, match=r"folder'$") as caught:
        write_whole(tmp_path / "folder", new)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="other") as caught:
        write_whole(tmp_path / "file", lambda file: file.write((tmp_path / "other").read_bytes()))
    assert caught.value.filename == str(tmp_path / "other")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("mine"), OSError("no number")])
def test_other_errors_come_as_they_are(tmp_path, error):
    def fails(file):
        raise error

    with pytest.raises(type(error)) as caught:
        write_whole(tmp_path / "file", fails)
    assert caught.value is error
    assert os.listdir(tmp_path) == []


# ---- one process a folder --------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from lossbuf.files.locks import alone_in
with alone_in(sys.argv[1]):
    print("held", flush=True)
    time.sleep(99)
"""


@contextmanager
def holding(folder):
    """Another process that writes to a folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A folder that another process writes to, with files of its own."""
    folder = tmp_path_factory.mktemp("held") / "out"
    with holding(folder):
        for name in ("one.txt", "two.csv", "three.npz", "four.pt"):
            (folder / name).write_text("of the first")
        yield folder


@unix
def test_a_lock_ends_with_its_process(tmp_path):
    with holding(tmp_path) as child:
        with pytest.raises(InputError, match=r"is being written to by another process: wait"), alone_in(tmp_path):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        with alone_in(tmp_path):
            pass


def test_a_folder_is_free_after_an_error(tmp_path):
    with pytest.raises(KeyError), alone_in(tmp_path):
        raise KeyError
    with alone_in(tmp_path), pytest.raises(InputError, match="another process"), alone_in(tmp_path):
        pass
    assert os.listdir(tmp_path) == [LOCK]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(NotADirectoryError), alone_in(tmp_path / "out"):
        pass


@unix
@pytest.mark.parametrize(
    ("command", "option"),
    [(command, option) for command in ("scan", "coreset", "condense") for option in (None, "--overwrite", "--resume")
     if (command, option) != ("coreset", "--resume")],
)  # fmt: skip
def test_a_second_command_is_refused_and_changes_nothing(held, tmp_path, command, option):
    draws = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=draws.integers(0, 255, (20, 8, 8), dtype=np.uint8), y=np.arange(20) % 2)
    words = [command, str(tmp_path / "data.npz"), "--out", str(held), *([option] if option else [])]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "is being written to by another process" in errors[0]
    assert {path.read_text() for path in held.iterdir()} == {"of the first", ""}
    assert len(list(held.iterdir())) == 5
