"""scikit-learn's own checks of an estimator."""

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from lossbuf import LossBufferSelector

_ROWS = "transform keeps rows of the X given to fit: "
EXPECTED_FAILURES = {
    "check_methods_sample_order_invariance": _ROWS + "the check wants one row out for every row in",
    "check_methods_subset_invariance": _ROWS + "the check transforms parts of them, and wants the parts of the result",
    "check_fit_idempotent": _ROWS + "the check transforms other rows, and to pass them on would pass for cleaning them",
}


def quick() -> LossBufferSelector:
    return LossBufferSelector(epochs=1, batch_size=16, device="cpu", random_state=0)


@pytest.mark.filterwarnings("ignore::lossbuf.LossBufferWarning")  # one epoch on a few rows is to be doubted
@pytest.mark.usefixtures("no_shape_checks")  # the checks hand over settings of all types
@parametrize_with_checks([quick()], expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_estimator_checks(estimator, check):
    check(estimator)  # xfail is strict: one that passes must leave the list


def test_the_list_names_checks_that_are_run():
    names = {getattr(check, "func", check).__name__ for _, check in estimator_checks_generator(quick())}
    assert set(EXPECTED_FAILURES) <= names
    assert len(names) > 35
