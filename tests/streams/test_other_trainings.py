"""What a stream must not touch: rows of other trainings, and those of one that went on without it."""

import copy
import gc
import weakref

import pytest
import torch

from lossbuf.streams import LossBufferStream, summarise
from tests.streams.simulated import rows_of

LABELS = torch.arange(8) % 2
LOGITS = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
IDS = torch.arange(8)


def small(folder, **settings):
    """A stream that digests every eight rows."""
    stream = LossBufferStream(2, folder, **settings)
    stream.stage.capacity = 8
    return stream


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_state_without_files_removes_no_other_training(tmp_path):
    with LossBufferStream(5, tmp_path / "done") as done:
        for _ in range(3):
            done.update(torch.randn(8, 5), LABELS, IDS)
            done.end_epoch()
    before = rows_of(tmp_path / "done")
    stream = LossBufferStream(2, tmp_path / "new")
    stream.update(LOGITS, LABELS, list("abcdefgh"))
    stream.save(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="`folder` must hold no rows of another training, which would be removed"):
        LossBufferStream(2, tmp_path / "done", overwrite=True).load(tmp_path / "state.pt")
    assert rows_of(tmp_path / "done").equals(before)


def test_a_state_removes_no_foreign_file(tmp_path):
    stream = LossBufferStream(2, tmp_path / "new")
    stream.update(LOGITS, LABELS, IDS)
    stream.save(tmp_path / "state.pt")
    other = tmp_path / "other"
    other.mkdir()
    (other / "rows-00000-000000.parquet").write_bytes(b"mine")
    with pytest.raises(ValueError, match="`folder` must hold nothing but rows of streams under their names"):
        LossBufferStream(2, other).load(tmp_path / "state.pt")
    assert names(other) == ["rows-00000-000000.parquet"]


@pytest.mark.parametrize("saved", [0, 1, 2])
def test_the_first_files_of_the_same_training_go(tmp_path, saved):
    killed = small(tmp_path / "rows")
    killed.update(LOGITS, LABELS, IDS)
    for step in range(saved):
        killed.update(LOGITS, LABELS, IDS + 10 * step)
    killed.save(tmp_path / "state.pt")
    for step in range(saved, 4):
        killed.update(LOGITS, LABELS, IDS + 10 * step)
    killed.flush()
    with small(tmp_path / "rows") as stream:
        stream.load(tmp_path / "state.pt")
        assert len(names(tmp_path / "rows")) == min(saved, 1)
        stream.update(LOGITS, LABELS, IDS + 90)
    assert len(rows_of(tmp_path / "rows")) == 8 * (saved + 2)


def test_a_later_file_of_another_training_stays(tmp_path):
    """The first files are alike, the next are not: the rows of the second training follow others."""
    for name, last in (("one", 5), ("two", 7)):
        stream = small(tmp_path / name)
        stream.update(LOGITS, LABELS, IDS)
        stream.flush()
        stream.save(tmp_path / f"{name}.pt")
        stream.update(LOGITS, LABELS, IDS + last)
        stream.close()
    (tmp_path / "one" / "rows-00000-000001.parquet").unlink()
    later = tmp_path / "one" / "rows-00000-000002.parquet"
    later.write_bytes((tmp_path / "two" / "rows-00000-000001.parquet").read_bytes())
    with pytest.raises(ValueError, match="must hold no rows of another training"):
        small(tmp_path / "one").load(tmp_path / "one.pt")
    assert later.exists()


def test_a_state_from_before_the_first_step_needs_a_stream_without_rows(tmp_path):
    stream = LossBufferStream(2, tmp_path)
    start = copy.deepcopy(dict(stream.state_dict()))
    stream.update(LOGITS, LABELS, IDS)
    with pytest.raises(ValueError, match=r"`state_dict` must be of a stream with rows.*overwrite=True"):
        stream.load_state_dict(start)
    stream.close()
    assert len(rows_of(tmp_path)) == 8


def test_what_is_left_of_a_stream_does_not_write_between_the_rows_of_the_next(tmp_path):
    broken = small(tmp_path / "rows")
    broken.update(LOGITS, LABELS, IDS)
    broken.save(tmp_path / "state.pt")
    for step in (100, 200):
        broken.update(LOGITS, LABELS, IDS + step)
    stream = small(tmp_path / "rows")
    stream.load(tmp_path / "state.pt")
    del broken
    gc.collect()
    assert names(tmp_path / "rows") == []
    stream.update(LOGITS, LABELS, IDS + 300)
    stream.close()
    assert sorted(rows_of(tmp_path / "rows")["id"]) == [*range(8), *range(300, 308)]


def test_a_load_keeps_nothing_of_what_came_before(tmp_path):
    stream = small(tmp_path / "rows")
    stream.update(LOGITS, LABELS, IDS)
    stream.save(tmp_path / "state.pt")
    before = []
    for _ in range(3):
        for step in range(4):
            stream.update(LOGITS, LABELS, IDS + 10 * step)
        before.append(weakref.ref(stream._writer))
        stream.load(tmp_path / "state.pt")
    gc.collect()
    assert [writer() for writer in before] == [None] * 3


def test_large_finite_logits_are_left_out_like_infinite_ones(tmp_path):
    logits = torch.tensor([[20.0, 0.0]] * 12)
    logits[0] = torch.tensor([-2e37, 0.0])
    with LossBufferStream(2, tmp_path / "rows", window=4) as stream:
        stream.update(logits, torch.zeros(12, dtype=torch.long), torch.arange(12))
    assert stream.rejected() == {"not_finite": 1, "label_out_of_range": 0}
    assert summarise(tmp_path / "rows", noise_rate=0.2).rows == 11


@pytest.mark.parametrize("how", ["link", "dots"])
def test_the_table_lies_outside_of_the_folder_by_any_name(tmp_path, how):
    folder = tmp_path / "rows"
    with LossBufferStream(2, folder) as stream:
        stream.update(LOGITS, LABELS, IDS)
    if how == "link":
        (tmp_path / "link").symlink_to(folder)
        source, out = tmp_path / "link", folder / "table.parquet"
    else:
        (tmp_path / "beside").mkdir()
        source, out = folder, tmp_path / "beside" / ".." / "rows" / "table.parquet"
    with pytest.raises(ValueError, match="`out` must lie outside of `folder`"):
        summarise(source, out=out)
    with pytest.raises(ValueError, match="`out` must be a file, got the folder"):
        summarise(source, out=tmp_path)
    assert summarise(folder, noise_rate=0.2).rows == 8
