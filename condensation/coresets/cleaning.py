"""What a finished cleaning hands on: its network and statistics, so that no second network need be trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from condensation.coresets.features import network_outputs
from lossbuf.data import standardised
from lossbuf.recording.sample_statistics import SampleStatistics
from lossbuf.selectors import LossBufferSelector


@dataclass(frozen=True)
class CleaningTraining:
    """The training that cleaned some data.

    Args:
        cleaner: Fitted on ``samples``.
        samples: All rows, also those that were dropped, shape ``(n_samples, ...)``.
        kept: Rows kept, ascending.
    """

    cleaner: LossBufferSelector
    samples: NDArray[Any]
    kept: NDArray[np.intp]

    @property
    def network(self) -> nn.Module:
        """The trained network."""
        return self.cleaner.module_

    def statistics(self) -> SampleStatistics:
        """Statistics of all rows."""
        return self.cleaner.callback_.statistics()

    def features(self) -> Tensor:
        """What the last linear layer of the network is given, for the rows kept, shape ``(n_kept, n_features)``."""
        (x,) = standardised(self.samples)
        seen = network_outputs(self.network, x).features
        return seen[torch.from_numpy(self.kept).to(seen.device)]
