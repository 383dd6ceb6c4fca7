"""What one plain training shows: AUM, small loss with DivideMix's mixture, wrong-event count, forgetting."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from benchmarks.peers import Found
from lossbuf.detection.thresholds import Otsu
from lossbuf.recording.sample_statistics import SampleStatistics


def find(statistics: SampleStatistics) -> dict[str, Found]:
    """Found by method, of the statistics of one training in which nothing was dropped."""
    loss = statistics.last_label_loss.cpu().numpy().astype(np.float64)
    found = {"gmm": _mixture(loss), "mean-gmm": _mixture(statistics.label_loss.cpu().numpy().astype(np.float64))}
    for name in ("aum", "label_loss", "score", "score2", "score3", "wrong_count", "forgetting_events"):
        suspicion = statistics.suspicion(name).cpu().numpy()
        cut = Otsu()(suspicion)
        found[name] = Found(suspicion, cut.suspect_mask, cut.noise_rate, 1.0)
    return found


def _mixture(loss: NDArray[np.float64]) -> Found:
    """Two Gaussians on the loss of the last epoch (or the mean), as in DivideMix; flagged above one half."""
    scaled = ((loss - loss.min()) / max(float(loss.max() - loss.min()), 1e-12))[:, None]
    model = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scaled)
    upper = int(np.ravel(np.asarray(model.means_)).argmax())
    probability = model.predict_proba(scaled)[:, upper]
    # Many probabilities are 0 or 1 to the last bit; among equals the larger loss is more suspect.
    return Found(probability + 1e-3 * scaled[:, 0], probability > 0.5, float(probability.mean()), 1.0)
