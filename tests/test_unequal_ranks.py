"""Ranks that do not fit together are told so, on all of them, and states go from any number of ranks to any other."""

from pathlib import Path

import pytest
import torch

from tests.states import assert_same_bits
from tests.torchrun import RANKS, torchrun
from tests.unequal_ranks import BATCH, ROWS, collected, made, share, step

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the ranks left what they found."""
    folder = tmp_path_factory.mktemp("unequal")
    torchrun(Path(__file__).with_name("unequal_ranks.py"), folder)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """What each trial gave, on every rank."""
    runs = [torch.load(folder / str(rank), weights_only=True) for rank in range(RANKS)]
    return {trial: [run[trial] for run in runs] for trial in runs[0]}


@pytest.mark.parametrize(
    ("trial", "values"),
    [("mode", ["'filter'", "'reweight'"]), ("noise_rate", ["0.25", "0.3"]), ("epoch", list(map(str, range(RANKS))))],
)
def test_settings_that_differ_are_named_on_every_rank(found, trial, values):
    texts = found[{"noise_rate": "rate", "epoch": "resumed"}.get(trial, trial)]
    values = [values[0]] * (RANKS - len(values)) + values
    for text, value in zip(texts, values, strict=True):
        assert text.startswith(f"`{trial}` must be the same on all ranks, got {value} on this one. Give all ranks")


def test_other_labels_are_told_and_equal_settings_are_not(found):
    for text in found["labels"]:
        assert text.startswith("`data` must be the same on all ranks")
    assert found["equal"] == found["cut"] == ["no error"] * RANKS


def test_a_step_more_is_told(found):
    counts = [2] * (RANKS - 1) + [3]
    for text in found["steps"]:
        assert text.startswith(f"`steps` must be as many on every rank, got {counts} by rank. Fill up")


def test_a_block_is_digested_with_the_next(found):
    first, *others = (run["digested"] for run in found["ahead"])
    block = 2 * BATCH * RANKS
    sent = list(range(len(others[0])))
    assert others == [[block * max(0, (step - 2) // 2) for step in sent]] * (RANKS - 1)
    assert first == [block if step in (2, 3) else block * max(0, (step - 2) // 2) for step in sent]
    alone = made()
    alone.stage.capacity = block
    for rows in zip(*(share(rank, RANKS) for rank in range(RANKS)), strict=True):
        step(alone, torch.cat(rows))
    alone.end_epoch()
    for run in found["ahead"]:
        assert_same_bits(run["statistics"], collected(alone)["statistics"])
        assert run["rejected"] == dict.fromkeys(run["rejected"], 0)


def test_a_state_of_one_process_goes_on_in_many(found):
    one, *others = found["half"]
    for other in others:
        assert_same_bits(one, other)
    alone = made()
    for rows in share(0, 1):
        step(alone, rows)
    alone.end_epoch()
    assert one["statistics"]["count"].tolist() == [1] * ROWS
    assert one["rejected"]["not_finite"] == 1  # not once a rank
    for name in ("label_loss", "aum", "last_predicted"):  # scores also hang on where a block ends
        assert_same_bits(one["statistics"][name], collected(alone)["statistics"][name], name)


def test_steps_without_rows(found):
    one, *others = found["nothing"]
    for other in others:
        assert_same_bits(one, other)
    assert one["statistics"]["count"].tolist() == [1] * BATCH + [0] * (ROWS - BATCH)


def test_a_state_is_not_saved_without_the_rows_of_others(found, folder):
    first, *others = found["unsaved"]
    assert first["refused"].startswith("`state` must be saved after a flush, got 1 steps since. Call `flush`")
    assert {other["refused"] for other in others} == {"no error"}  # they write nothing
    for run in found["unsaved"]:
        (text,) = run["warned"]
        assert f"one of {RANKS} ranks with 1 steps not digested" in text
    alone = made()
    alone.load(folder / "state")  # in one process, without a group
    assert alone.dynamics.rows_in_epoch == BATCH * RANKS
    alone.end_epoch()
    assert alone.statistics().count.tolist() == [1] * BATCH + [0] * (ROWS - BATCH)
