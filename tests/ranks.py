"""Several processes that train together: ``torchrun --nproc-per-node RANKS ranks.py FOLDER``.

Each takes its share of every batch of every scenario, and writes what it collected. Then rank 0, alone, takes the
joined batches. The scenarios are the same in all.
"""

import datetime
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from lossbuf import LossBufferCallback

EPOCHS = 3


class Scenario(NamedTuple):
    """What is trained on.

    Attributes:
        num_classes: Number of classes.
        capacity: Rows of a block, of all ranks together.
        sizes: Rows of each step of an epoch, of rank 0 and of each of the others.
        repeated: Rows of the last step that the last rank takes from rank 0, as a sampler does to fill up.
    """

    num_classes: int = 3
    capacity: int = 16
    sizes: tuple[tuple[int, int], ...] = ((3, 3), (3, 3), (3, 3), (3, 3))
    repeated: int = 0

    def n_samples(self, ranks: int) -> int:
        """Number of rows in the data set, that of ``ranks`` ranks."""
        return sum(first + (ranks - 1) * other for first, other in self.sizes) - self.repeated


SCENARIOS = {
    "even": Scenario(),
    "uneven_last_step": Scenario(sizes=((3, 3), (3, 3), (3, 1))),
    "last_step_of_one_rank": Scenario(sizes=((4, 4), (4, 4), (2, 0))),
    "repeated_rows": Scenario(sizes=((3, 3), (3, 3), (3, 3)), repeated=2),
    "steps_larger_than_the_block": Scenario(capacity=4, sizes=((5, 5), (5, 5), (5, 2))),
    "one_block_an_epoch": Scenario(capacity=16384),
    "wide": Scenario(num_classes=70, sizes=((3, 3), (3, 3), (3, 2))),
    "odd_capacity": Scenario(capacity=13, sizes=((2, 2),) * 7 + ((2, 1),)),
    "narrow": Scenario(num_classes=10, sizes=((3, 3), (3, 3), (3, 1))),
}


def collect(scenario: Scenario, rank: int, ranks: int, alone: bool = False) -> dict[str, Any]:
    """Train for some epochs on the share of ``rank``, or alone on those of all ranks joined."""
    draw = torch.Generator().manual_seed(0)
    n_samples = scenario.n_samples(ranks)
    labels = torch.randint(scenario.num_classes, (n_samples,), generator=draw)
    callback = LossBufferCallback(labels, scenario.num_classes, window=7, mode="reweight", warmup=1, noise_rate=0.25)
    callback.stage.capacity = scenario.capacity
    weights, reports = [], []
    for epoch in range(EPOCHS):
        order, start = torch.randperm(n_samples, generator=draw), 0
        for step, (first, other) in enumerate(scenario.sizes):
            size = first + (ranks - 1) * other
            repeated = scenario.repeated if step == len(scenario.sizes) - 1 else 0
            joined = order[start : start + size - repeated]
            joined = torch.cat((joined, joined[:repeated]))
            start += size - repeated
            logits = 3 * torch.randn(len(joined), scenario.num_classes, generator=draw)
            if epoch == 1 and step == 0:
                logits[first] = float("nan")  # the first of rank 1
            end = first + rank * other
            mine = slice(None) if alone else slice(end - other if rank else 0, end)
            rows = joined[mine]
            weights.append(callback.update(logits[mine], labels[rows], rows))
            if rank == 0 and not alone and step == 1:
                callback.report()  # alone: must neither hang nor change anything
        callback.end_epoch()
        if rank == 0:
            reports.append(callback.report().reset_index().to_dict("list"))
    return {
        "buffers": {name: value for name, value in callback.state_dict().items() if isinstance(value, torch.Tensor)},
        "cursors": callback.dynamics.get_extra_state(),
        "statistics": dict(vars(callback.statistics())),
        "kept": callback.select().tolist(),
        "soft": torch.from_numpy(callback.weights()),
        "rejected": callback.rejected(),
        "weights": weights,
        "reports": reports,
    }


def main(folder: Path) -> None:
    """Run all scenarios and write what each collected."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.save({name: collect(scenario, rank, ranks) for name, scenario in SCENARIOS.items()}, folder / str(rank))
    dist.destroy_process_group()
    if rank == 0:
        alone = {name: collect(scenario, 0, ranks, alone=True) for name, scenario in SCENARIOS.items()}
        torch.save(alone, folder / "alone")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
