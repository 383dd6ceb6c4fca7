"""Damaged and hostile files: none runs code, hangs or takes much memory, and the benchmark would see one that did."""

import io
import os
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from benchmarks.common import labels
from benchmarks.reliability import bombs, children, fuzz, samples
from benchmarks.reliability.hostile import Runs
from benchmarks.reliability.limits import Outcome, Watched
from condensation.coresets.shards import head
from condensation.coresets.shards import samples as shard_samples
from lossbuf import LossBufferCallback
from lossbuf.files import load_tensors, mapped_array, opened_arrays, save_tensors
from lossbuf.files.safe_csv import read_csv
from lossbuf.inputs import InputError, read_labelled
from lossbuf.training import TrainSettings, train

watched = pytest.mark.skipif("forkserver" not in children.multiprocessing.get_all_start_methods(), reason="Unix")


# ---- every loader, every damage --------------------------------------------------------------------------------------


@pytest.mark.slow
@watched
def test_every_loader_under_every_damage():
    rows = fuzz.fuzz(len(fuzz.pairs()), seed=7)
    assert sum(row["tried"] for row in rows) == len(fuzz.pairs()) == len(rows)
    assert [(row["loader"], row["damage"], row["failures"]) for row in rows if row["failed"]] == []


def test_a_file_is_the_same_whenever_it_is_made(tmp_path):
    loader = next(one for one in samples.LOADERS if one.name == "archive")
    whole = samples.make_samples(tmp_path / "whole")[loader.name]
    made = []
    for kind in fuzz.AT_RANDOM:
        for _ in range(2):
            samples.copy_sample(whole, tmp_path / "work")
            file = tmp_path / "work" / loader.file
            fuzz.damage(file, loader.form, kind, np.random.default_rng([3, 4]), tmp_path / "ran")
            made.append(file.read_bytes())
    assert made[::2] == made[1::2]
    assert len(set(made)) == len(fuzz.AT_RANDOM)


# ---- what would be wrong is seen -------------------------------------------------------------------------------------


def _refuses(folder):
    raise ValueError(f"{folder} is no file.")


def _runs(folder):
    os.system(f"touch {folder.parent / 'ran'}")
    return "loaded"


def _sleeps(folder):
    time.sleep(60)
    return "late"


def _fills(folder):
    return str(len(np.ones(2**28)))


def _warns(folder):
    warnings.warn("of a library", RuntimeWarning, stacklevel=1)
    return "loaded"


def _writes(folder):
    os.write(2, b"to the terminal")
    return "loaded"


def _dies(folder):
    os.abort()


def _fails(folder):
    raise KeyError("x")


def _says_little(folder):
    raise ValueError("no")


def _says_much(folder):
    raise ValueError(f"{folder}\nis no file")


def _loads(folder):
    return "loaded"


_ROUTINES = (_loads, _refuses, _runs, _sleeps, _fills, _warns, _writes, _dies, _fails, _says_little, _says_much)


def routines():
    return {routine.__name__: routine for routine in _ROUTINES}


@pytest.fixture(scope="module")
def worker():
    found = Watched(routines, [("_loads", ".")])
    yield found
    found.close()


@pytest.mark.slow
@watched
@pytest.mark.parametrize(
    ("routine", "state", "text"),
    [
        (_loads, "loaded", "loaded"),
        (_refuses, "refused", "is no file"),
        (_runs, "failed", "ran code"),
        (_sleeps, "failed", "hangs"),
        (_fills, "failed", "MiB"),
        (_warns, "failed", "warned: RuntimeWarning"),
        (_writes, "failed", "wrote to the terminal"),
        (_dies, "failed", "died"),
        (_fails, "failed", "KeyError"),
        (_says_little, "failed", "does not name the file"),
        (_says_much, "failed", "not one clear line"),
    ],
)
def test_what_is_wrong_is_seen(worker, tmp_path, monkeypatch, routine, state, text):
    if routine is _sleeps:
        monkeypatch.setattr("benchmarks.reliability.limits.SECONDS", -4.0)  # 5 s more are waited for
    folder = tmp_path / "work"
    found = worker.load(routine.__name__, folder, folder / "file", tmp_path / "ran")
    assert isinstance(found, Outcome)
    assert (found.state, text in found.text) == (state, True), found


# ---- found by it, and mended -----------------------------------------------------------------------------------------


def _callback():
    return LossBufferCallback(np.arange(4) % 2, 2)


def test_a_state_of_other_types_names_the_file(tmp_path):
    callback, path = _callback(), tmp_path / "state.pt"
    callback.save(path)
    content = load_tensors(path, "lossbuf.callback")
    name = next(name for name, value in content["state"].items() if isinstance(value, torch.Tensor) and value.ndim)
    save_tensors(path, {**content, "state": {**content["state"], name: "text"}})
    with pytest.raises(ValueError, match=r"must be a file that fits, got .*state\.pt"):
        _callback().load(path)


def test_a_checkpoint_without_parts_names_the_file(tmp_path):
    path, x, labels_ = tmp_path / "checkpoint.pt", torch.zeros(4, 3), torch.arange(4) % 2
    for content in ({}, {"of": 3}, {"of": {}, "step": "x"}):
        save_tensors(path, {"kind": "lossbuf.training", **content})
        with pytest.raises(ValueError, match=r"checkpoint\.pt"):
            train(torch.nn.Linear(3, 2), x, labels_, TrainSettings(epochs=1, device="cpu"), checkpoint=path)


def test_a_pickle_of_another_version_is_refused_without_a_warning(tmp_path, recwarn):
    path = tmp_path / "state.pt"
    with path.open("wb") as file:
        torch.save({"kind": "lossbuf.callback", "state": Runs(tmp_path / "ran")}, file, pickle_protocol=5)
    with pytest.raises(ValueError, match="must be a file saved by lossbuf"):
        _callback().load(path)
    assert not recwarn.list
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("which", range(3))
def test_parquet_that_unfolds_to_gigabytes(tmp_path, which):
    path = tmp_path / "data.parquet"
    path.write_bytes(bombs.bomb("parquet", which))
    with pytest.raises(InputError, match=r"data\.parquet.*bytes of memory"):
        read_labelled(path)


def test_parquet_of_every_type_is_read_as_pandas_reads_it(tmp_path):
    from lossbuf.inputs.parquet import unfolded

    size, path = 300, tmp_path / "data.parquet"
    table = pa.table(
        {
            "number": pa.array([1.5, None] * (size // 2)),
            "whole": pa.array(range(size)),
            "text": pa.array(["x" * 50, "y", None] * (size // 3)),
            "large": pa.array(["a"] * size, pa.large_string()),
            "bytes": pa.array([b"\0\xff"] * size),
            "few": pa.array(["a", "b"] * (size // 2)).dictionary_encode(),
            "image": pa.array([{"bytes": b"x", "path": f"{row}.png"} for row in range(size)]),
            "list": pa.array([[1.0, 2.0]] * size),
            "day": pa.array([1] * size, pa.date32()),
            "time": pa.array([10**9] * size, pa.timestamp("ns")),
            "exact": pa.array(range(size)).cast(pa.decimal128(38, 10)),
            "nothing": pa.nulls(size),
            "flag": pa.array([True, False] * (size // 2)),
        }
    )
    parquet.write_table(table, path, row_group_size=70)
    pd.testing.assert_frame_equal(unfolded(path, 100).frame, pd.read_parquet(path))
    parquet.write_table(table.slice(0, 0), path)
    pd.testing.assert_frame_equal(unfolded(path, 100).frame, pd.read_parquet(path))
    with pytest.raises(ValueError, match="13 columns, more than 12"):
        unfolded(path, 12)


def test_the_named_index_of_a_parquet_file_is_a_column(tmp_path):
    from lossbuf.inputs.parquet import unfolded

    table = pd.DataFrame({"a": [1.0, 2.0], "label": ["x", "y"]}, index=pd.Index([7, 9], name="key"))
    table.to_parquet(tmp_path / "data.parquet")
    pd.testing.assert_frame_equal(unfolded(tmp_path / "data.parquet", 9).frame, table.reset_index())


def test_tables_of_very_many_columns_are_refused_at_once(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"label" + b",1" * 50_000 + b"\n")
    with pytest.raises(InputError, match="at most 50,000 columns, got 50,001"):
        read_labelled(path)
    with pytest.raises(ValueError, match="at most 1000 columns"):
        read_csv(path)


@pytest.mark.parametrize("dtype", ["<f4", "|O", "<M8[ns]"])
def test_arrays_that_claim_more_than_they_hold(tmp_path, dtype):
    path, claim = tmp_path / "x.npy", bombs.npy_head(dtype, (10**12,)) + b"\0" * 64
    path.write_bytes(claim)
    with pytest.raises(ValueError, match="size of its shape"):
        mapped_array(path)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("X.npy", claim)
    with pytest.raises(ValueError, match="size of its shape"), opened_arrays(tmp_path / "x.npz"):
        pass
    for shard in (tmp_path / "x.npz", (path, np.arange(3))):
        with pytest.raises(ValueError, match=r"shards\[0\].*x\.np"):
            head(shard, "shards[0]")
    for name in ("x.npy", "x.npz:X"):
        with pytest.raises(labels.LabelFileError, match="cannot be read as labels"):
            labels._read(tmp_path / name, 3)


def test_a_shard_with_text_names_the_file(tmp_path):
    np.savez(tmp_path / "part.npz", X=np.array([["a"], ["b"]]), y=np.arange(2))
    with pytest.raises(ValueError, match=r"part\.npz` must be numbers"):
        shard_samples(tmp_path / "part.npz", "shards[0]", np.arange(2))


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe", b"1 2\n"])
def test_label_files_of_something_else(tmp_path, content, recwarn):
    (tmp_path / "given.txt").write_bytes(content)
    with pytest.raises(labels.LabelFileError, match=r"given\.txt"):
        labels._read(tmp_path / "given.txt", 3)
    assert not recwarn.list


def test_label_files_of_tensors(tmp_path):
    torch.save({"given": torch.arange(3), 5: torch.ones(2, requires_grad=True)}, tmp_path / "given.pt")
    assert labels._read(tmp_path / "given.pt:given", 3).tolist() == [0, 1, 2]
    buffer = io.BytesIO()
    torch.save(Runs(tmp_path / "ran"), buffer)
    (tmp_path / "given.pt").write_bytes(buffer.getvalue())
    with pytest.raises(labels.LabelFileError) as caught:
        labels._read(tmp_path / "given.pt", 3)
    assert "weights_only" not in str(caught.value)  # no advice to run the code
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Unix")
@pytest.mark.parametrize("form", ["npz", "csv", "parquet", "pt"])
def test_a_pipe_is_not_waited_for(tmp_path, form):
    path: Path = tmp_path / f"data.{form}"
    os.mkfifo(path)
    read = {"pt": lambda: load_tensors(path, "box")}.get(form, lambda: read_labelled(path))
    with pytest.raises(ValueError, match=f"data.{form}"):
        read()


@pytest.mark.parametrize("step", [torch.zeros(2), -1, 1.5, "x"])
def test_a_step_that_is_none_is_refused(tmp_path, step):
    path, x, given = tmp_path / "checkpoint.pt", torch.zeros(4, 3), torch.arange(4) % 2
    settings = TrainSettings(epochs=1, device="cpu")
    train(torch.nn.Linear(3, 2), x, given, settings, checkpoint=path)
    save_tensors(path, {**load_tensors(path, "lossbuf.training"), "step": step})
    with pytest.raises(ValueError, match=r"checkpoint\.pt.* must hold a step"):
        train(torch.nn.Linear(3, 2), x, given, settings, checkpoint=path)


def test_a_class_that_is_not_among_the_names(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 2)), y=np.array(list("abab")), class_names=np.array(["c", "d"]))
    with pytest.raises(InputError, match=r"data\.npz"):
        read_labelled(tmp_path / "data.npz")
