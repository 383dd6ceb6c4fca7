"""Transition matrix, noise rate and posterior against slow versions, and on data whose noise is known."""

import numpy as np
import pytest
import torch

from lossbuf import noise
from lossbuf.detection import transition
from tests.reference import transition as reference

NUM_CLASSES = [2, 3, 10]


def _outputs(size, num_classes, generator, sharpness=2.0):
    return (sharpness * torch.randn(size, num_classes, generator=generator, dtype=torch.float64)).softmax(1)


def _matrix(num_classes, generator):
    return (torch.eye(num_classes) * 3 + torch.randn(num_classes, num_classes, generator=generator)).double().softmax(1)


def _close(found, expected):
    torch.testing.assert_close(found.cpu().double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("num_classes", NUM_CLASSES)
@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("steps", [0, 1, 20])
def test_deconvolved(num_classes, size, steps, device, generator):
    outputs, matrix = _outputs(size, num_classes, generator), _matrix(num_classes, generator)
    found = transition.deconvolved(outputs.to(device), matrix.to(device), steps)
    _close(found, reference.deconvolved(outputs.tolist(), matrix.tolist(), steps))


def test_deconvolution_undoes_the_noise(device):
    # A network that knows the class says the row of its labels' noise.
    matrix = torch.from_numpy(noise.symmetric(4, 0.45)).to(device)
    found = transition.deconvolved(matrix, matrix, 500)
    torch.testing.assert_close(found, torch.eye(4, dtype=torch.float64, device=device), atol=0.01, rtol=0)


@pytest.mark.parametrize("num_classes", [1, *NUM_CLASSES])
def test_log_odds_and_likely_labels(num_classes, device, generator):
    probs, matrix = _outputs(30, num_classes, generator), _matrix(num_classes, generator)
    labels = torch.randint(num_classes, (30,), generator=generator)
    on_device = (probs.to(device), labels.to(device), matrix.to(device))
    as_lists = (probs.tolist(), labels.tolist(), matrix.tolist())
    _close(transition.wrong_log_odds(*on_device), reference.wrong_log_odds(*as_lists))
    assert transition.likely_labels(*on_device).tolist() == reference.likely_labels(*as_lists)


@pytest.mark.parametrize("num_classes", NUM_CLASSES)
def test_shrunk(num_classes, device, generator):
    matrix, counts = _matrix(num_classes, generator), torch.arange(1, num_classes + 1).double() * 20
    found = transition.shrunk(matrix.to(device), counts.to(device))
    _close(found, reference.shrunk(matrix.tolist(), counts.tolist()))
    _close(found.sum(1), [1.0] * num_classes)


def test_shrinkage_keeps_structure_and_evens_out_chance():
    draws = np.random.default_rng(0)
    counts = torch.full((10,), 75.0, dtype=torch.float64)
    for true, pulls in ((noise.symmetric(10, 0.4), True), (noise.pair_flip(10, 0.4), False)):
        seen = torch.from_numpy(np.stack([draws.multinomial(75, row) / 75 for row in true]))
        found = transition.shrunk(seen, counts)
        before, after = (np.abs(value.numpy() - true).mean() for value in (seen, found))
        assert after < (0.6 if pulls else 1.1) * before


@pytest.mark.parametrize("num_classes", NUM_CLASSES)
@pytest.mark.parametrize("size", [12, 60])
@pytest.mark.parametrize("settings", [{}, {"confidence": 0.4, "least": 3, "most": 0.5, "rounds": 3}, {"rounds": 1}])
def test_from_anchors(num_classes, size, settings, device, generator):
    outputs = _outputs(size, num_classes, generator)
    labels = torch.randint(num_classes, (size,), generator=generator)
    usable = torch.rand(size, generator=generator) > 0.2
    found = transition.from_anchors(outputs.to(device), labels.to(device), usable.to(device), **settings)
    defaults = {"confidence": 0.8, "least": 75, "most": 0.3, "rounds": 4, "smoothing": transition.SMOOTHING}
    matrix, counts = reference.from_anchors(
        outputs.tolist(), labels.tolist(), usable.tolist(), **{**defaults, **settings}
    )
    _close(found.matrix, matrix)
    assert found.counts.tolist() == counts


def test_class_without_labels_is_the_identity(generator):
    labels = torch.tensor([0, 0, 2, 2, 2, 0])
    matrix = transition.from_anchors(_outputs(6, 4, generator), labels).matrix
    assert matrix[1].argmax() == 1
    assert matrix[1, 1] > 0.99
    assert matrix[3, 3] > 0.99


@pytest.mark.parametrize("num_classes", NUM_CLASSES)
@pytest.mark.parametrize("steps", [1, 9])
def test_from_joint(num_classes, steps, device, generator):
    probs, start = _outputs(40, num_classes, generator), _matrix(num_classes, generator)
    labels = torch.randint(num_classes, (40,), generator=generator)
    found = transition.from_joint(probs.to(device), labels.to(device), start.to(device), steps)
    _close(found, reference.from_joint(probs.tolist(), labels.tolist(), start.tolist(), steps))


@pytest.mark.parametrize("num_classes", NUM_CLASSES)
@pytest.mark.parametrize("clarity", [0.5, 3.0])
def test_sharpness(num_classes, clarity, device, generator):
    probs, start = _outputs(60, num_classes, generator), _matrix(num_classes, generator)
    probs = transition.sharpened(probs, clarity)
    labels = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    found = transition.sharpness(probs.to(device), labels.to(device), start.to(device))
    powers = list(transition.TEMPERATURES)
    assert found == pytest.approx(
        reference.sharpness(probs.tolist(), labels.tolist(), start.tolist(), powers, transition.SEARCH_STEPS)
    )


def test_certain_outputs_that_are_wrong_are_softened(generator):
    """Probabilities raised to the third power give themselves away by the labels."""
    probs = (2 * torch.randn(4000, 5, generator=generator, dtype=torch.float64)).softmax(1)
    labels = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    start = torch.eye(5, dtype=torch.float64) * 0.9 + 0.02
    assert transition.sharpness(transition.sharpened(probs, 2.0), labels, start) == pytest.approx(0.5**0.5)


def test_few_rows_per_class_do_not_explain_their_own_noise(generator):
    """A matrix of 900 entries counted from 600 rows is as even as the noise that made them."""
    true = torch.randint(30, (600,), generator=generator)
    labels = torch.from_numpy(noise.corrupt(true.numpy(), noise.symmetric(30, 0.4), 0).labels)
    probs = torch.nn.functional.one_hot(true, 30).double() * 0.97 + 0.001
    start = torch.eye(30, dtype=torch.float64) * 0.5 + 0.5 / 30
    assert transition.is_even(transition.from_joint(probs, labels, start))


@pytest.mark.parametrize("num_classes", NUM_CLASSES)
def test_true_shares_and_rate(num_classes, device, generator):
    matrix = _matrix(num_classes, generator)
    labels = torch.randint(num_classes, (100,), generator=generator)
    expected = reference.true_shares(matrix.tolist(), labels.tolist())
    found = transition.true_shares(matrix.to(device), labels.to(device))
    torch.testing.assert_close(found.cpu(), torch.tensor(expected, dtype=torch.float64), atol=1e-3, rtol=0)
    rate = 1 - sum(share * matrix[i, i].item() for i, share in enumerate(found.tolist()))
    assert transition.noise_rate(matrix.to(device), labels.to(device)).item() == pytest.approx(rate)


@pytest.mark.parametrize(
    "matrix",
    [noise.symmetric(5, 0.4), noise.pair_flip(5, 0.4), noise.class_dependent(5, 0.4, {0: 1, 3: 4})],
    ids=["symmetric", "pair-flip", "class-dependent"],
)
def test_noise_is_found_and_wrong_labels_are(matrix, device, generator):
    """A network that learnt the noisy labels, with errors of its own: it says the noise's row, blurred."""
    true = torch.arange(3000) % 5
    noisy = noise.corrupt(true.numpy(), matrix, 0)
    labels = torch.from_numpy(noisy.labels).to(device)
    clear = torch.nn.functional.one_hot(true, 5) * 4.0 + torch.randn(3000, 5, generator=generator)
    outputs = (clear.softmax(1).double() @ torch.from_numpy(matrix)).float().to(device)
    found = transition.from_anchors(outputs, labels).matrix
    assert (found.cpu() - torch.from_numpy(matrix)).abs().mean() < 0.03
    assert transition.noise_rate(found, labels).item() == pytest.approx(noisy.noise_mask.mean(), abs=0.05)
    probs = transition.deconvolved(outputs, found)
    suspects = (transition.wrong_log_odds(probs, labels, found) > 0).cpu().numpy()
    assert (suspects == noisy.noise_mask).mean() > 0.96
    likely = transition.likely_labels(probs, labels, found).cpu()
    assert (likely == true)[torch.from_numpy(noisy.noise_mask)].float().mean() > 0.96


def test_hidden_classes_need_evidence():
    matrix = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)
    supported, unsupported = torch.tensor([False, False]), torch.tensor([False, True])
    many, few = torch.tensor([100.0, 50.0]).double(), torch.tensor([4.0, 4.0]).double()
    assert transition.Anchored(matrix, many, supported).hidden().tolist() == [True, False]
    assert transition.Anchored(matrix, few, supported).hidden().tolist() == [False, False]
    assert transition.Anchored(matrix, few, unsupported).hidden().tolist() == [False, True]


@pytest.mark.parametrize("sizes", [(400, 400, 60), (400, 400, 150), (300, 100, 60)])
@pytest.mark.parametrize("spread", [1e-3, 0.02, 0.05])
def test_a_class_labelled_wrong_throughout_does_not_take_the_rows_of_another(sizes, spread):
    """The rows that carry the last label look like those of the first class, and no classifier can tell them apart."""
    labels = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    alike = labels != 1
    generator = torch.Generator().manual_seed(0)
    share = sizes[2] / (sizes[0] + sizes[2])
    third = (share + spread * torch.randn(len(labels), generator=generator)).clamp(0.002, 0.9)
    outputs = torch.full((len(labels), 3), 0.002)
    outputs[~alike, 1] = 0.996
    outputs[alike, 2] = third[alike]
    outputs[alike, 0] = 0.998 - third[alike]
    anchored = transition.from_anchors(outputs, labels)
    assert anchored.unsupported.tolist() == [False, False, True]
    assert anchored.hidden().tolist() == [False, False, True]
    suspicion = transition.wrong_log_odds(transition.deconvolved(outputs, anchored.matrix), labels, anchored.matrix)
    flagged = [float((suspicion[labels == label] > 0).double().mean()) for label in range(3)]
    assert max(flagged[:2]) < 0.05
    assert flagged[2] > 0.65
    assert abs(float(transition.noise_rate(anchored.matrix, labels)) - sizes[2] / sum(sizes)) < 0.08


def test_a_class_with_rows_of_its_own_is_supported_though_most_of_its_labels_are_wrong():
    true = torch.arange(3).repeat_interleave(400)
    generator = torch.Generator().manual_seed(0)
    flipped = (true == 2) & (torch.rand(1200, generator=generator) < 0.6)
    labels = torch.where(flipped, 0, true)
    matrix = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.0, 0.4]])
    outputs = 0.98 * matrix[true] + 0.02 / 3
    anchored = transition.from_anchors(outputs, labels)
    assert not bool(anchored.unsupported.any())
    assert abs(float(anchored.matrix[2, 0]) - 0.6) < 0.1


@pytest.mark.parametrize(("num_classes", "rows"), [(100, 5), (10, 20), (2, 15)])
def test_clean_labels_of_few_rows_are_not_held_to_be_wrong(num_classes, rows, device):
    labels = torch.arange(num_classes).repeat_interleave(rows).to(device)
    outputs = torch.nn.functional.one_hot(labels, num_classes).float()
    found = transition.from_anchors(outputs, labels)
    assert transition.noise_rate(found.matrix, labels) < 0.03


@pytest.mark.parametrize("rate", [0.05, 0.4, 0.8])
@pytest.mark.parametrize("num_classes", [3, 10])
def test_symmetric_noise_is_even_and_no_other(rate, num_classes, device):
    assert transition.is_even(torch.from_numpy(noise.symmetric(num_classes, rate)).to(device))
    for matrix in (noise.class_dependent(num_classes, rate, {0: 1}), noise.pair_flip(num_classes, rate)):
        assert not transition.is_even(torch.from_numpy(matrix).to(device))


def test_no_noise_is_not_even():
    assert not transition.is_even(torch.eye(4, dtype=torch.float64))
    assert not transition.is_even(torch.ones(1, 1, dtype=torch.float64))


def test_two_classes_are_never_even():
    """A rate a row is all there is, and rates of .1 and .4 are alike by any bound that rates of .2 and .2 pass."""
    assert not transition.is_even(torch.from_numpy(noise.symmetric(2, 0.2)))
