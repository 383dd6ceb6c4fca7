"""Tests of lossbuf.streams.callback."""

import enum
import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from lossbuf import LossBuffers, LossBufferWarning, sample_losses
from lossbuf.recording.scores import all_scores
from lossbuf.streams import LossBufferStream, summarise
from tests.streams.simulated import data, named, rows_of, steps, watch, written

DATA = data(300)


def test_files_hold_what_a_slow_version_finds(tmp_path):
    """Block by block, in plain words; also what the columns are called and of which type."""
    stream = LossBufferStream(5, tmp_path, window=20)
    stream.stage.capacity = 100
    rings, expected, block = LossBuffers(5, 20), [], []

    def digest():
        logits, labels = torch.cat([step[0] for step in block]), torch.cat([step[1] for step in block])
        losses = sample_losses(logits, labels)
        rings.update(losses, labels)
        means = [mean[labels] for mean in rings.class_means()]
        three = all_scores(losses.label_loss, losses.margin, *means)
        columns = (labels, losses.predicted, losses.label_loss, losses.margin, *three)
        names = [name for step in block for name in step[2]]
        expected.append(pd.DataFrame({"id": names, **{i: part.numpy() for i, part in enumerate(columns)}}))
        block.clear()

    for logits, rows in steps(DATA, 0, 32):
        if sum(len(labels) for _, labels, _ in block) + 32 > 100:
            digest()
        block.append((logits, DATA.labels[rows], named(DATA, rows)))
        stream.update(*block[-1])
    digest()
    stream.close()
    found = rows_of(tmp_path)
    names = ["id", "epoch", "position", "given_label", "predicted", "label_loss", "margin", "score", "score2", "score3"]
    assert list(found) == names
    types = ["int32", "int64", "int16", "int16", *["float32"] * 5]
    assert [str(found[name].dtype) for name in names[1:]] == types
    assert found["position"].tolist() == list(range(300))
    assert not found["epoch"].any()
    values = pd.concat(expected, ignore_index=True).set_axis(["id", *names[3:]], axis=1)
    pd.testing.assert_frame_equal(
        found.drop(columns=["epoch", "position"]), values, check_dtype=False, rtol=1e-5, atol=1e-6
    )
    assert len(expected) == 4
    said = pq.read_schema(tmp_path / "rows-00000-000000.parquet").metadata
    assert {said[f"lossbuf.{name}".encode()] for name in ("kind", "version", "num_classes", "rank")} == {
        b"lossbuf.streams.rows", b"1", b"5", b"0",
    }  # fmt: skip


@pytest.mark.parametrize("rows_a_file", [1, 50, 10**6])
@pytest.mark.parametrize("batch", [1, 64])
def test_the_rows_do_not_depend_on_the_files(tmp_path, rows_a_file, batch):
    few = data(70)
    for name, rows in (("usual", 2**19), ("other", rows_a_file)):
        with LossBufferStream(5, tmp_path / name, rows_a_file=rows) as stream:
            stream.stage.capacity = 20
            watch(stream, few, 2, batch)
    assert rows_of(tmp_path / "usual").equals(rows_of(tmp_path / "other"))
    assert len(written(tmp_path / "usual")) == 2  # an epoch each
    assert (len(written(tmp_path / "other")) > 2) == (rows_a_file < 70)


def test_the_same_run_has_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        with LossBufferStream(5, tmp_path / name, rows_a_file=100) as stream:
            stream.stage.capacity = 64
            watch(stream, DATA)
    one, other = ([path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in ("one", "other"))
    assert one == other
    assert len(one) > 3


def test_loss_is_the_mean_cross_entropy(tmp_path):
    logits = torch.randn(6, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    with LossBufferStream(3, tmp_path) as stream:
        loss = stream.loss(logits, labels, range(6))
        loss.backward()
        assert stream(logits[:0], labels[:0], []) == 0
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "ids",
    [
        torch.tensor([5, -1, 2**62]),
        torch.tensor([5, 1, 2], dtype=torch.int32),
        np.array([5, 1, 2], dtype=np.uint8),
        [5, np.int64(1), 2],
        (5, 1, 2),
        np.array(["a", "b", "c"]),
        ("naïve", "日本\n'\"\\;--", ""),
        ["a\0b", "👍", "x" * 5000],
    ],
    ids=str,
)
def test_ids_come_back_as_they_were(tmp_path, ids):
    with LossBufferStream(2, tmp_path) as stream:
        stream.update(torch.randn(3, 2), torch.tensor([0, 1, 1]), ids)
        if isinstance(ids, torch.Tensor):
            ids = ids.clone()
    assert rows_of(tmp_path)["id"].tolist() == [value.item() if hasattr(value, "item") else value for value in ids]


def test_what_becomes_of_the_batch_afterwards_does_not_matter(tmp_path):
    logits, labels, ids = torch.randn(3, 2), torch.tensor([0, 1, 1]), torch.tensor([5, 6, 7])
    with LossBufferStream(2, tmp_path) as stream:
        stream.update(logits, labels, ids)
        logits.fill_(float("nan"))
        labels.fill_(9)
        ids.fill_(0)
    assert rows_of(tmp_path)["id"].tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", 1], "`ids` must all be text or all integers, got 1"),
        ([1, "a"], "`ids` must all be text or all integers, got 'a'"),
        ([1, True], "`ids` must all be text or all integers, got True"),
        ([1.5, 2.0], "`ids` must all be text or all integers, got 1.5"),
        ([b"a", b"b"], "`ids` must all be text or all integers, got b'a'"),
        ([None, "a"], "`ids` must all be text or all integers, got None"),
        (["a", "\ud800"], r"`ids` must be text that UTF-8 can write, got '\\ud800'"),
        ([1, 2**63], "`ids` must be integers of 64 bits, got 9223372036854775808"),
        (["a"], "`ids` must be a sequence of 2, one a sample, got 1"),
        ("ab", "`ids` must be a sequence of 2, one a sample, got 2"),
        ({"a": 1, "b": 2}, "`ids` must be a sequence of 2, one a sample, got dict"),
        (torch.tensor([1]), r"`ids` must have shape \(2,\) as `logits` do"),
        (torch.tensor([1.0, 2.0]), "`ids` must be integers, got dtype torch.float32"),
    ],
)
def test_ids_that_are_refused(tmp_path, ids, message, no_shape_checks):
    stream = LossBufferStream(2, tmp_path)
    with pytest.raises(ValueError, match=message):
        stream.update(torch.randn(2, 2), torch.tensor([0, 1]), ids)
    assert stream.stage.filled == 0
    stream.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("first", "then", "kind"), [(["a"], [1], "text"), ([1], ["a"], "integers")])
def test_the_kind_of_ids_may_not_change(tmp_path, first, then, kind):
    with LossBufferStream(2, tmp_path) as stream:
        stream.update(torch.randn(1, 2), torch.tensor([0]), first)
        stream.update(torch.randn(0, 2), torch.tensor([], dtype=torch.int64), [])
        with pytest.raises(ValueError, match=f"`ids` must be {kind} in every step, as in the first, got"):
            stream.update(torch.randn(1, 2), torch.tensor([0]), then)
    assert rows_of(tmp_path)["id"].tolist() == first


def test_what_is_bad_is_left_out_and_told(tmp_path):
    logits = torch.randn(5, 3)
    logits[1, 2], logits[3, 0] = float("nan"), float("inf")
    with LossBufferStream(3, tmp_path) as stream:
        stream.update(logits, torch.zeros(5, dtype=torch.int64), list("abcde"))
        with pytest.raises(ValueError, match=r"`labels` must lie in \[0, 3\), got 3"):
            stream.update(torch.randn(2, 3), torch.tensor([0, 3]), list("fg"))
        with pytest.warns(LossBufferWarning, match="Epoch 1: 2 samples gave logits or losses that are NaN"):
            stream.end_epoch()
        assert stream.rejected() == {"not_finite": 2, "label_out_of_range": 0}
        stream.end_epoch()  # told once
    assert rows_of(tmp_path)["id"].tolist() == ["a", "c", "e"]
    assert stream.rings.label_loss.seen.tolist() == [3, 0, 0, 2]


def test_labels_out_of_range_on_a_gpu_are_counted(tmp_path):
    # As the rows of a GPU come: unchecked to the block.
    stream = LossBufferStream(3, tmp_path)
    stream._stage(torch.randn(3, 3), torch.tensor([0, 7, -1]), ["a", "b", "c"])
    with pytest.warns(LossBufferWarning, match="Epoch 1: 2 samples had a label out of range"):
        stream.end_epoch()
    stream.close()
    assert rows_of(tmp_path)["id"].tolist() == ["a"]


def test_all_rows_left_out(tmp_path):
    with LossBufferStream(3, tmp_path) as stream:
        stream.update(torch.full((2, 3), float("nan")), torch.tensor([0, 1]), ["a", "b"])
    assert os.listdir(tmp_path) == []


def test_an_empty_stream(tmp_path):
    with LossBufferStream(3, tmp_path / "new" / "folder") as stream:
        stream.end_epoch()
        stream.flush()
    stream.close()
    assert os.listdir(tmp_path / "new" / "folder") == []


@pytest.mark.parametrize("num_classes", [1, 2, 70, 2**15 + 1])
def test_any_number_of_classes(tmp_path, num_classes):
    labels = torch.tensor([0, num_classes - 1])
    with LossBufferStream(num_classes, tmp_path, window=3) as stream:
        stream.update(torch.randn(2, num_classes), labels, [1, 2])
    found = rows_of(tmp_path)
    assert found["given_label"].tolist() == labels.tolist()
    assert found["given_label"].dtype == ("int16" if num_classes <= 2**15 else "int32")


def test_flush_writes_and_goes_on(tmp_path):
    stream = LossBufferStream(2, tmp_path)
    for number in range(3):
        stream.update(torch.randn(2, 2), torch.tensor([0, 1]), [2 * number, 2 * number + 1])
        stream.flush()
        assert rows_of(tmp_path)["id"].tolist() == list(range(2 * number + 2))
    stream.close()


def test_closed(tmp_path):
    stream = LossBufferStream(2, tmp_path)
    stream.update(torch.randn(1, 2), torch.tensor([0]), [1])
    stream.flush()
    thread = stream._writer._thread
    stream.close()
    assert not thread.is_alive()
    stream.close()
    with pytest.raises(ValueError, match="`stream` must be open, got one that was closed"):
        stream.update(torch.randn(1, 2), torch.tensor([0]), [1])
    assert rows_of(tmp_path)["id"].tolist() == [1]


def test_an_error_in_the_training_keeps_what_came(tmp_path):
    stream = LossBufferStream(2, tmp_path)
    stream.stage.capacity = 2
    for number in range(3):
        stream.update(torch.randn(1, 2), torch.tensor([0]), [number])
    with pytest.raises(KeyError, match="other"), stream:
        raise KeyError("other")
    assert rows_of(tmp_path)["id"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must be an integer of at least 1, got 0"),
        ({"num_classes": 2**16}, "`num_classes` must be at most 65535, got 65536"),
        ({"window": 0}, "`window` must be an integer of at least 1, got 0"),
        ({"rows_a_file": 0}, "`rows_a_file` must be an integer of at least 1, got 0"),
        ({"folder": __file__}, "`folder` must be a folder, got"),
    ],
)
def test_settings_that_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        LossBufferStream(**({"num_classes": 2, "folder": tmp_path} | settings))


def test_shapes_that_are_refused(tmp_path, no_shape_checks):
    stream = LossBufferStream(2, tmp_path)
    with pytest.raises(ValueError, match=r"`logits` must have shape \(batch, 2\), got shape \(1, 3\)"):
        stream.update(torch.randn(1, 3), torch.tensor([0]), [1])
    with pytest.raises(ValueError, match=r"`labels` must have shape \(1,\)"):
        stream.update(torch.randn(1, 2), torch.tensor([0, 1]), [1])


def test_half_precision_and_gradients(tmp_path):
    with LossBufferStream(3, tmp_path) as stream:
        logits = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True)
        stream.loss(logits, torch.tensor([0, 1, 2, 0], dtype=torch.int32), list("abcd")).backward()
    assert len(rows_of(tmp_path)) == 4


@pytest.mark.filterwarnings("default")  # the compiler warns of much
def test_in_a_compiled_step(tmp_path, no_shape_checks):
    torch.compiler.reset()
    stream = LossBufferStream(3, tmp_path)
    step = torch.compile(lambda x, y, ids: stream.loss(x * 2, y, ids), backend="eager")
    for number in range(3):
        step(torch.randn(2, 3), torch.tensor([0, 1]), [f"{number}-{row}" for row in range(2)])
    stream.close()
    assert rows_of(tmp_path)["id"].tolist() == [f"{number}-{row}" for number in range(3) for row in range(2)]
    torch.compiler.reset()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("on_device", [True, False])
def test_on_a_gpu_no_step_waits(tmp_path, on_device):
    few = data(400)
    stream = LossBufferStream(5, tmp_path / "gpu", rows_a_file=100)
    stream.stage.capacity = 128
    torch.cuda.set_sync_debug_mode("error")
    try:
        for logits, rows in steps(few, 0, 32):
            ids = rows.to("cuda", non_blocking=True) if on_device else rows
            stream.update(logits.to("cuda", non_blocking=True), few.labels[rows].to("cuda", non_blocking=True), ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stream.close()
    with LossBufferStream(5, tmp_path / "cpu") as usual:
        usual.stage.capacity = 128
        for logits, rows in steps(few, 0, 32):
            usual.update(logits, few.labels[rows], rows)
    found, expected = rows_of(tmp_path / "gpu"), rows_of(tmp_path / "cpu")
    assert found["id"].tolist() == expected["id"].tolist()
    for name in ("label_loss", "margin", "score", "score2", "score3"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_a_missing_extra_is_told_with_the_mend(monkeypatch, tmp_path):
    monkeypatch.setattr("lossbuf.checks.importlib.util.find_spec", lambda name: None if name == "duckdb" else object())
    with pytest.raises(ImportError, match=r'`summarise` needs duckdb: pip install "lossbuf\[streams\]"'):
        summarise(tmp_path)


def test_an_error_under_way_loses_no_rows(tmp_path):
    def wrong():
        with LossBufferStream(3, tmp_path / "rows") as stream:
            stream.update(torch.zeros(2, 3), torch.tensor([0, 1]), ["a", "b"])
            stream.update(torch.zeros(1, 3), torch.tensor([7]), ["c"])

    with pytest.raises(ValueError, match="labels"):
        wrong()
    assert summarise(tmp_path / "rows").rows == 2


def test_a_state_that_does_not_fit_is_refused_as_a_part_too(tmp_path):
    stream = LossBufferStream(3, tmp_path / "rows")
    for epoch in range(3):
        stream.update(torch.zeros(2, 3), torch.tensor([0, 1]), ["a", f"b{epoch}"])
        stream.end_epoch()
    names = sorted(path.name for path in (tmp_path / "rows").iterdir())
    other = LossBufferStream(5, tmp_path / "other")
    state = torch.nn.ModuleDict({"part": other}).state_dict()
    with pytest.raises(ValueError, match="must"):
        torch.nn.ModuleDict({"part": stream}).load_state_dict(state)
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == names
    assert stream.epoch == 3
    stream.close()


class Kind(str, enum.Enum):  # noqa: UP042
    ONE = "x"


def test_texts_that_are_enums_keep_their_text(tmp_path):
    with LossBufferStream(3, tmp_path / "rows") as stream:
        stream.update(torch.zeros(1, 3), torch.tensor([0]), [Kind.ONE])
    assert pd.read_parquet(summarise(tmp_path / "rows").path)["id"].tolist() == ["x"]


@pytest.mark.parametrize("settings", [{"threads": 10**6}, {"memory_limit": "-1GB"}, {"memory_limit": "none"}])
def test_limits_that_are_none(tmp_path, settings):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must be"):
        summarise(tmp_path, **settings)
