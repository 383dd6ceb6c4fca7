"""``LightningLossBuffer``: a Lightning callback that finds wrong labels while ``Trainer.fit`` runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.integrations.steps import attach, close, is_open, keeps_loss, labels_and_rows, settle

_WHOLE_WEIGHTS = (SingleDeviceStrategy, DDPStrategy)
"""Strategies under which each process holds all weights, so that they can be copied and put back."""


class LightningLossBuffer(pl.Callback):
    """Feeds the training steps of a ``LightningModule`` to a :class:`~lossbuf.LossBufferCallback`.

    ``training_step`` returns its logits: ``{"logits": logits}``. The loss is then the callback's weighted
    cross-entropy. In mode ``"watch"`` a ``"loss"`` may be returned beside it, and is then what the network learns by.
    Labels and rows are those of the batch, ``(x, labels, rows)`` as :class:`~lossbuf.IndexedDataset` gives it or a
    mapping with ``"labels"`` and ``"rows"``, or are returned beside the logits under these names. A step that returns
    ``None`` is skipped, as Lightning does.

    Epochs end with ``on_train_epoch_end``. The state lies in the trainer's checkpoints, and ``fit(ckpt_path=...)``
    restores it; ``validate``, ``test`` and ``predict`` leave it alone.

    Args:
        callback: The settings, and where the results are.
        own_steps: True where ``training_step`` calls ``callback.loss`` or ``callback.update`` itself, as manual
            optimisation and a weighted loss of one's own must. Then only epochs and checkpoints are looked after.

    Raises:
        ValueError: In ``fit``, if a step gives no logits, labels or rows, gives a loss where it is the callback's, or
            optimisation is manual and ``own_steps`` is not set.

    Example:
        .. code-block:: python

            class Digits(lightning.LightningModule):
                def training_step(self, batch, batch_idx):
                    x, labels, rows = batch
                    return {"logits": self.network(x)}

                ...

            dataset = IndexedDataset(images_and_labels)
            callback = LossBufferCallback(dataset.labels, mode="filter")
            trainer = lightning.Trainer(max_epochs=20, callbacks=[LightningLossBuffer(callback)])
            trainer.fit(Digits(), DataLoader(dataset, batch_size=128, shuffle=True))
            suspects = callback.report().query("is_suspect")
    """

    def __init__(self, callback: LossBufferCallback, *, own_steps: bool = False) -> None:
        super().__init__()
        self.callback = callback
        self.own_steps = own_steps
        self._fitting = False
        self._unwrap: Callable[[], None] | None = None

    # ---- the step -------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attach the network and put the callback's loss behind ``training_step``: hooks see a step too late."""
        epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else None
        if len(trainer.optimizers) == 1 and isinstance(trainer.strategy, _WHOLE_WEIGHTS):
            attach(self.callback, pl_module, trainer.optimizers[0], epochs)
        if self.own_steps:
            return
        if not pl_module.automatic_optimization:
            advice = "Call `callback.loss` in `training_step` and give `own_steps=True`."
            raise ValueError(checks.problem("automatic_optimization", "must be True", False, advice))
        step = pl_module.training_step

        @functools.wraps(step)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            return self._fed(step(*args, **kwargs), args[0] if args else next(iter(kwargs.values()), None))

        # An attribute of the module's own there may be too: torch.compile leaves one.
        before = vars(pl_module).get("training_step")
        pl_module.training_step = training_step
        self._unwrap = functools.partial(_put_back, pl_module, before)

    def _fed(self, output: Any, batch: Any) -> dict[str, Any] | None:
        if output is None:
            return None
        if not isinstance(output, Mapping) or not isinstance(output.get("logits"), Tensor):
            found = f"the keys {list(output)}" if isinstance(output, Mapping) else type(output).__name__
            advice = 'Return {"logits": logits}, in mode "watch" with a "loss" of your own if you like.'
            raise ValueError(checks.problem("training_step", 'must return a dict with "logits"', found, advice))
        logits, own_loss = output["logits"], output.get("loss")
        labels, rows = (
            (output["labels"], output["rows"]) if {"labels", "rows"} <= output.keys() else labels_and_rows(batch)
        )
        if own_loss is None:
            loss = self.callback.loss(logits, labels, rows)
        elif keeps_loss(self.callback):
            self.callback.update(logits, labels, rows)
            loss = own_loss
        else:
            rule = 'must return no "loss" where samples are weighted or labels planted'
            advice = (
                "Leave it out; class weights go to `LossBufferCallback(class_weight=...)`. Or weight your loss by "
                "`callback.update` and give `own_steps=True`."
            )
            raise ValueError(checks.problem("training_step", rule, "one", advice))
        return {**output, "loss": loss, "logits": logits.detach()}

    def _end(self) -> None:
        if self._unwrap is not None:
            self._unwrap()
            self._unwrap = None

    # ---- epochs ---------------------------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End an epoch that a checkpoint was written before the end of."""
        if batch_idx == 0:
            close(self.callback)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the epoch."""
        if self.own_steps and not is_open(self.callback):
            advice = "Call `callback.loss(logits, labels, rows)` in it, or leave `own_steps` out."
            raise ValueError(checks.problem("training_step", "must feed the callback", "an epoch without rows", advice))
        close(self.callback)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the module its ``training_step`` back."""
        self._end()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the module its ``training_step`` back."""
        self._end()

    # ---- checkpoints ----------------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remember whether it is for training that a checkpoint is read."""
        self._fitting = stage == "fit"

    def state_dict(self) -> dict[str, Any]:
        """The callback's state, for the trainer's checkpoint."""
        settle(self.callback)
        return dict(self.callback.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it, in ``fit`` only: to test the best weights must not undo what was collected since.

        Raises:
            ValueError: If it is of other settings or another data set.
        """
        if self._fitting:
            self.callback.load_state_dict(state_dict)


def _put_back(module: pl.LightningModule, step: Callable[..., Any] | None) -> None:
    if step is None:
        del module.training_step
    else:
        module.training_step = step
