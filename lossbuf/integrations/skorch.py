"""``LossBufferClassifier``: skorch's classifier, finding wrong labels while it fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from skorch import NeuralNetClassifier
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset
from torch.utils.data.dataloader import DataLoader

from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.integrations.steps import attach, close, of_training

_STATE = "callback."


class LossBufferLoss(nn.CrossEntropyLoss):
    """The weighted cross-entropy of a :class:`~lossbuf.LossBufferCallback` in training, the plain one in evaluation.

    Both weight the classes where the callback has a ``class_weight``.

    As the net's criterion it has the callback's state in ``criterion.pt``, which skorch's checkpoints write and read.

    Args:
        callback: The settings, and where the results are.
    """

    def __init__(self, callback: LossBufferCallback) -> None:
        super().__init__()
        self.callback = callback
        self.rows: Tensor | None = None  # of the batch in hand, set by the net

    def forward(self, input: Float[Tensor, "batch num_classes"], target: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        """The loss of a batch.

        Args:
            input: Logits, shape ``(batch, num_classes)``.
            target: Labels, shape ``(batch,)``.

        Raises:
            ValueError: In training, if it is not :class:`LossBufferClassifier` that trains.
        """
        if not self.training:
            return F.cross_entropy(input, target, self.callback.class_weight)
        if self.rows is None:
            rule = "must be that of a LossBufferClassifier, which tells the rows"
            raise ValueError(checks.problem("criterion", rule, "a training step without rows"))
        ids = self.callback.ids
        rows = self.rows if ids is None else [ids[row] for row in self.rows.tolist()]
        return self.callback.loss(of_training(input), target, rows)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Restore the callback, whole or not at all.

        Raises:
            ValueError: If the state is of other settings or another data set.
        """
        own = {name.removeprefix(_STATE): value for name, value in state_dict.items() if name.startswith(_STATE)}
        return self.callback.load_state_dict(own, strict, assign)


class LossBufferClassifier(NeuralNetClassifier):
    """``NeuralNetClassifier`` whose criterion is a :class:`LossBufferLoss`; the module gives logits.

    The labels of the callback are all those given to ``fit``, in the same order; what ``train_split`` keeps for
    validation is never fed. ``predict_proba`` gives probabilities. Fitting again goes on collecting in the same
    callback; ``sklearn.base.clone`` copies it, see ``net.criterion_.callback``.

    Raises:
        ValueError: In ``fit``, if the criterion is another, the data are not as many as the labels, ``train_split``
            does not give a ``Subset``, or ``iterator_train`` does not give a ``DataLoader``.

    Example:
        .. code-block:: python

            callback = LossBufferCallback(y, mode="filter")
            net = LossBufferClassifier(Module, criterion=LossBufferLoss(callback), lr=0.1, max_epochs=20)
            net.fit(X, y)
            suspects = callback.report().query("is_suspect")
    """

    def initialize_criterion(self) -> LossBufferClassifier:
        """skorch's; checks what it makes."""
        super().initialize_criterion()
        self._criterion()
        return self

    def _criterion(self) -> LossBufferLoss:
        criterion = getattr(self.criterion_, "_orig_mod", self.criterion_)  # what torch.compile wraps
        if not isinstance(criterion, LossBufferLoss):
            advice = "Give `criterion=LossBufferLoss(callback)`."
            raise ValueError(checks.problem("criterion", "must be a LossBufferLoss", type(criterion).__name__, advice))
        return criterion

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> tuple[Any, Any]:
        """skorch's; remembers which rows the training has."""
        training, validation = super().get_split_datasets(X, y, **fit_params)
        self.train_rows_ = _rows(training, X, self._criterion().callback.n_samples)
        return training, validation

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """skorch's; in training it tells the criterion the rows of each batch."""
        if not training:
            return super().get_iterator(dataset, training=False)
        loader = super().get_iterator(_WithRows(dataset, self.train_rows_), training=True)
        if not isinstance(loader, DataLoader):
            raise ValueError(checks.problem("iterator_train", "must give a DataLoader", type(loader).__name__))
        loader.collate_fn = _RowCollate(loader.collate_fn)
        return _Told(loader, self._criterion())

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """skorch's; attaches network and optimizer to the callback."""
        super().on_train_begin(net, X, y, **kwargs)
        callback = self._criterion().callback
        # Of a net that is fitted bit by bit only the first part is known here.
        epochs = self.max_epochs if callback.warm_up.automatic else None
        attach(callback, self.module_, self.optimizer_, epochs)

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any) -> None:
        """skorch's; ends an epoch that was cut short."""
        super().on_epoch_begin(net, dataset_train, dataset_valid, **kwargs)
        close(self._criterion().callback)

    def on_epoch_end(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any) -> None:
        """skorch's; ends the epoch, before any checkpoint of it."""
        super().on_epoch_end(net, dataset_train, dataset_valid, **kwargs)
        close(self._criterion().callback)


def _rows(training: Any, whole: Any, n_samples: int) -> Tensor:
    """The rows of what a split kept for training, shape ``(n_kept,)``."""
    if isinstance(training, Subset) and training is not whole:
        return _rows(training.dataset, whole, n_samples)[torch.as_tensor(training.indices, dtype=torch.int64)]
    if len(training) != n_samples:
        advice = "Make the callback of the labels that `fit` gets; let `train_split` be None or give a Subset."
        raise ValueError(checks.problem("X", f"must have {n_samples} rows, one a label", len(training), advice))
    return torch.arange(n_samples)


class _WithRows(Dataset[tuple[Any, int]]):
    """Samples and their rows."""

    def __init__(self, dataset: Any, rows: Tensor) -> None:
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.dataset[index], int(self.rows[index])


class _RowCollate:
    """Collates samples as before, and rows beside them."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, samples: list[tuple[Any, int]]) -> tuple[Any, Tensor]:
        return self.collate([sample for sample, _ in samples]), torch.tensor([row for _, row in samples])


class _Told:
    """Batches as skorch knows them; the criterion is told their rows."""

    def __init__(self, loader: DataLoader[Any], criterion: LossBufferLoss) -> None:
        self.loader, self.criterion = loader, criterion

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        try:
            for batch, rows in self.loader:
                self.criterion.rows = rows
                yield batch
        finally:
            self.criterion.rows = None
