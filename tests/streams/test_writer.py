"""Tests of lossbuf.streams.writer, and of what a user sees when it cannot write."""

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import lossbuf
from lossbuf.streams import LossBufferStream
from lossbuf.streams import writer as module
from tests.streams.simulated import data, rows_of, steps, watch

DATA = data(200)
MESSAGE = r"`folder` must take the rows of the stream \(.*\), got .*Files written so far are whole"


def eager(folder, **settings):
    """A stream whose every step goes to a file."""
    stream = LossBufferStream(2, folder, rows_a_file=1, **settings)
    stream.stage.capacity = 1
    return stream


def step(stream, name):
    stream.update(torch.randn(1, 2), torch.tensor([0]), [name])


def until_it_fails(stream):
    """Steps until the error comes, which must not take long."""
    for number in range(10_000):
        step(stream, 1000 + number)
        time.sleep(0.001)


def test_a_folder_that_vanishes(tmp_path):
    stream = eager(tmp_path / "rows")
    step(stream, 1)
    stream.flush()
    shutil.move(tmp_path / "rows", tmp_path / "elsewhere")
    with pytest.raises(OSError, match=MESSAGE + r".*") as caught:
        until_it_fails(stream)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert rows_of(tmp_path / "elsewhere")["id"].tolist() == [1]
    assert not (tmp_path / "rows").exists()
    for call in (stream.flush, stream.end_epoch, stream.state_dict, stream.close):
        with pytest.raises(OSError, match=MESSAGE):
            call()
    assert stream._writer._thread is None
    stream.close()


def test_a_write_that_fails_leaves_no_part(tmp_path, monkeypatch):
    stream = eager(tmp_path)
    step(stream, 1)
    stream.flush()

    def full(table, file, **settings):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    step(stream, 2)
    with pytest.raises(OSError, match="No space left on device"):
        stream.flush()
    monkeypatch.undo()
    with pytest.raises(OSError, match=MESSAGE):
        step(stream, 3)
    assert os.listdir(tmp_path) == ["rows-00000-000000.parquet"]


def test_the_error_does_not_hide_another(tmp_path, monkeypatch):
    monkeypatch.setattr(pq, "write_table", lambda *_, **__: 1 / 0)
    stream = eager(tmp_path)
    step(stream, 1)
    with pytest.raises(KeyError, match="mine"), stream:
        raise KeyError("mine")


def test_after_a_failure_a_fresh_stream_goes_on_from_the_checkpoint(tmp_path, monkeypatch):
    stream = eager(tmp_path / "rows")
    step(stream, 1)
    stream.save(tmp_path / "state.pt")
    with monkeypatch.context() as broken:
        broken.setattr(pq, "write_table", lambda *_, **__: 1 / 0)
        step(stream, 2)
        with pytest.raises(OSError, match="ZeroDivisionError"):
            stream.flush()
    stream.load(tmp_path / "state.pt")  # the same object does as well
    step(stream, 2)
    stream.close()
    assert rows_of(tmp_path / "rows")["id"].tolist() == [1, 2]


def test_the_training_waits_where_the_disk_is_slow(tmp_path, monkeypatch):
    """The queue is bounded: no more blocks are held than it takes, and none is lost."""
    release, written = threading.Event(), []
    real = pq.write_table

    def slow(table, file, **settings):
        release.wait(10)
        written.append(table.num_rows)
        real(table, file, **settings)

    monkeypatch.setattr(pq, "write_table", slow)
    stream = eager(tmp_path)
    blocks = module.WAITING_BLOCKS + 2  # one is written, one lies in the stage
    done = threading.Event()

    def train():
        for number in range(blocks + 5):
            step(stream, number)
        done.set()

    training = threading.Thread(target=train)
    training.start()
    assert not done.wait(0.5)
    assert stream._digested == blocks  # one of them has nowhere to go yet
    release.set()
    training.join(10)
    assert done.is_set()
    stream.close()
    assert rows_of(tmp_path)["id"].tolist() == list(range(blocks + 5))


def test_two_streams_on_one_folder(tmp_path):
    one, other = eager(tmp_path), eager(tmp_path)
    for stream, name in ((one, 1), (other, 2)):
        step(stream, name)
    with pytest.raises(OSError, match=r"another stream writes to it, too: rows-00000-000000\.parquet"):
        one.flush()
    other.flush()
    with pytest.raises(OSError, match="another stream"):
        one.close()
    other.close()
    assert rows_of(tmp_path)["id"].tolist() == [2]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder(tmp_path):
    stream = eager(tmp_path / "rows")
    (tmp_path / "rows").chmod(0o500)
    step(stream, 1)
    with pytest.raises(OSError, match="Permission"):
        stream.flush()
    (tmp_path / "rows").chmod(0o700)


LIMITED = """
import resource, sys, torch
from lossbuf.streams import LossBufferStream
torch.manual_seed(0)
stream = LossBufferStream(2, sys.argv[1], rows_a_file=10)
stream.stage.capacity = 100
ids = list(range(10))
stream.update(torch.randn(10, 2), torch.zeros(10, dtype=torch.int64), ids)
stream.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    for number in range(1, 10_000):
        ids = torch.randint(2**60, (100_000,))
        stream.update(torch.randn(100_000, 2), torch.zeros(100_000, dtype=torch.int64), ids)
except OSError as error:
    print(error, number < 100)
"""


@pytest.mark.skipif(os.name != "posix", reason="no resource limits")
def test_a_full_disk_in_a_process_of_its_own(tmp_path):
    here = os.environ | {"PYTHONPATH": str(Path(lossbuf.__file__).parents[1])}
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, timeout=60, env=here, check=True
    )
    assert "File too large" in found.stdout
    assert found.stdout.rstrip().endswith("True")
    assert os.listdir(tmp_path) == ["rows-00000-000000.parquet"]
    assert rows_of(tmp_path)["id"].tolist() == list(range(10))


def test_a_file_is_ended_where_ids_are_long(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FILE_BYTES", 10_000)
    with LossBufferStream(2, tmp_path) as stream:
        stream.stage.capacity = 1
        for number in range(6):
            step(stream, f"{number}" * 4000)
    assert len(os.listdir(tmp_path)) == 2
    assert [name[0] for name in rows_of(tmp_path)["id"]] == list("012345")


def test_thread_timing_does_not_matter(tmp_path, monkeypatch):
    real = module.RowWriter._do

    def delayed(self, item):
        time.sleep(0.002 * (len(str(item)) % 3))
        real(self, item)

    for name in ("usual", "delayed"):
        if name == "delayed":
            monkeypatch.setattr(module.RowWriter, "_do", delayed)
        with LossBufferStream(5, tmp_path / name, rows_a_file=30) as stream:
            stream.stage.capacity = 10
            watch(stream, DATA, 1, 8)
    assert rows_of(tmp_path / "usual").equals(rows_of(tmp_path / "delayed"))
    assert sum(len(rows) for _, rows in steps(DATA, 0, 8)) == 200


def test_a_stream_that_nobody_closes_ends_its_thread(tmp_path):
    stream = eager(tmp_path)
    for number in range(3):
        step(stream, number)
    stream.stage.take()  # as lost as it would be
    thread = stream._writer._thread
    del stream
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    assert rows_of(tmp_path)["id"].tolist() == [0, 1]
