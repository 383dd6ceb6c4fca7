"""Several processes that train together: ``torchrun --nproc-per-node RANKS ranks.py FRAMEWORK FOLDER``.

Each trains on its share of the digits (one row short, so that a share is filled up), saves a checkpoint within an
epoch on the way, and trains anew from that checkpoint. What both runs collected is written to ``FOLDER/RANK``.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from tests.integrations.plain import BATCH, EPOCHS, ROWS, EpochOrder, RowsSeen, callback, dataset, network, sgd

SAVED_AFTER = 1, 3
"""Epoch, and step in it, of the checkpoint."""


def loader(**settings: Any) -> DataLoader[Any]:
    return DataLoader(Subset(dataset(), range(ROWS - 1)), batch_size=BATCH, **settings)


class OneShort(EpochOrder):
    """An order without the last row."""

    def __len__(self) -> int:
        return ROWS - 1

    def __iter__(self):
        yield from (row for row in super().__iter__() if row < ROWS - 1)


def with_accelerate(folder: Path, resume: bool) -> tuple[Any, Any, RowsSeen]:
    from accelerate import Accelerator

    from lossbuf.integrations.accelerate import AcceleratedLossBuffer

    accelerator = Accelerator(cpu=True)
    mine, model = callback("reweight"), network()
    seen = RowsSeen(model)
    wrapped, optimizer, batches = accelerator.prepare(model, sgd(model), loader(sampler=OneShort()))
    assert accelerator.num_processes == int(os.environ["WORLD_SIZE"])
    buffers = AcceleratedLossBuffer(mine, accelerator)
    first_epoch, first_step = SAVED_AFTER if resume else (0, 0)
    if resume:
        accelerator.load_state(str(folder / "run"))
    for epoch in range(first_epoch, EPOCHS):
        batches.set_epoch(epoch)
        skipped = first_step if epoch == first_epoch else 0
        steps = accelerator.skip_first_batches(batches, skipped) if skipped else batches
        for step, (x, labels, rows) in enumerate(steps, skipped + 1):
            accelerator.backward(buffers.loss(wrapped(x), labels, rows))
            optimizer.step()
            optimizer.zero_grad()
            if (epoch, step) == SAVED_AFTER and not resume:
                accelerator.save_state(str(folder / "run"))
        buffers.end_epoch()
    return mine, model, seen


def with_lightning(folder: Path, resume: bool) -> tuple[Any, Any, RowsSeen]:
    import lightning

    from lossbuf.integrations.lightning import LightningLossBuffer

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network()

        def training_step(self, batch, batch_idx):
            return {"logits": self.network(batch[0])}

        def configure_optimizers(self):
            return sgd(self.network)

    class Keeper(lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            # The last step: Lightning's own loaders do not go on within an epoch.
            if trainer.current_epoch == SAVED_AFTER[0] and batch_idx == trainer.num_training_batches - 1:
                trainer.save_checkpoint(folder / "run.ckpt")

    mine, module = callback("reweight"), Module()
    seen = RowsSeen(module.network)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        strategy="ddp",
        devices=int(os.environ["WORLD_SIZE"]),
        enable_checkpointing=False,
        callbacks=[LightningLossBuffer(mine), *([] if resume else [Keeper()])],
        default_root_dir=folder,
        **quiet,
    )
    trainer.fit(module, loader(shuffle=True), ckpt_path=folder / "run.ckpt" if resume else None)
    return mine, module.network, seen


def main(framework: str, folder: str) -> None:
    """Run twice and write what each collected."""
    torch.set_num_threads(1)
    run = {"accelerate": with_accelerate, "lightning": with_lightning}[framework]
    results = []
    for resume in (False, True):
        mine, model, seen = run(Path(folder), resume)
        state = {name: value for name, value in mine.state_dict().items() if isinstance(value, torch.Tensor)}
        statistics = dict(vars(mine.statistics()))
        results.append(
            {
                "state": state,
                "statistics": statistics,
                "model": dict(model.state_dict()),
                "batches": seen.batches,
                "rejected": mine.rejected(),
                "epoch": mine.epoch,
            }
        )
    torch.save(results, Path(folder) / os.environ["RANK"])
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
