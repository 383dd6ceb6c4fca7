"""Streams that are saved, killed and resumed write what one left alone writes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lossbuf
from lossbuf.files import load_tensors, save_tensors
from lossbuf.streams import LossBufferStream
from tests.streams.simulated import data, named, rows_of, steps

DATA = data(150)
EPOCHS, BATCH = 3, 16
STEPS = [(epoch, *step) for epoch in range(EPOCHS) for step in steps(DATA, epoch, BATCH)]


def stream_on(folder, **settings):
    stream = LossBufferStream(5, folder, rows_a_file=40, **settings)
    stream.stage.capacity = 50
    return stream


def train(stream, first=0, last=None, save=None, text=True):
    """Steps ``first`` to ``last``, saved after those in ``save``."""
    for number in range(first, len(STEPS) if last is None else last):
        epoch, logits, rows = STEPS[number]
        stream.update(logits, DATA.labels[rows], named(DATA, rows) if text else rows)
        if number + 1 == len(STEPS) or STEPS[number + 1][0] > epoch:
            stream.end_epoch()
        if save and number in save[1]:
            stream.save(save[0])


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.parquet")}


@pytest.fixture(scope="module", params=[True, False], ids=["text", "integers"])
def alone(request, tmp_path_factory):
    """Rows of a training left alone."""
    folder = tmp_path_factory.mktemp("alone")
    with stream_on(folder) as stream:
        train(stream, text=request.param)
    return request.param, rows_of(folder)


@pytest.mark.parametrize("saved", [0, 1, 5, 9, 10, 20])
@pytest.mark.parametrize("more", [0, 1, 12])
def test_resumed_is_left_alone(tmp_path, alone, saved, more):
    text, expected = alone
    killed = stream_on(tmp_path / "rows")
    train(killed, 0, saved, text=text)
    killed.save(tmp_path / "state.pt")
    train(killed, saved, min(saved + more, len(STEPS)), text=text)
    if more:
        killed._writer.drain()  # more files than the state knows of
    (tmp_path / "rows" / ".rows-00000-000009.parquet.0.part").write_bytes(b"half")
    with stream_on(tmp_path / "rows", overwrite=saved == 0) as stream:
        stream.load(tmp_path / "state.pt")
        train(stream, saved, text=text)
        assert stream.epoch == EPOCHS
    assert rows_of(tmp_path / "rows").equals(expected)
    assert not list((tmp_path / "rows").glob(".*"))


def test_saving_changes_no_row_and_resuming_no_byte(tmp_path, alone):
    text, expected = alone
    at = {4, 13, 17}
    with stream_on(tmp_path / "one") as stream:
        train(stream, save=(tmp_path / "one.pt", at), text=text)
    assert rows_of(tmp_path / "one").equals(expected)
    killed = stream_on(tmp_path / "two")
    train(killed, 0, 16, save=(tmp_path / "two.pt", at), text=text)
    with stream_on(tmp_path / "two") as stream:
        stream.load(tmp_path / "two.pt")
        train(stream, 14, save=(tmp_path / "two.pt", at), text=text)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_state_in_a_checkpoint_of_the_users(tmp_path, alone):
    text, expected = alone
    killed = stream_on(tmp_path / "rows")
    train(killed, 0, 7, text=text)
    torch.save({"stream": killed.state_dict()}, tmp_path / "mine.pt")
    train(killed, 7, 15, text=text)
    killed._writer.drain()  # it is no more, so to say
    with stream_on(tmp_path / "rows") as stream:
        stream.load_state_dict(torch.load(tmp_path / "mine.pt", weights_only=True)["stream"])
        train(stream, 7, text=text)
    assert rows_of(tmp_path / "rows").equals(expected)


def test_rows_of_another_stream(tmp_path):
    with stream_on(tmp_path / "rows") as stream:
        train(stream, 0, 5)
    before = bytes_of(tmp_path / "rows")
    other = stream_on(tmp_path / "rows")
    with pytest.raises(ValueError, match=r"`folder` must hold no rows yet, got 2 files.*overwrite=True"):
        train(other, 0, 1)
    assert other.stage.filled == 0
    other.close()
    assert bytes_of(tmp_path / "rows") == before
    with stream_on(tmp_path / "rows", overwrite=True) as other:
        assert bytes_of(tmp_path / "rows") == before  # until the first step
        train(other, 0, 1)
    assert len(rows_of(tmp_path / "rows")) == BATCH


def test_what_is_no_file_of_a_stream_is_not_removed(tmp_path):
    mine = tmp_path / "rows" / "rows-00000-000000.parquet"
    mine.parent.mkdir()
    for content in (b"mine", b""):
        mine.write_bytes(content)
        stream = stream_on(tmp_path / "rows", overwrite=True)
        with pytest.raises(
            ValueError, match=r"nothing but rows of streams under their names, got .*Remove it yourself"
        ):
            train(stream, 0, 1)
        assert mine.read_bytes() == content


def test_a_state_of_before_the_first_step_removes_nothing(tmp_path):
    with stream_on(tmp_path / "rows") as stream:
        train(stream, 0, 5)
    fresh = stream_on(tmp_path / "rows")
    fresh.save(tmp_path / "state.pt")
    fresh.load(tmp_path / "state.pt")
    assert len(bytes_of(tmp_path / "rows")) == 2
    with pytest.raises(ValueError, match="`folder` must hold no rows yet"):
        train(fresh, 0, 1)


def test_files_that_are_missing(tmp_path):
    stream = stream_on(tmp_path / "rows")
    train(stream, 0, 10)
    stream.save(tmp_path / "state.pt")
    count = len(bytes_of(tmp_path / "rows"))
    (tmp_path / "rows" / "rows-00000-000001.parquet").unlink()
    other = stream_on(tmp_path / "rows")
    with pytest.raises(ValueError, match=f"`folder` must hold the {count} files that go with the state, got 1 fewer"):
        other.load(tmp_path / "state.pt")
    elsewhere = stream_on(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"`folder` must hold the {count} files that go with the state"):
        elsewhere.load(tmp_path / "state.pt")


def test_a_checkpoint_of_another_training_removes_nothing(tmp_path):
    """With the same settings and as many files, in a folder that was written again since."""
    for seed, folder in ((0, "rows"), (1, "other")):
        with stream_on(tmp_path / folder) as stream:
            torch.manual_seed(seed)
            for step in range(10):
                stream.update(torch.randn(16, 5), torch.arange(16) % 5, [f"{step}-{row}" for row in range(16)])
            stream.flush()
            stream.save(tmp_path / f"{folder}.pt")
            stream.update(torch.randn(16, 5), torch.arange(16) % 5, [f"later-{row}" for row in range(16)])
    before = bytes_of(tmp_path / "rows")
    stream = stream_on(tmp_path / "rows")
    with pytest.raises(ValueError, match=r"files that go with the state, got those of another training.*that wrote"):
        stream.load(tmp_path / "other.pt")
    assert bytes_of(tmp_path / "rows") == before
    stream.load(tmp_path / "rows.pt")
    assert len(bytes_of(tmp_path / "rows")) == len(before) - 1
    (tmp_path / "rows" / "rows-00000-000000.parquet").write_bytes(b"none of Parquet's")
    with pytest.raises(ValueError, match=r"`folder` must hold the . files .* got a damaged one, .*000000\.parquet"):
        stream_on(tmp_path / "rows").load(tmp_path / "rows.pt")


def test_states_that_are_refused(tmp_path):
    stream = stream_on(tmp_path / "rows")
    train(stream, 0, 7)
    stream.save(tmp_path / "state.pt")
    good = load_tensors(tmp_path / "state.pt", "lossbuf.stream")

    def refused(message, other=stream, *, files=None, state=(), **extra):
        changed = {**good["state"], **dict(state), "_extra_state": {**good["state"]["_extra_state"], **extra}}
        save_tensors(tmp_path / "bad.pt", {**good, "state": changed, **({} if files is None else {"files": files})})
        with pytest.raises(ValueError, match=message):
            other.load(tmp_path / "bad.pt")

    refused("`state_dict` must have num_classes 4, got 5", LossBufferStream(4, tmp_path / "other"))
    refused("`state_dict` must have window 7, got 512", LossBufferStream(5, tmp_path / "other", window=7))
    refused("`state_dict` must have version 1, got 2", version=2)
    refused("`content` must be of 1 ranks, got 2", files=[[1, 0], [1, 0]])
    refused("`content` must be what `save` wrote", files="none")
    refused("`state_dict` must be one of a LossBufferStream, got other keys", state={"more": torch.zeros(1)})
    refused("`state_dict` must hold counter as it was saved", state={"counter": torch.zeros(3)})
    refused("`content` must be what `save` wrote", files=[1])
    refused("`folder` must hold the 1000000000000 files", files=[[10**12, 0]])
    stage = good["state"]["_extra_state"]["stage"]
    for bad in (
        {"epoch": -1},
        {"epoch": 1.5},
        {"staged": 3},
        {"told": None},
        {"text_ids": 7},
        {"ids": ["a"]},
        {"ids": [1] * stage["filled"]},
        {"ids": torch.zeros(stage["filled"], dtype=torch.int64)},
        {"stage": None},
        {"stage": {**stage, "filled": 1}},
        {"stage": {**stage, "logits": stage["logits"][:, :2]}},
        {"stage": {**stage, "labels": stage["labels"].float()}},
        {"stage": {**stage, "step_sizes": [[0, 1]]}},
        {"stage": {**stage, "step_sizes": 3}},
        {"files": [[-5, 0]]},
        {"files": [["one", 0]]},
        {"files": [[0, -1]]},
        {"files": [[0, 1.5]]},
    ):
        refused("`state_dict` must hold cursors and block as they were saved", **bad)
    with pytest.raises(ValueError, match="`state_dict` must be one of a LossBufferStream, got another"):
        stream.load_state_dict({})
    save_tensors(tmp_path / "bad.pt", {"kind": "other"})
    with pytest.raises(ValueError, match=r"`path` must be a lossbuf\.stream file"):
        stream.load(tmp_path / "bad.pt")
    train(stream, 7)  # nothing was changed
    stream.close()
    assert len(rows_of(tmp_path / "rows")) == 150 * EPOCHS


@pytest.mark.skipif(os.name != "posix", reason="no SIGKILL")
def test_killed_and_resumed(tmp_path):
    """Processes that are killed as they write a file or between, and those that resume them.

    They are forked from one, so that torch is imported once only.
    """
    here = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(lossbuf.__file__).parents[1]), os.getcwd()])}
    subprocess.run([sys.executable, "-W", "ignore", __file__, tmp_path], env=here, timeout=120, check=True)
    with stream_on(tmp_path / "alone") as stream:
        train(stream)
    expected = rows_of(tmp_path / "alone")
    for plan in PLANS:
        folder = tmp_path / plan
        assert (folder / "ends").read_text().split() == [*["killed"] * len(plan.split()), "whole"]
        assert rows_of(folder / "rows").equals(expected)
        assert not list((folder / "rows").glob(".*"))


PLANS = ("write-1 write-2", "replace-3 replace-1", "step-2 step-9 write-1")
"""Where process after process dies: half-way through writing a file, before it has its name, between two steps."""


def _run(folder, where, count):
    from lossbuf.files import whole as files

    real, left = os.replace, count

    def last():
        nonlocal left
        left -= 1
        return left == 0

    def replaced(source, target):
        if str(target).endswith(".parquet") and last():
            if where == "write":
                os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    if where in ("write", "replace"):
        files.os.replace = replaced
    stream, state, first = stream_on(folder / "rows", overwrite=True), folder / "state.pt", 0
    if state.exists():
        stream.load(state)
        first = stream.epoch * (len(STEPS) // EPOCHS) + (stream._staged - 150 * stream.epoch) // BATCH
    for number in range(first, len(STEPS)):
        if where == "step" and last():
            os.kill(os.getpid(), signal.SIGKILL)
        train(stream, number, number + 1)
        if number % 4 == 0:
            stream.save(state)
    stream.close()


def _main(folder):
    for plan in PLANS:
        (folder / plan).mkdir()
        for doom in (*plan.split(), "none-0"):
            child = os.fork()
            if not child:
                _run(folder / plan, *(int(part) if part.isdecimal() else part for part in doom.split("-")))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            with (folder / plan / "ends").open("a") as ends:
                ends.write({signal.SIGKILL: "killed\n", 0: "whole\n"}.get(status, f"{status}\n"))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
