"""scikit-learn's own checks of the coreset estimators."""

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from condensation.coresets import (
    Craig,
    Crust,
    Forgetting,
    FreshNetwork,
    GradientNorm,
    Herding,
    KCenter,
    KMeans,
    Random,
    Sharded,
)
from lossbuf.training import TrainSettings

_ROWS = "transform keeps rows of the X given to fit: "
EXPECTED_FAILURES = {
    "check_methods_sample_order_invariance": _ROWS + "the check wants one row out for every row in",
    "check_methods_subset_invariance": _ROWS + "the check transforms parts of them, and wants the parts of the result",
    "check_fit_idempotent": _ROWS + "the check transforms other rows, and to pass them on would pass for cleaning them",
}
NETWORK = FreshNetwork(settings=TrainSettings(epochs=1, batch_size=64, device="cpu"))
ESTIMATORS = [
    Random(size=0.5, random_state=0),
    Herding(size=0.5),
    KCenter(size=0.5),
    KMeans(size=0.5, random_state=0),
    Forgetting(size=0.5, network=NETWORK, random_state=0),
    GradientNorm(size=0.5, network=NETWORK, networks=1, random_state=0),
    Craig(size=0.5, random_state=0),
    Crust(size=0.5, random_state=0),
    Sharded(KCenter(size=0.5), n_shards=3, random_state=0),
]


@pytest.mark.usefixtures("no_shape_checks")  # the checks hand over settings of all types
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_estimator_checks(estimator, check):
    check(estimator)  # xfail is strict: one that passes must leave the list


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_the_list_names_checks_that_are_run(estimator):
    names = {getattr(check, "func", check).__name__ for _, check in estimator_checks_generator(estimator)}
    assert set(EXPECTED_FAILURES) <= names
    assert len(names) > 35
