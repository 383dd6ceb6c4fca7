"""examples/distributed.py under torchrun: as one process, and as if nothing had happened after ranks were killed."""

import importlib.util
import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.data import BatchSampler, DistributedSampler

from lossbuf import LossBufferCallback
from lossbuf.files import load_tensors
from lossbuf.recording.losses import weighted_mean_loss
from tests.states import assert_same_bits
from tests.torchrun import RANKS, ROOT, torchrun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed"),
]

EXAMPLE = ROOT / "examples" / "distributed.py"
BATCH = 64 // RANKS
SHORT = ("--epochs", 4, "--warmup", 2, "--checkpoint-steps", 4, "--batch", BATCH)


@pytest.fixture(scope="module")
def example():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def collected(folder: Path) -> dict:
    return load_tensors(folder / "checkpoint.pt", "digits")


def test_the_ranks_are_one_process_on_the_joined_batches(example, tmp_path):
    torchrun(EXAMPLE, "--out", tmp_path, *SHORT)
    options = example.parsed(["--out", str(tmp_path), *map(str, SHORT)])
    torch.manual_seed(options.seed)
    dataset = example.data(options.noise)
    x, labels = dataset.dataset.tensors
    model = example.network(0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9)
    callback = LossBufferCallback(dataset.labels, mode=options.mode, warmup=options.warmup)
    samplers = [DistributedSampler(dataset, RANKS, rank, seed=options.seed) for rank in range(RANKS)]
    repeated = 0
    for epoch in range(options.epochs):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [list(BatchSampler(sampler, options.batch, drop_last=False)) for sampler in samplers]
        repeated += sum(map(len, samplers)) - len(dataset)
        for step, batches in enumerate(zip(*shares, strict=True), 1):
            rows = torch.tensor([row for batch in batches for row in batch])
            logits = model(x[rows])
            weights = callback.update(logits, labels[rows], rows)
            parts = zip(*(part.split(len(rows) // RANKS) for part in (logits, labels[rows], weights)), strict=True)
            optimizer.zero_grad()
            # Each rank takes the weighted mean of its share, and the gradients of all are averaged.
            (sum(weighted_mean_loss(*part) for part in parts) / RANKS).backward()
            optimizer.step()
            if step % options.checkpoint_steps == 0:
                callback.flush()
        callback.end_epoch()
    assert repeated > 0  # 1,797 rows do not go round
    state, mine = collected(tmp_path)["callback"], callback.state_dict()
    assert state["dynamics.count"].tolist() == [options.epochs] * len(dataset)  # nothing twice
    exact = ("counter", "dynamics.wrong_count", "dynamics.labels", "rings.label_loss.seen", "rings.predicted_loss.seen")
    for name, value in mine.items():
        if name in exact:
            length = len(value) - name.endswith(".seen")  # the last counts what fills up, too
            assert_same_bits(state[name][:length], value[:length], name)
        elif value is not mine["_extra_state"] and isinstance(value, torch.Tensor) and value.is_floating_point():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5, equal_nan=True, msg=name)
    suspects = pd.read_csv(tmp_path / "suspects.csv").row
    assert sorted(suspects) == sorted(callback.report().query("is_suspect").index)
    assert len(suspects) > 300


def test_another_number_of_ranks_goes_on(tmp_path):
    doomed = Path(__file__).with_name("doomed.py")
    steps = math.ceil(math.ceil(1797 / RANKS) / BATCH)  # an epoch
    torchrun(doomed, json.dumps([(0, "step", steps + 10)]), EXAMPLE, "--out", tmp_path, *SHORT, fails=True)
    ended, seen = (collected(tmp_path)[name] for name in ("ended", "seen"))
    assert (ended, seen) == (1, 8 * BATCH * RANKS)
    assert seen % (BATCH * (RANKS + 1)) > 0  # some rows come again
    torchrun(EXAMPLE, "--out", tmp_path, *SHORT, ranks=RANKS + 1)
    assert collected(tmp_path)["callback"]["dynamics.count"].tolist() == [4] * 1797
    assert len(pd.read_csv(tmp_path / "suspects.csv")) > 300


def test_killed_ranks_go_on_from_the_checkpoint(tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    settings = (*SHORT, "--mode", "reweight", "--dropout", 0.2, "--exact")
    torchrun(EXAMPLE, "--out", alone, *settings)
    dooms = [(RANKS - 1, "step", 23), (0, "write", 2), (0, "replace", 3)]
    doomed = Path(__file__).with_name("doomed.py")
    told = torchrun(doomed, json.dumps(dooms), EXAMPLE, "--out", killed, *settings, restarts=len(dooms))
    assert [told.count(f"start {start}") for start in range(5)] == [RANKS] * 4 + [0]
    assert told.count("killed by SIGKILL") == len(dooms)
    assert_same_bits(collected(killed), collected(alone))
    assert collected(killed)["ended"] == 4
    assert (killed / "suspects.csv").read_bytes() == (alone / "suspects.csv").read_bytes()
