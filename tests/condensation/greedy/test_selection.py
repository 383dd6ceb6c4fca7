"""Greedy selection against loops over fractions; ties, copies, offsets, blocks and bad input."""

import numpy as np
import pytest
import torch

from condensation.greedy import centrality, facility_location, herding, k_center
from condensation.greedy.distances import Distances
from tests.reference import greedy as reference

EXACT = ["lazy", "batched", "exact"]
KINDS = ["floats", "copies", "line", "corners", "offset", "constant", "one row"]


def _rows(kind, generator):
    floats = torch.randn(24, 3, generator=generator)
    return {
        "floats": floats,
        "copies": floats[torch.randint(8, (24,), generator=generator)],
        "line": torch.randint(9, (24, 1), generator=generator).float(),
        "corners": torch.eye(6).repeat(3, 1)[torch.randperm(18, generator=generator)],
        "offset": torch.randint(4, (24, 2), generator=generator).float() + 1000,
        "constant": torch.full((7, 2), 0.3),
        "one row": floats[:1],
    }[kind]


@pytest.fixture(params=KINDS)
def x(request, generator):
    return _rows(request.param, generator)


def _sizes(x):
    return sorted({1, (len(x) + 1) // 2, len(x)})


@pytest.mark.parametrize("memory", [1, 2**30])
@pytest.mark.parametrize("strategy", EXACT)
def test_facility_location(x, strategy, memory, device):
    rows = x.double().tolist()
    similar = reference.similarities(rows)
    scale = max(1e-30, float(max(map(max, similar)))) * len(rows)
    for k in _sizes(x):
        chosen, gains = reference.facility_location(rows, k)
        found = facility_location(x.to(device), k, strategy=strategy, memory=memory)
        assert found.indices.tolist() == chosen
        assert found.gains.tolist() == pytest.approx(gains, abs=1e-6 * scale)
        assert found.objective == pytest.approx(float(reference.objective(similar, chosen)), abs=1e-6 * scale)
        assert found.objective == pytest.approx(float(found.gains.sum()), rel=1e-12)
        assert found.nearest.tolist() == reference.nearest(rows, chosen)
        assert found.sizes.tolist() == [reference.nearest(rows, chosen).count(c) for c in range(k)]


def test_cosine(generator, device):
    x = torch.randn(20, 4, generator=generator)
    x[7] = 4 * x[2]
    chosen, gains = reference.facility_location(x.double().tolist(), 20, reference.cosine_distance)
    found = facility_location(x.to(device), 20, metric="cosine")
    assert found.indices.tolist() == chosen
    assert found.gains.tolist() == pytest.approx(gains, abs=2e-5)
    assert found.sizes[found.indices.tolist().index(7)] == 0


def _weights(x, generator):
    """From 0 to 4, not all 0."""
    weights = torch.randint(5, (len(x),), generator=generator)
    weights[-1] += 1
    return weights


@pytest.mark.parametrize("memory", [1, 2**30])
@pytest.mark.parametrize("strategy", EXACT)
def test_weighted_facility_location(x, strategy, memory, generator, device):
    weights = _weights(x, generator)
    rows, many = x.double().tolist(), weights.tolist()
    similar = reference.similarities(rows)
    scale = max(1e-30, float(max(map(max, similar)))) * sum(many)
    for k in _sizes(x):
        chosen, gains = reference.facility_location(rows, k, weights=many)
        found = facility_location(x.to(device), k, strategy=strategy, memory=memory, weights=weights.to(device))
        assert found.indices.tolist() == chosen
        assert found.gains.tolist() == pytest.approx(gains, abs=1e-6 * scale)
        assert found.objective == pytest.approx(float(reference.objective(similar, chosen, many)), abs=1e-6 * scale)
        nearest = reference.nearest(rows, chosen)
        assert found.nearest.tolist() == nearest
        sizes = [sum(one for one, c in zip(many, nearest, strict=True) if c == place) for place in range(k)]
        assert found.sizes.tolist() == sizes
        assert sum(sizes) == sum(many)


@pytest.mark.parametrize("strategy", EXACT)
def test_weights_are_repeats_in_blocks_too(strategy, generator, device):
    x = torch.randn(700, 5, generator=generator)
    weights = _weights(x, generator) + 1  # a row of weight 0 may be chosen, one that is not there may not
    row_of = torch.arange(700).repeat_interleave(weights)
    repeated = facility_location(x[row_of].to(device), 30, memory=1)
    found = facility_location(x.to(device), 30, strategy=strategy, memory=1, weights=weights.to(device))
    assert found.indices.tolist() == row_of[repeated.indices.cpu()].tolist()
    assert found.sizes.tolist() == repeated.sizes.tolist()
    assert found.objective == pytest.approx(repeated.objective, rel=1e-5)


def test_weighted_centrality_and_herding(x, generator, device):
    weights = _weights(x, generator)
    rows, many = x.double().tolist(), weights.tolist()
    for k in _sizes(x):
        expected = reference.centrality(rows, k, many)
        assert centrality(x.to(device), k, weights=weights.to(device)).indices.tolist() == expected
        expected = reference.herding(rows, k, many)
        for given in (weights.to(device), weights.double() / 4):
            assert herding(x.to(device), k, weights=given).tolist() == expected


@pytest.mark.parametrize("choose", [facility_location, centrality, herding])
@pytest.mark.parametrize(
    "weights",
    [[1], [0, 0, 0], [1, -1, 1], [[1, 1, 1]], [2**30, 1, 0], [0.5, 0.5, 1.0], [float("nan")] * 3],
)
def test_bad_weights(choose, weights, no_shape_checks):
    given = torch.tensor(weights)
    if choose is herding and (given.is_floating_point() or 2**30 in weights) and not given.isnan().any():
        assert len(herding(torch.eye(3), 2, weights=given)) == 2
        return
    with pytest.raises(ValueError, match="`weights` must"):
        choose(torch.eye(3), 2, weights=given)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_many_blocks_choose_the_same(shift, generator, device):
    """More rows than a block has, and columns than a strip has; half of the rows are copies."""
    x = torch.randn(700, 5, generator=generator)[torch.randint(700, (1300,), generator=generator)] + shift
    distances = torch.cdist(x.double(), x.double()).numpy()
    best, expected = np.full(1300, distances.max()), []
    for _ in range(40):
        gains = np.maximum(best[:, None] - distances, 0).sum(0)
        expected.append(int(np.argmax(gains > gains.max() * (1 - 1e-12))))
        best = np.minimum(best, distances[expected[-1]])
    found = [
        facility_location(x.to(device), 40, strategy=strategy, memory=memory)
        for strategy in EXACT
        for memory in (1, 2**30)
    ]
    for one in found:
        assert one.indices.tolist() == expected
        assert all(torch.equal(a, b) for a, b in zip(one[:2], found[0][:2], strict=True))
        assert torch.equal(one.nearest, found[0].nearest)
        assert one.objective == found[0].objective == pytest.approx(float((distances.max() - best).sum()), rel=1e-6)


def test_copies_are_as_one_row(generator, device):
    """Products of rows far from the origin cancel; distances of equal rows are 0 all the same."""
    base = torch.randn(100, 600, generator=generator) + 1000
    distances = Distances(base.repeat(8, 1).to(device), memory=1)
    for row in (0, 99, 555):
        zeros = (distances.row(row) == 0).nonzero().flatten()
        assert zeros.tolist() == list(range(row % 100, 800, 100))


def test_memory_bounds_what_is_kept(generator):
    x = torch.randn(1100, 2, generator=generator)
    assert Distances(x, memory=4 * 1100**2 * 2).kept
    blocks = Distances(x, memory=4 * 1100**2)
    assert not blocks.kept
    assert max(block.distances.numel() for block in blocks.blocks()) <= 512 * 512


@pytest.mark.parametrize("memory", [1, 2**30])
def test_stochastic(memory, device):
    x = torch.randn(600, 8, generator=torch.Generator().manual_seed(5)).to(device)
    exact = facility_location(x, 60)
    runs = [
        facility_location(x, 60, strategy="stochastic", memory=memory, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    for run in runs:
        assert 0.99 * exact.objective <= run.objective <= exact.objective
        assert len(set(run.indices.tolist())) == 60
    assert torch.equal(runs[0].indices, runs[1].indices)
    assert not torch.equal(runs[0].indices, runs[2].indices)
    assert torch.equal(facility_location(x, 60, strategy="stochastic").indices, runs[0].indices)


@pytest.mark.parametrize("memory", [1, 2**30])
def test_stochastic_with_samples_of_all_rows_is_exact(x, memory, device):
    for k in _sizes(x):
        found = facility_location(x.to(device), k, strategy="stochastic", epsilon=1e-300, memory=memory)
        assert torch.equal(found.indices, facility_location(x.to(device), k).indices)


def test_stochastic_draws_samples_of_the_stated_size(generator):
    # One far group of 5 in 1,000: a sample of 5 rows a choice seldom sees it, one of 460 nearly always does.
    x = torch.cat([torch.randn(995, 2, generator=generator), torch.randn(5, 2, generator=generator) + 1e4])
    hits = [
        sum(
            int(facility_location(x, 10, strategy="stochastic", epsilon=epsilon, generator=generator).indices.max())
            >= 995
            for _ in range(20)
        )
        for epsilon in (0.95, 0.01)
    ]
    assert hits[0] < 12
    assert hits[1] == 20


def test_centrality(x, device):
    rows = x.double().tolist()
    similar = reference.similarities(rows)
    for memory in (1, 2**30):
        for k in _sizes(x):
            found = centrality(x.to(device), k, memory=memory)
            assert found.indices.tolist() == reference.centrality(rows, k)
            expected = float(reference.objective(similar, found.indices.tolist()))
            assert found.objective == pytest.approx(expected, rel=1e-5)
            assert found.nearest.tolist() == reference.nearest(rows, found.indices.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k_center(x, dtype, device):
    rows = x.double().tolist()
    middle = reference.herding(rows, 1)
    for given in ([], [len(x) - 1], [len(x) // 2, 0][: len(x)]):
        for k in _sizes(x)[1:] or [1]:
            chosen, radius = reference.k_center(rows, k, given or middle)
            start = {"chosen": torch.tensor(given)} if len(given) > 1 else {"first": given[0] if given else None}
            found = k_center(x.to(device, dtype), k, **start)
            assert found.indices.tolist() == chosen
            assert found.objective == pytest.approx(radius, rel=1e-6)
            gaps = [reference.k_center(rows, c, chosen[:c])[1] for c in range(1, k)]
            assert found.gains.tolist()[len(given) or 1 :] == pytest.approx(gaps[(len(given) or 1) - 1 :], rel=1e-6)
            assert found.gains[0] == torch.inf
            assert found.nearest.tolist() == reference.nearest(rows, chosen)
            assert found.sizes.sum() == len(x)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_k_center_is_exact_where_float32_products_are_not(shift, generator, device):
    """Close groups: within one, distances are far below the rounding of products."""
    groups = torch.randn(5, 300, generator=generator) * 100
    x = (groups.repeat(12, 1) + torch.randn(60, 300, generator=generator) * 1e-3 + shift).float()
    x = torch.cat([x, x[:30]])
    chosen, radius = reference.k_center(x.double().tolist(), 40, [3])
    found = k_center(x.to(device), 40, first=3)
    assert found.indices.tolist() == chosen
    assert found.objective == pytest.approx(radius, rel=1e-3)
    everything = k_center(x.to(device), 90, first=3)
    assert everything.indices.tolist()[60:] == sorted(everything.indices.tolist()[60:])  # copies, lowest first
    assert everything.objective == 0
    assert (everything.gains[:60] > 0).all()
    assert (everything.gains[60:] == 0).all()


def test_k_center_goes_on_where_it_stopped(generator, device):
    x = torch.randn(300, 20, generator=generator).to(device)
    whole = k_center(x, 30)
    resumed = k_center(x, 30, chosen=whole.indices[:11])
    for one, other in zip(whole, resumed, strict=True):
        assert one == other if isinstance(one, float) else torch.equal(one, other)


def test_herding(x, device):
    for k in _sizes(x):
        assert herding(x.to(device), k).tolist() == reference.herding(x.double().tolist(), k)


def test_herding_far_from_the_origin(generator, device):
    x = (torch.randn(30, 100, generator=generator) + 1000).float()
    assert herding(x.to(device), 12).tolist() == reference.herding(x.double().tolist(), 12)


def test_herding_is_exact_where_float32_products_are_not(generator, device):
    groups = torch.randn(3, 40, generator=generator) * 100
    x = (groups.repeat(8, 1) + torch.randn(24, 40, generator=generator) * 1e-3).float()
    assert herding(x.to(device), 9).tolist() == reference.herding(x.double().tolist(), 9)


CHOICES = {
    "lazy": lambda x, k: facility_location(x, k).indices,
    "cosine": lambda x, k: facility_location(x, k, metric="cosine").indices,
    "centrality": lambda x, k: centrality(x, k).indices,
    "k_center": lambda x, k: k_center(x, k).indices,
    "herding": herding,
}
each_choice = pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)


@each_choice
def test_order_of_rows_does_not_matter(choose, generator, device):
    x = torch.randn(1100, 6, generator=generator).to(device)
    order = torch.randperm(1100, generator=generator).to(device)
    assert torch.equal(order[choose(x[order], 40)], choose(x, 40))


@each_choice
def test_units_do_not_matter(choose, generator):
    x = torch.randn(50, 6, generator=generator)
    for factor in (2.0**-100, 2.0**100):
        assert torch.equal(choose(x * factor, 20), choose(x, 20))


@each_choice
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_and_strides(choose, dtype, generator):
    x = torch.randint(1, 12, (40, 8), generator=generator).to(dtype)
    kept = x.clone()
    expected = choose(x.float(), 12)
    assert torch.equal(choose(x, 12), expected)
    assert torch.equal(choose(x.t().contiguous().t(), 12), expected)
    assert torch.equal(choose(x.repeat(1, 2)[:, ::2].float(), 12), choose(x.repeat(1, 2).float()[:, ::2].clone(), 12))
    assert torch.equal(x, kept)


@each_choice
@pytest.mark.parametrize(
    ("x", "k", "message"),
    [
        (torch.ones(3, 2), 0, "`k` must be an integer of at least 1"),
        (torch.ones(3, 2), 4, "`k` must be at most 3"),
        (torch.ones(3, 2), True, "`k` must be an integer"),
        (torch.ones(3), 1, "`x` must have shape"),
        (torch.ones(3, 2, 2), 1, "`x` must have shape"),
        (torch.ones(3, 0), 1, "`x` must have shape"),
        (torch.ones(0, 3), 1, "`x` must have shape"),
        (torch.tensor(1.0), 1, "`x` must have shape"),
        (torch.tensor([[1.0], [torch.nan]]), 1, "`x` must (be finite|have rows of a length)"),
        (torch.tensor([[1.0, 2.0], [torch.inf, 1.0]]), 1, "`x` must be finite"),
        (torch.ones(3, 2, dtype=torch.complex64), 1, "`x` must be real"),
    ],
)
def test_bad_input(choose, x, k, message, no_shape_checks):
    with pytest.raises(ValueError, match=message):
        choose(x, k)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "naive"}, "`strategy` must be one of 'lazy', 'batched'"),
        ({"metric": "cityblock"}, "`metric` must be one of"),
        ({"memory": 0}, "`memory` must be an integer"),
        ({"epsilon": 0}, r"`epsilon` must lie in \(0, 1\)"),
        ({"epsilon": 1.0}, r"`epsilon` must lie in \(0, 1\)"),
    ],
)
def test_bad_settings(settings, message, no_shape_checks):
    with pytest.raises(ValueError, match=message):
        facility_location(torch.ones(3, 2), 1, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": -1}, "`first` must be an integer of at least 0"),
        ({"first": 3}, "`first` must be at most"),
        ({"chosen": torch.tensor([0, 0])}, "`chosen` must be at most k = 2 different rows"),
        ({"chosen": torch.tensor([0, 1, 2])}, "`chosen` must be at most k = 2 different rows"),
        ({"chosen": torch.tensor([-1])}, "`chosen` must be at most k = 2 different rows"),
        ({"first": 0, "chosen": torch.tensor([1])}, "`first` must be None where `chosen` is given"),
    ],
)
def test_bad_start(settings, message, no_shape_checks):
    with pytest.raises(ValueError, match=message):
        k_center(torch.eye(3), 2, **settings)


def test_zero_rows_have_no_cosine():
    with pytest.raises(ValueError, match="none at row 1"):
        facility_location(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), 1, metric="cosine")
