"""Tests of lossbuf.streams.summary: what a stream gives is what a callback has in memory."""

import os
import random
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lossbuf import KnownRate, LossBufferCallback, LossBufferWarning, Mixture, Otsu
from lossbuf.recording.sample_statistics import SUSPICIONS
from lossbuf.streams import LossBufferStream, summarise
from lossbuf.streams import files as stream_files
from tests.streams.simulated import data, linked, named, steps

SIZE, EPOCHS = 700, 4


def both(folder, from_, *, epochs=EPOCHS, batch=64, num_classes=5, capacity=200, rows_a_file=150):
    """A stream and a callback that saw the same batches; the callback's settings do not change what it collects."""
    callback = LossBufferCallback(from_.labels, num_classes, ids=from_.ids, rank_by="score2", warmup=1)
    stream = LossBufferStream(num_classes, folder, rows_a_file=rows_a_file)
    stream.stage.capacity = callback.stage.capacity = capacity
    for epoch in range(epochs):
        for logits, rows in steps(from_, epoch, batch, num_classes):
            for watching in (stream, callback):
                watching.loss(logits, from_.labels[rows], named(from_, rows))
        stream.end_epoch()
        callback.end_epoch()
    stream.close()
    return callback


def verdict(callback, rank_by, cut):
    """The callback's report and cut by another ranking."""
    callback.rank_by, callback.cut = rank_by, cut
    return callback.report().sort_values("id").reset_index(drop=True), callback.find_cut()


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen") / "rows"
    return folder, both(folder, data(SIZE))


def table_of(summary):
    return pq.read_table(summary.path).to_pandas()


@pytest.mark.parametrize("rank_by", SUSPICIONS)
@pytest.mark.parametrize("cut", [KnownRate(0.0), KnownRate(0.15), KnownRate(0.5), KnownRate(1.0), Mixture()], ids=str)
def test_the_summary_is_the_report(seen, rank_by, cut, tmp_path):
    """Every statistic, the cut and the suspects, to the last bit."""
    folder, callback = seen
    found = summarise(folder, rank_by=rank_by, cut=cut, out=tmp_path / "table.parquet")
    report, expected = verdict(callback, rank_by, cut)
    table = table_of(found)
    for name in report:
        assert table[name].tolist() == report[name].tolist(), name
    if rank_by in ("wrong_count", "forgetting_events"):
        assert table["suspicion"].nunique() < 6  # so that equals are told apart by the label loss
    assert table["is_suspect"].sum() == report["is_suspect"].sum() == found.n_suspects
    assert (found.threshold, found.noise_rate) == expected[:2]
    assert found.rows == SIZE
    assert found.rank_by == rank_by
    assert found.class_counts.tolist() == table["given_label"].value_counts().sort_index().tolist()
    assert found.suspect_counts.tolist() == np.bincount(table["given_label"][table["is_suspect"]], minlength=5).tolist()


def test_equals_in_everything_go_by_id(tmp_path):
    logits, labels = torch.tensor([[0.0, 1.0]]).repeat(6, 1), torch.zeros(6, dtype=torch.int64)
    with LossBufferStream(2, tmp_path / "rows") as stream:
        stream.update(logits, labels, list("fbdaec"))
    for rate, names in ((0.0, []), (1 / 6, ["a"]), (0.5, ["a", "b", "c"]), (1.0, list("abcdef"))):
        found = summarise(tmp_path / "rows", noise_rate=rate)
        assert found.suspects()["id"].tolist() == names
        assert found.n_suspects == len(names)


@pytest.mark.parametrize("threads", [1, 2])
def test_neither_files_nor_batches_nor_threads_matter(seen, tmp_path, threads, monkeypatch):
    folder, _ = seen
    expected = summarise(folder, out=tmp_path / "usual.parquet")
    # The same rows in one file after the other in any order, and in small batches.
    rows = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])
    order = list(range(rows.num_rows))
    random.Random(0).shuffle(order)
    (tmp_path / "rows").mkdir()
    for number, start in enumerate(range(0, len(order), 333)):
        part = rows.take(pa.array(order[start : start + 333])).replace_schema_metadata(rows.schema.metadata)
        part = part.cast(rows.schema)
        pq.write_table(part, tmp_path / "rows" / f"rows-{number % 3:05d}-{number // 3:06d}.parquet")
    linked(tmp_path / "rows", ranks=3)
    for module in ("files", "summary"):
        monkeypatch.setattr(f"lossbuf.streams.{module}.BATCH_ROWS", 50)
    found = summarise(tmp_path / "rows", out=tmp_path / "other.parquet", threads=threads, memory_limit="200MB")
    assert table_of(found).equals(table_of(expected))
    assert (found.threshold, found.noise_rate) == (expected.threshold, expected.noise_rate)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_sample_that_comes_twice_counts_once(tmp_path):
    """The first time, within a block, a file and over both; the copies only move the class means of later rows."""
    few = data(60)
    with LossBufferStream(5, tmp_path / "rows", rows_a_file=20) as stream:
        stream.stage.capacity = 16
        for epoch in range(3):
            first = {}
            for logits, rows in steps(few, epoch, 16):
                repeated = torch.cat([rows, rows[:5]])
                noise = torch.randn(5, 5, generator=torch.Generator().manual_seed(epoch))
                stream.update(torch.cat([logits, noise]), few.labels[repeated], named(few, repeated))
                first |= {few.ids[row]: logit for row, logit in zip(rows.tolist(), logits, strict=True)}
            stream.update(torch.randn(60, 5), few.labels, few.ids)
            stream.end_epoch()
    table = table_of(summarise(tmp_path / "rows")).set_index("id")
    assert (table["count"] == 3).all()
    losses = torch.nn.functional.cross_entropy(
        torch.stack([first[name] for name in few.ids]), few.labels, reduction="none"
    )
    np.testing.assert_allclose(table["last_label_loss"].loc[few.ids], losses, rtol=1e-5, atol=1e-6)


def test_samples_that_miss_epochs_and_classes_with_none(tmp_path):
    few = data(200)
    folder = tmp_path / "rows"
    callback = LossBufferCallback(few.labels, 8, ids=few.ids, rank_by="score2", cut=KnownRate(0.1))
    stream = LossBufferStream(8, folder)
    draw = torch.Generator().manual_seed(0)
    for epoch in range(5):
        rows = torch.randperm(200, generator=draw)[: 40 * epoch + 5]
        logits = torch.randn(len(rows), 8, generator=draw)
        for watching in (stream, callback):
            watching.loss(logits, few.labels[rows], named(few, rows))
            watching.end_epoch()
    stream.close()
    found = table_of(summarise(folder, noise_rate=0.1))
    report, _ = verdict(callback, "score2", KnownRate(0.1))
    report = report[report["count"] > 0].reset_index(drop=True)
    assert set(report["count"]) >= {1, 2, 3}
    for name in report:
        assert found[name].tolist() == report[name].tolist(), name


def test_labels_that_change(tmp_path):
    with LossBufferStream(3, tmp_path / "rows") as stream:
        for labels in ([0, 1, 2], [0, 2, 2], [0, 1, 0]):
            stream.update(torch.eye(3) * 5, torch.tensor(labels), ["a", "b", "c"])
            stream.end_epoch()
    with pytest.warns(
        LossBufferWarning, match="The given label of 2 ids changed. The label of the last epoch is taken"
    ):
        found = summarise(tmp_path / "rows", noise_rate=0.5)
    assert found.relabelled == 2
    table = table_of(found)
    assert table["given_label"].tolist() == [0, 1, 0]
    assert table["wrong_count"].tolist() == [0, 1, 1]
    assert table["other_class"].tolist() == [-1, -1, 2]
    assert found.class_counts.tolist() == [2, 1, 0]


IDS = ["", "a", "a\0b", "A", "ä", "日本", "'; DROP TABLE rows; --", '"', "line\nbreak", "👍", "z" * 3000]


def test_odd_names(tmp_path):
    folder = tmp_path / "it's a [folder] * ?" / "naïve"
    labels = torch.arange(len(IDS)) % 3
    with LossBufferStream(3, folder) as stream:
        for _ in range(2):
            stream.update(torch.randn(len(IDS), 3), labels, IDS)
            stream.end_epoch()
    found = summarise(folder, noise_rate=0.3)
    assert found.path == folder.with_name("naïve-summary.parquet")
    table = table_of(found)
    assert table["id"].tolist() == sorted(IDS, key=str.encode)
    assert table.set_index("id")["given_label"].loc[IDS].tolist() == labels.tolist()
    assert set(found.suspects()["id"]) == set(table["id"][table["is_suspect"]])


def test_integers_for_ids(tmp_path):
    ids = [5, -3, 2**62, 0, -(2**63), 2**63 - 1]
    with LossBufferStream(2, tmp_path / "rows") as stream:
        stream.update(torch.randn(6, 2), torch.tensor([0, 1] * 3), ids)
    table = table_of(summarise(tmp_path / "rows"))
    assert table["id"].tolist() == sorted(ids)


def test_one_sample(tmp_path):
    with LossBufferStream(2, tmp_path / "rows") as stream:
        stream.update(torch.randn(1, 2), torch.tensor([1]), ["a"])
    found = summarise(tmp_path / "rows")
    assert (found.rows, found.n_suspects, found.threshold) == (1, 0, np.inf)
    assert list(found.suspects().columns) == list(table_of(found).columns)
    assert len(found.suspects()) == 0


@pytest.mark.parametrize("limit", [1, 7, 10**6, None])
def test_suspects_come_worst_first(seen, tmp_path, limit, monkeypatch):
    found = summarise(seen[0], noise_rate=0.2, out=tmp_path / "table.parquet")
    monkeypatch.setattr("lossbuf.streams.summary.BATCH_ROWS", 50)
    table = table_of(found)
    worst = table[table["is_suspect"]].sort_values(["suspicion", "label_loss", "id"], ascending=[False, False, True])
    assert found.suspects(limit).equals(worst.head(limit if limit else len(worst)).reset_index(drop=True))
    with pytest.raises(ValueError, match="`limit` must be an integer of at least 1, got 0"):
        found.suspects(0)


def test_the_columns_of_the_table(seen, tmp_path):
    table = pq.read_table(summarise(seen[0], out=tmp_path / "table.parquet").path)
    names = ["id", "given_label", "suggested_label", "is_suspect", "suspicion", "count", "label_loss", "predicted_loss"]
    assert table.column_names[:8] == names
    assert len(table.column_names) == 22
    assert {str(kind) for kind in table.schema.types} == {"string", "int16", "int32", "bool", "float"}
    assert not any(column.null_count for column in table.columns)
    assert isinstance(table.to_pandas(), pd.DataFrame)


def test_what_is_refused(tmp_path, seen, no_shape_checks):
    folder, _ = seen
    for settings, message in (
        ({"rank_by": "posterior"}, "`rank_by` must be one of 'score'"),
        ({"noise_rate": 1.5}, r"`noise_rate` must lie in \[0, 1\], got 1.5"),
        ({"noise_rate": 0.1, "cut": Mixture()}, "`cut` must be left out where `noise_rate` is given"),
        ({"cut": Otsu()}, r"`cut` must be KnownRate\(...\) or Mixture\(\) for a stream, got Otsu\(\)"),
        ({"memory_limit": "lots"}, "`memory_limit` must be a size, such as '1GB', got lots"),
        ({"threads": 0}, "`threads` must be an integer of at least 1, got 0"),
        ({"out": folder / "table.parquet"}, "`out` must lie outside of `folder`"),
    ):
        with pytest.raises(ValueError, match=message):
            summarise(folder, **({"out": tmp_path / "table.parquet"} | settings))
    with pytest.raises(FileNotFoundError, match="`folder` must be the folder of a LossBufferStream"):
        summarise(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="`folder` must hold rows of a LossBufferStream, got none"):
        summarise(tmp_path / "empty")
    assert os.listdir(tmp_path) == ["empty"]


def _replaced(path, table):
    pq.write_table(table, path)


def _with(path, name, value):
    """One value of a column replaced."""
    table = pq.read_table(path)
    place, field = table.schema.get_field_index(name), table.schema.field(name)
    values = pa.array([value, *table[name].to_pylist()[1:]], field.type)
    _replaced(path, table.set_column(place, field, values))
    linked(path.parent)


BAD = {
    "cut short": lambda path: os.truncate(path, os.path.getsize(path) // 2),
    "empty": lambda path: path.write_bytes(b""),
    "no Parquet": lambda path: path.write_text("id,label\n" * 100),
    "foreign": lambda path: _replaced(path, pa.table({"x": [1, 2]})),
    "a column less": lambda path: _replaced(path, pq.read_table(path).drop_columns(["score"])),
    "another type": lambda path: _replaced(
        path, pq.read_table(path).set_column(5, "label_loss", pq.read_table(path)["label_loss"].cast(pa.float64()))
    ),
    "another stream": lambda path: _replaced(
        path, pa.Table.from_pylist([], schema=stream_files.schema_of(7, True, 0, 1))
    ),
    "integers": lambda path: _replaced(path, pa.Table.from_pylist([], schema=stream_files.schema_of(5, False, 0, 1))),
    "not finite": lambda path: _with(path, "score2", float("nan")),
    "a class too many": lambda path: _with(path, "given_label", 5),
    "a negative class": lambda path: _with(path, "predicted", -1),
    "missing": lambda path: path.unlink(),
    "foreign name": lambda path: shutil.copy(path, path.with_name("other.parquet")),
}


@pytest.mark.parametrize("kind", BAD)
def test_files_that_are_refused(tmp_path, seen, kind):
    shutil.copytree(seen[0], tmp_path / "rows")
    bad = tmp_path / "rows" / "rows-00000-000001.parquet"
    BAD[kind](bad)
    with pytest.raises(ValueError, match="`folder` must hold") as caught:
        summarise(tmp_path / "rows")
    assert ("other.parquet" if kind == "foreign name" else str(bad)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["rows"]


def test_files_under_other_names_are_refused(tmp_path, seen):
    first, second = (tmp_path / "rows" / f"rows-00000-{number:06d}.parquet" for number in (0, 1))
    shutil.copytree(seen[0], tmp_path / "rows")
    swap = tmp_path / "swap"
    os.rename(first, swap)
    os.rename(second, first)
    os.rename(swap, second)
    with pytest.raises(ValueError, match=r"under the names that it gave them, got .*rows-00000-000000\.parquet"):
        summarise(tmp_path / "rows")
    shutil.rmtree(tmp_path / "rows")
    shutil.copytree(seen[0], tmp_path / "rows")
    for path in sorted((tmp_path / "rows").iterdir()):
        path.rename(path.with_name(path.name.replace("-00000-", "-00001-")))
    with pytest.raises(ValueError, match="under the names that it gave them"):
        summarise(tmp_path / "rows")


def test_files_of_two_trainings_are_refused(tmp_path, seen):
    shutil.copytree(seen[0], tmp_path / "rows")
    both(tmp_path / "other", data(SIZE, seed=1))
    name = "rows-00000-000001.parquet"
    shutil.copy(tmp_path / "other" / name, tmp_path / "rows" / name)
    with pytest.raises(ValueError, match="must hold the files of one training") as caught:
        summarise(tmp_path / "rows")
    assert name in str(caught.value)


def test_a_rank_without_rows_is_told(tmp_path, seen):
    shutil.copytree(seen[0], tmp_path / "rows")
    linked(tmp_path / "rows", ranks=3)
    with pytest.warns(LossBufferWarning, match=r"had 3 ranks; there are no rows of \[1, 2\]"):
        found = summarise(tmp_path / "rows")
    assert found.rows == SIZE


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits_are_refused_or_change_nothing(tmp_path, seen, seed):
    shutil.copytree(seen[0], tmp_path / "rows")
    expected = table_of(summarise(tmp_path / "rows"))
    draw, refused = random.Random(seed), 0
    bad = tmp_path / "rows" / "rows-00000-000001.parquet"
    whole = bad.read_bytes()
    for _ in range(12):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        bad.write_bytes(content)
        try:
            found = summarise(tmp_path / "rows")
        except ValueError as error:
            assert str(bad) in str(error)  # noqa: PT017
            refused += 1
        else:
            assert table_of(found).equals(expected)
    assert refused > 6


@pytest.mark.slow
def test_a_million_samples(tmp_path):
    """Two epochs of 10**6 rows: the suspects of a callback in memory, by both rules."""
    size = 10**6
    many = data(size)._replace(ids=list(range(size)))
    folder = tmp_path / "rows"
    callback = both(folder, many, epochs=2, batch=4096, capacity=16384, rows_a_file=2**18)
    for cut in (KnownRate(0.2), Mixture()):
        found = summarise(folder, cut=cut, memory_limit="500MB")
        callback.cut = cut
        expected = callback.find_cut()
        assert (found.threshold, found.noise_rate) == expected[:2]
        assert found.n_suspects > 10_000
        mask = pq.read_table(found.path, columns=["is_suspect"])["is_suspect"].to_numpy()
        assert np.array_equal(mask, expected.suspect_mask)


def test_too_little_memory_is_told(tmp_path, seen):
    with pytest.raises((MemoryError, ValueError), match="`memory_limit`"):
        summarise(seen[0], memory_limit="1KB", out=tmp_path / "table.parquet")
    assert os.listdir(tmp_path) == []


def test_a_table_that_cannot_be_written_leaves_the_old_one(seen, tmp_path, monkeypatch):
    out = tmp_path / "table.parquet"
    out.write_bytes(b"old")

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lossbuf.streams.summary._marked", fails)
    with pytest.raises(OSError, match="No space left"):
        summarise(seen[0], out=out)
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["table.parquet"]
    monkeypatch.undo()
    assert summarise(seen[0], out=out).rows == SIZE


def test_what_a_killed_summary_left_is_removed_after_an_hour(seen, tmp_path):
    names = {"old": ".table.parquet-abcd_123", "new": ".table.parquet-abcd_124", "other": ".table.parquet-mine"}
    for name in names.values():
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.parquet").touch()
    for name in ("old", "other"):
        for path in (tmp_path / names[name] / "table.parquet", tmp_path / names[name]):
            os.utime(path, (0, 0))
    summarise(seen[0], out=tmp_path / "table.parquet")
    assert sorted(os.listdir(tmp_path)) == sorted(["table.parquet", names["new"], names["other"]])
