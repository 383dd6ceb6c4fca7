"""Trainings that several tests of streams watch: logits of a network that knows its classes, labels partly wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq
import torch
from torch import Tensor

from lossbuf.streams import LossBufferStream
from lossbuf.streams.files import chained, following, numbered


class Data(NamedTuple):
    """Labels, the true ones, and names."""

    labels: Tensor
    true: Tensor
    ids: list[str]


def data(size: int, num_classes: int = 5, noise: float = 0.2, seed: int = 0) -> Data:
    draw = torch.Generator().manual_seed(seed)
    true = torch.randint(num_classes, (size,), generator=draw)
    wrong = torch.rand(size, generator=draw) < noise
    labels = torch.where(wrong, torch.randint(num_classes, (size,), generator=draw), true)
    return Data(labels, true, [f"shard-{row % 7}/{row}.jpg" for row in range(size)])


def steps(from_: Data, epoch: int, batch: int, num_classes: int = 5) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and rows of an epoch, shuffled."""
    draw = torch.Generator().manual_seed(100 + epoch)
    size = len(from_.labels)
    for rows in torch.randperm(size, generator=draw).split(batch):
        logits = torch.randn(len(rows), num_classes, generator=draw)
        logits[torch.arange(len(rows)), from_.true[rows]] += 1.0 + epoch
        yield logits, rows


def named(from_: Data, rows: Tensor) -> list[str]:
    return [from_.ids[row] for row in rows.tolist()]


def watch(stream: LossBufferStream, from_: Data, epochs: int = 3, batch: int = 64, num_classes: int = 5) -> None:
    """A whole training."""
    for epoch in range(epochs):
        for logits, rows in steps(from_, epoch, batch, num_classes):
            stream.update(logits, from_.labels[rows], named(from_, rows))
        stream.end_epoch()


def written(folder: Path) -> dict[str, Any]:
    """All rows of the files, in order of the names."""
    files = sorted(Path(folder).glob("*.parquet"))
    return {path.name: pq.read_table(path).to_pydict() for path in files}


def rows_of(folder: Path) -> pd.DataFrame:
    """All rows of the files, by position."""
    parts = [pd.read_parquet(path) for path in sorted(Path(folder).glob("*.parquet"))]
    return pd.concat(parts).sort_values(["epoch", "position"], ignore_index=True)


def linked(folder: Path, ranks: int = 1) -> None:
    """Write the files of a folder again so that each says what lies before it, as those of one training do."""
    chain = 0
    for rank, number, path in numbered(folder):
        said = {b"lossbuf.rank": str(rank), b"lossbuf.ranks": str(ranks)}
        table = pq.read_table(path)
        chain = chain if number else 0
        pq.write_table(following(table.replace_schema_metadata({**table.schema.metadata, **said}), chain), path)
        chain = chained(chain, path)
