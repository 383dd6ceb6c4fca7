"""``IgniteLossBuffer``: the loss and the handlers for PyTorch-Ignite's engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.utils import convert_tensor
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.integrations.steps import Rows, close, labels_and_rows, of_training, settle


class IgniteLossBuffer:
    """Ties a :class:`~lossbuf.LossBufferCallback` to a training ``Engine``.

    It is the loss function of ``create_supervised_trainer``, and has the ``prepare_batch`` that goes with it; in a step
    of one's own call ``callback.loss``. :meth:`attach` ends the epochs. It can be put among the objects that Ignite's
    ``Checkpoint`` saves and loads.

    Args:
        callback: The settings, and where the results are.

    Example:
        .. code-block:: python

            dataset = IndexedDataset(images_and_labels)
            buffers = IgniteLossBuffer(LossBufferCallback(dataset.labels, mode="filter"))
            trainer = create_supervised_trainer(model, optimizer, buffers, prepare_batch=buffers.prepare_batch)
            buffers.attach(trainer, model, optimizer)
            to_save = {"model": model, "optimizer": optimizer, "trainer": trainer, "buffers": buffers}
            trainer.add_event_handler(Events.EPOCH_COMPLETED, Checkpoint(to_save, "run"))
            trainer.run(DataLoader(dataset, batch_size=128, shuffle=True), max_epochs=20)
    """

    def __init__(self, callback: LossBufferCallback) -> None:
        self.callback = callback
        self._resumed = False

    # ---- the step -------------------------------------------------------------------------------------------------

    def prepare_batch(
        self, batch: Any, device: str | torch.device | None = None, non_blocking: bool = False
    ) -> tuple[Any, tuple[Any, Any]]:
        """``(x, labels, rows)`` to ``(x, (labels, rows))`` on the device.

        Raises:
            ValueError: If the batch has no rows.
        """
        labels, rows = labels_and_rows(batch)
        if isinstance(batch, Mapping):
            x: Any = {name: value for name, value in batch.items() if name not in ("labels", "rows")}
        else:
            x = batch[0]
        x, labels, rows = (convert_tensor(part, device, non_blocking) for part in (x, labels, rows))
        return x, (labels, rows)

    def __call__(self, logits: Float[Tensor, "batch num_classes"], target: tuple[Tensor, Rows]) -> Float[Tensor, ""]:
        """Take note of a training batch and give its weighted mean cross-entropy.

        Args:
            logits: Outputs of the network, shape ``(batch, num_classes)``.
            target: Labels and rows, each of shape ``(batch,)``.

        Raises:
            ValueError: If ``target`` has no rows, the logits are those of an evaluation, or anything does not fit.
        """
        if not isinstance(target, tuple) or len(target) != 2:
            advice = "Give `prepare_batch=buffers.prepare_batch` to `create_supervised_trainer`."
            raise ValueError(checks.problem("target", "must be (labels, rows)", type(target).__name__, advice))
        labels, rows = target
        return self.callback.loss(of_training(logits), labels, rows)

    # ---- epochs ---------------------------------------------------------------------------------------------------

    def attach(self, engine: Engine, network: nn.Module | None = None, optimizer: Optimizer | None = None) -> None:
        """End an epoch with each of the engine's; attach before anything that saves checkpoints at the same event.

        Args:
            engine: The training engine.
            network: The network that trains, with ``optimizer``: see :meth:`lossbuf.LossBufferCallback.attach`.
            optimizer: Its optimizer.
        """
        if network is not None and optimizer is not None:

            @engine.on(Events.STARTED)
            def _(engine: Engine) -> None:
                self.callback.attach(network, optimizer, engine.state.max_epochs)

        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end)

    def _start(self, engine: Engine) -> None:
        # Only a run resumed within an epoch goes on with it; what a checkpoint at its end, or a stop, left open ends.
        length = engine.state.epoch_length
        within = length is not None and engine.state.iteration % length != 0
        if not (self._resumed and within):
            close(self.callback)
        self._resumed = False

    def _end(self, engine: Engine) -> None:
        close(self.callback)

    # ---- checkpoints ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The callback's state; all processes must call it, as Ignite's ``Checkpoint`` does."""
        settle(self.callback)
        return dict(self.callback.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the callback's state.

        Raises:
            ValueError: If it is of other settings or another data set.
        """
        self.callback.load_state_dict(state_dict)
        self._resumed = True
