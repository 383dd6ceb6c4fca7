"""``LossBufferTrainer``: Hugging Face's ``Trainer``, finding wrong labels while it trains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers.trainer import Trainer
from transformers.trainer_callback import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.errors import LossBufferWarning
from lossbuf.integrations.steps import Rows, attach, close, keeps_loss, load_from, save_into

ROWS = "lossbuf_rows"
"""What the rows are called in a batch, and in samples that are numbered here."""

_CLASS_WEIGHTS = "Give class weights as `LossBufferCallback(class_weight=...)`."


class NumberedRows(Dataset[dict[str, Any]]):
    """A map-style data set of dicts, each with its number under :data:`ROWS`.

    Args:
        dataset: The data set.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], ROWS: index}

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """A whole batch at once, as ``datasets.Dataset`` reads much faster."""
        read = getattr(self.dataset, "__getitems__", None)
        samples = [self.dataset[index] for index in indices] if read is None else read(indices)
        return [{**sample, ROWS: index} for sample, index in zip(samples, indices, strict=True)]


class RowCollator:
    """Collates samples without their row, and puts the rows beside the batch, under :data:`ROWS`.

    Args:
        collator: Makes a batch of a list of samples.
        column: What holds a sample's row number or name.

    Raises:
        ValueError: When called, if a sample has no such column.
    """

    def __init__(self, collator: Callable[[list[Any]], Any], column: str = ROWS) -> None:
        self.collator = collator
        self.column = column

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch."""
        for feature in features:
            if self.column not in feature:
                keys = f"the keys {list(feature)}"
                raise ValueError(checks.problem("train_dataset", f"must hold a column {self.column!r}", keys))
        rows: Any = [feature[self.column] for feature in features]
        batch = self.collator([{k: v for k, v in feature.items() if k != self.column} for feature in features])
        numbers = all(isinstance(row, Integral) or (isinstance(row, Tensor) and row.ndim == 0) for row in rows)
        return {**batch, ROWS: torch.tensor([int(row) for row in rows]) if numbers else rows}


class LossBufferMixin:
    """To be put before ``Trainer``, or a subclass of it: ``class MyTrainer(LossBufferMixin, Seq2SeqTrainer)``.

    The rows go with the samples of ``train_dataset`` whatever ``remove_unused_columns`` says, and those of evaluations
    are not looked at. In mode ``"watch"`` the loss is the trainer's own; else it is the callback's weighted
    cross-entropy, scaled as the trainer expects it. Each checkpoint holds the state in ``lossbuf.pt``, and
    ``train(resume_from_checkpoint=...)`` restores it.

    Args:
        args: Those of the trainer.
        loss_buffer: The settings, and where the results are.
        id_column: What holds the ids of the samples (row numbers, where ``loss_buffer`` has no ids). By default the
            samples are those of the labels, in the same order.
        kwargs: Those of the trainer.

    Raises:
        ValueError: If ``train_dataset`` is not as long as the labels, or a loss of one's own is given where it is the
            callback's.

    Warns:
        LossBufferWarning: If a ``compute_loss`` of one's own is not used, as the loss is the callback's.
    """

    # What the mixin needs of the trainer.
    args: Any
    train_dataset: Any
    data_collator: Any
    accelerator: Any
    add_callback: Callable[..., None]
    _signature_columns: list[str] | None

    def __init__(
        self, *args: Any, loss_buffer: LossBufferCallback, id_column: str | None = None, **kwargs: Any
    ) -> None:
        self.loss_buffer = loss_buffer
        self.id_column = id_column
        self._reads_rows = self._steps = False
        super().__init__(*args, **kwargs)
        # Weights that are sharded cannot be copied and put back here.
        sharded = getattr(self, "is_deepspeed_enabled", False) or getattr(self, "is_fsdp_enabled", False)
        self.add_callback(_Epochs(loss_buffer, attaches=not sharded))
        if not keeps_loss(loss_buffer):
            own: list[tuple[str, Any, Any]] = [
                ("compute_loss_func", getattr(self, "compute_loss_func", None), None),
                ("label_smoothing_factor", self.args.label_smoothing_factor, 0),
                ("n_gpu", max(self.args.n_gpu, 1), 1),  # DataParallel; torchrun starts a process a GPU
            ]
            for name, value, expected in own:
                if value != expected:
                    rule = f"must be {expected} in mode {loss_buffer.mode!r}, where the loss is weighted"
                    raise ValueError(checks.problem(name, rule, value, _CLASS_WEIGHTS))
            above = super().compute_loss  # pyright: ignore[reportAttributeAccessIssue]
            if getattr(above, "__func__", None) is not Trainer.compute_loss:
                warnings.warn(
                    f"In mode {loss_buffer.mode!r} the loss is lossbuf's weighted cross-entropy, and that of "
                    f"`{above.__qualname__}` is not used. {_CLASS_WEIGHTS}",
                    LossBufferWarning,
                    stacklevel=2,
                )

    # ---- rows -----------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        """The trainer's, with rows in the batches."""
        dataset, collator = self.train_dataset, self.data_collator
        if self.id_column is None and dataset is not None:
            self.train_dataset = self._numbered(dataset)
        self.data_collator = RowCollator(collator, self.id_column or ROWS)
        self._reads_rows = True
        try:
            return super().get_train_dataloader()  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            self.train_dataset, self.data_collator, self._reads_rows = dataset, collator, False

    def _numbered(self, dataset: Any) -> NumberedRows:
        advice = "Give `id_column`, a column with the row numbers or ids."
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise ValueError(checks.problem("train_dataset", "must be map-style", type(dataset).__name__, advice))
        expected = self.loss_buffer.n_samples
        if len(dataset) != expected:
            raise ValueError(
                checks.problem("train_dataset", f"must have {expected} samples, one a label", len(dataset), advice)
            )
        return NumberedRows(dataset)

    def _set_signature_columns_if_needed(self) -> None:
        """The columns that ``remove_unused_columns`` keeps."""
        super()._set_signature_columns_if_needed()  # pyright: ignore[reportAttributeAccessIssue]
        column = self.id_column or ROWS
        columns = [name for name in self._signature_columns or () if name != column]
        self._signature_columns = [*columns, column] if self._reads_rows else columns

    # ---- the step -------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """The trainer's."""
        self._steps = True
        try:
            return super().training_step(  # pyright: ignore[reportAttributeAccessIssue]
                model, inputs, num_items_in_batch
            )
        finally:
            self._steps = False

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The trainer's, and in a training step the callback's."""
        of_trainer = super().compute_loss  # pyright: ignore[reportAttributeAccessIssue]
        rows = inputs.pop(ROWS, None)
        if not self._steps:
            return of_trainer(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.get("labels")
        if rows is None:
            rule = f"must hold {ROWS!r}"
            advice = "The rows come from `get_train_dataloader`: override it only to call it."
            raise ValueError(checks.problem("inputs", rule, f"the keys {list(inputs)}", advice))
        if not isinstance(labels, Tensor):
            advice = "Name the column of the labels `label` or `labels`."
            raise ValueError(checks.problem("inputs", "must hold 'labels'", f"the keys {list(inputs)}", advice))
        loss, outputs = of_trainer(model, inputs, True, num_items_in_batch)
        loss = self._fed(loss, _logits(outputs), labels, self._named(rows), num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _named(self, rows: Rows) -> Rows:
        ids = self.loss_buffer.ids
        if self.id_column is not None or ids is None or not isinstance(rows, Tensor):
            return rows
        return [ids[row] for row in rows.tolist()]

    def _fed(self, own_loss: Tensor, logits: Tensor, labels: Tensor, rows: Rows, items: Any) -> Tensor:
        if keeps_loss(self.loss_buffer):
            self.loss_buffer.update(logits, labels, rows)
            return own_loss
        loss = self.loss_buffer.loss(logits, labels, rows)
        if items is None:
            return loss  # the trainer divides it by the number of batches that are accumulated
        share = len(labels) / items  # of the rows that are accumulated, in all processes if it averages over them
        return loss * share * (self.accelerator.num_processes if self.args.average_tokens_across_devices else 1)

    # ---- checkpoints ----------------------------------------------------------------------------------------------

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> Any:
        """The trainer's; restores the callback too where it resumes."""
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        if folder:
            load_from(self.loss_buffer, str(folder))
        return super().train(  # pyright: ignore[reportAttributeAccessIssue]
            resume_from_checkpoint=resume_from_checkpoint, trial=trial, ignore_keys_for_eval=ignore_keys_for_eval
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The trainer's; a checkpoint gets the callback's state too."""
        super().save_model(output_dir, _internal_call)  # pyright: ignore[reportAttributeAccessIssue]
        if _internal_call and output_dir is not None and Path(output_dir).name.startswith(PREFIX_CHECKPOINT_DIR):
            save_into(self.loss_buffer, output_dir)


class LossBufferTrainer(LossBufferMixin, Trainer):
    """``Trainer`` with :class:`LossBufferMixin`.

    Example:
        .. code-block:: python

            callback = LossBufferCallback(train_labels, mode="filter")
            trainer = LossBufferTrainer(
                model=model,
                args=TrainingArguments(output_dir="run", num_train_epochs=20),
                train_dataset=train_dataset,  # in the order of train_labels
                loss_buffer=callback,
            )
            trainer.train()
            suspects = callback.report().query("is_suspect")
    """


class _Epochs(TrainerCallback):
    """Attaches network and optimizer to the callback, and ends its epochs."""

    def __init__(self, callback: LossBufferCallback, attaches: bool = True) -> None:
        self.callback = callback
        self.attaches = attaches

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        if self.attaches and model is not None and optimizer is not None:
            attach(self.callback, model, getattr(optimizer, "optimizer", optimizer), math.ceil(state.num_train_epochs))
        # A checkpoint written with the last step of an epoch comes before the epoch's end, and is resumed after it.
        if float(state.epoch or 0).is_integer():
            close(self.callback)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        close(self.callback)


def _logits(outputs: Any) -> Tensor:
    found = (
        outputs.get("logits")
        if isinstance(outputs, Mapping)
        else outputs[1]
        if isinstance(outputs, Sequence) and len(outputs) > 1
        else None
    )
    if not isinstance(found, Tensor):
        advice = 'Return {"loss": loss, "logits": logits}, or (loss, logits).'
        raise ValueError(checks.problem("model", 'must return "logits"', type(outputs).__name__, advice))
    return found
