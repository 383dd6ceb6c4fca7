"""``AcceleratedLossBuffer``: finds wrong labels in a loop that Hugging Face's Accelerate runs."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator, DistributedType
from jaxtyping import Float, Integer
from torch import Tensor

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.integrations.steps import Rows, attach, load_from, of_training, save_into


class AcceleratedLossBuffer:
    """Ties a :class:`~lossbuf.LossBufferCallback` to an ``Accelerator``.

    The loop takes its loss from :meth:`loss` and calls :meth:`end_epoch` after every pass over the data. The state is
    in what ``accelerator.save_state`` writes, as ``lossbuf.pt``, and ``load_state`` restores it. With several
    processes all hold the same state, that of one process on the joined batches; rows that the data loader repeats to
    fill up the last batch count once.

    Args:
        callback: The settings, and where the results are.
        accelerator: Where the loop's model, optimiser and data loader were, or will be, prepared.

    Raises:
        ValueError: If several processes do not make the same number of steps (``even_batches=False``).

    Example:
        .. code-block:: python

            dataset = IndexedDataset(images_and_labels)
            loader = DataLoader(dataset, batch_size=128, shuffle=True)
            model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
            buffers = AcceleratedLossBuffer(LossBufferCallback(dataset.labels, mode="filter"), accelerator)
            for epoch in range(epochs):
                for x, labels, rows in loader:
                    with accelerator.accumulate(model):
                        accelerator.backward(buffers.loss(model(x), labels, rows))
                        optimizer.step()
                        optimizer.zero_grad()
                buffers.end_epoch()
                accelerator.save_state("run")
    """

    def __init__(self, callback: LossBufferCallback, accelerator: Accelerator) -> None:
        if accelerator.num_processes > 1 and not accelerator.even_batches:
            advice = "All processes must make the same number of steps; rows that come twice count once."
            raise ValueError(checks.problem("even_batches", "must be True with several processes", False, advice))
        self.callback, self.accelerator = callback, accelerator
        self._attached = False
        accelerator.register_save_state_pre_hook(self._save)
        accelerator.register_load_state_pre_hook(self._load)

    def loss(
        self, logits: Float[Tensor, "batch num_classes"], labels: Integer[Tensor, " batch"], rows: Rows
    ) -> Float[Tensor, ""]:
        """Take note of a training batch and give its weighted mean cross-entropy, for ``accelerator.backward``.

        Args:
            logits: Outputs of the prepared model, shape ``(batch, num_classes)``.
            labels: Labels as given, shape ``(batch,)``.
            rows: Rows of the samples, shape ``(batch,)``, or their ids.

        Raises:
            ValueError: If the logits are not those of a training step, or anything does not fit.
        """
        self._attach()
        return self.callback.loss(of_training(logits), labels, rows)

    def update(
        self, logits: Float[Tensor, "batch num_classes"], labels: Integer[Tensor, " batch"], rows: Rows
    ) -> Float[Tensor, " batch"]:
        """Take note of a training batch and give the weights of its samples, for a loss of one's own.

        Arguments and errors are those of :meth:`loss`.
        """
        self._attach()
        return self.callback.update(of_training(logits), labels, rows)

    def _attach(self) -> None:
        """Before the first step, attach the model and the optimizer that were prepared, where there is one of each."""
        if self._attached:
            return
        self._attached = True
        models, optimizers = self.accelerator._models, self.accelerator._optimizers
        whole = self.accelerator.distributed_type in (
            DistributedType.NO,
            DistributedType.MULTI_GPU,
            DistributedType.MULTI_CPU,
        )
        if len(models) == len(optimizers) == 1 and whole:
            attach(self.callback, models[0], optimizers[0].optimizer)

    def end_epoch(self) -> None:
        """Mark the end of a pass over the data, in all processes."""
        self.callback.end_epoch()

    def _save(self, models: list[Any], weights: list[Any], output_dir: str) -> None:
        save_into(self.callback, output_dir)

    def _load(self, models: list[Any], input_dir: str) -> None:
        load_from(self.callback, input_dir)
