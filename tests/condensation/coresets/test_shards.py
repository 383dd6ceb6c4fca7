"""Coresets of rows that are not in memory together."""

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from condensation.coresets import Craig, Crust, Herding, KCenter, LastLayerGradients, NetworkFeatures, Pixels, Sharded
from lossbuf import LossBufferWarning

SPANS = [slice(0, 25), slice(25, 26), slice(26, 60)]


def table():
    draws = np.random.default_rng(0)
    y = draws.permutation(np.repeat([0, 1, 2], [30, 20, 10]))
    return (np.eye(4)[y] * 3 + draws.normal(size=(60, 4))).astype(np.float32), y


def pairs():
    X, y = table()
    return [(X[span], y[span]) for span in SPANS]


def in_files(folder):
    """The same rows in four ways, none of which is in memory."""
    X, y = table()
    np.savez(folder / "0.npz", X=X[SPANS[0]], y=y[SPANS[0]])
    np.savez_compressed(folder / "1.npz", x=X[SPANS[1]], y=y[SPANS[1]], more=np.zeros(3))
    np.save(folder / "x.npy", X[SPANS[2]])
    np.save(folder / "y.npy", y[SPANS[2]])
    return [str(folder / "0.npz"), folder / "1.npz", (folder / "x.npy", str(folder / "y.npy"))]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_all_kinds_of_shards_give_the_same(n_jobs, tmp_path):
    X, y = table()
    expected = Sharded(KCenter(ipc=3))
    samples, labels = expected.fit_resample_shards(pairs())
    rows = expected.sample_indices_
    assert np.array_equal(samples, X[rows])
    assert np.array_equal(labels, y[rows])
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for shard, row, index in zip(*expected.shard_rows_.T, rows, strict=True):
        assert np.array_equal(pairs()[shard][0][row], X[index])
    assert expected.get_support().shape == (60,)
    assert np.flatnonzero(expected.get_support()).tolist() == sorted(rows)
    assert (expected.n_features_in_, expected.classes_.tolist()) == (4, [0, 1, 2])
    kinds = {
        "files": in_files(tmp_path),
        "tensors": [(torch.from_numpy(X), torch.from_numpy(y)) for X, y in pairs()],
        "lists": [(X.tolist(), y.tolist()) for X, y in pairs()],
        "functions": [lambda pair=pair: pair for pair in pairs()],
        "a tuple of both": (pairs()[0], lambda: pairs()[1], in_files(tmp_path)[2]),
    }
    for name, shards in kinds.items():
        found = Sharded(KCenter(ipc=3), n_jobs=n_jobs)
        again, _ = found.fit_resample_shards(shards)
        assert found.sample_indices_.tolist() == rows.tolist(), name
        assert np.array_equal(again, samples), name


def test_texts_as_labels_images_and_a_warning():
    X, y = table()
    names = np.array(["cat", "dog", "an eel of another length"])[y]
    shards = [(X[span].reshape(-1, 1, 2, 2), names[span].astype(object if n else str)) for n, span in enumerate(SPANS)]
    sharded = Sharded(Herding(ipc=15))
    with pytest.warns(LossBufferWarning, match=r"all they have: an eel of another length has 10 of 15"):
        samples, labels = sharded.fit_resample_shards(shards)
    assert samples.shape == (40, 1, 2, 2)
    assert [(labels == name).sum() for name in ("an eel of another length", "cat", "dog")] == [10, 15, 15]
    assert np.array_equal(labels, names[sharded.sample_indices_])


def test_shards_of_one_class_each_and_an_empty_one():
    X, y = table()
    shards = [(X[y == label], y[y == label]) for label in (2, 0, 1)]
    shards.insert(1, (X[:0], y[:0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Sharded(KCenter(ipc=4))
        samples, labels = found.fit_resample_shards(shards)
    whole = KCenter(ipc=4).fit(X, y)
    for label in range(3):  # the second round starts from another mean
        one, other = samples[labels == label], X[whole.sample_indices_[label * 4 : label * 4 + 4]]
        assert sorted(one.tolist()) == sorted(other.tolist())
    assert found.shard_rows_[:, 0].tolist() == [2] * 4 + [3] * 4 + [0] * 4


def test_weights_count_all_rows_of_all_shards():
    crust = Sharded(Crust(ipc=3, features=lambda X, labels, seed: X))
    crust.fit_resample_shards(pairs())
    assert crust.sample_weight_.sum() == 60
    assert [crust.sample_weight_[label * 3 : label * 3 + 3].sum() for label in range(3)] == [30, 20, 10]


def test_trained_networks_that_see_rows_as_they_are():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    looks = NetworkFeatures(network, standardise=False)
    found = Sharded(Craig(ipc=3, features=looks))
    found.fit_resample_shards(pairs())
    X, y = table()
    with torch.no_grad():
        seen = network[:2](torch.from_numpy(X)).numpy()
    by_hand = Sharded(Craig(ipc=3, features=lambda X, labels, seed: X))
    by_hand.fit_resample_shards([(seen[span], y[span]) for span in SPANS])
    assert found.sample_indices_.tolist() == by_hand.sample_indices_.tolist()


@pytest.mark.parametrize(
    "selector",
    [
        Craig(ipc=1),
        KCenter(ipc=1, features=np.zeros((60, 2))),
        KCenter(ipc=1, features=torch.zeros(60, 2)),
        KCenter(ipc=1, features=NetworkFeatures()),
        KCenter(ipc=1, features=NetworkFeatures(nn.Linear(4, 3))),
        Craig(ipc=1, features=LastLayerGradients(nn.Linear(4, 3))),
    ],
)
def test_features_that_need_all_rows_are_refused(selector):
    with pytest.raises(ValueError, match=r"`features` must look at each row by itself .*standardise=False"):
        Sharded(selector).fit_resample_shards(pairs())


def hostile(folder):
    """Shards in place of the last one, and what is said of them."""
    X, y = pairs()[2]
    (folder / "torn.npz").write_bytes((folder / "0.npz").read_bytes()[:200])
    (folder / "torn.npy").write_bytes((folder / "x.npy").read_bytes()[:200])
    np.savez(folder / "code.npz", X=np.array([{}], dtype=object), y=y)
    np.save(folder / "code.npy", np.array([{}], dtype=object))
    np.savez(folder / "none.npz", X=X)
    bad = X.copy()
    bad[3, 1] = np.nan
    calls = iter(range(10))
    return [
        ((X, y[1:]), r"`shards\[2\]` must be samples \(n, ...\) and labels \(n,\), got shapes \(34, 4\) and \(33,\)"),
        ((X[:, 0], y), r"`shards\[2\]` must be samples"),
        ((X, np.stack([y, y])), r"`shards\[2\]` must be samples"),
        ((X[:, :3], y), r"`shards\[2\]` must have samples of shape \(4,\), as shards\[0\] has, got \(3,\)"),
        ((bad, y), r"shards\[2\] contains NaN"),
        ((X, y.astype(str)), "`shards` must have labels of one kind"),
        ((X, y + 0.5), "Unknown label type"),
        ((X, np.full(34, np.nan)), r"`shards\[2\]` must have finite labels, got nan at row 0"),
        ((X,), r"`shards\[2\]` must be a pair"),
        ((X, np.where(y, y, None)), "`shards` must have labels of one kind"),
        ((X, [[1], [1, 2], *y[2:].tolist()]), r"`shards\[2\]` must be samples"),
        ((sparse.csr_array(X), y), r"Sparse data was passed for shards\[2\], but dense data is required"),
        ((X, y.astype(np.uint64) + 2**63), "`shards` must have labels of one type, or none beyond 9223372036854775807"),
        (3, r"`shards\[2\]` must be a pair"),
        (lambda: X, r"`shards\[2\]` must be a pair"),
        (
            lambda: (X[next(calls) :], y[: len(y)]),
            r"`shards\[2\]` must give the same 34 rows whenever it is read, got 33",
        ),
        (folder / "torn.npz", r"`shards\[2\]` must be an .npz"),
        (folder / "code.npz", r"`shards\[2\]` must be an .npz"),
        (folder / "none.npz", r"`shards\[2\]` must be an .npz"),
        ((folder / "torn.npy", y), r"`shards\[2\]` must have arrays"),
        ((folder / "code.npy", y), r"`shards\[2\]` must have arrays"),
        ((folder, y), r"`shards\[2\]` must have arrays"),
    ]


@pytest.mark.usefixtures("no_shape_checks")
def test_bad_shards(tmp_path):
    good = in_files(tmp_path)
    sharded = Sharded(KCenter(ipc=2))
    for shard, message in hostile(tmp_path):
        with pytest.raises(ValueError, match=message):
            sharded.fit_resample_shards([*good[:2], shard])
        assert not hasattr(sharded, "sample_indices_")
    for shards in ([], (), table()[0], torch.zeros(3, 4), "x.npz", tmp_path / "x.npz", iter(pairs()), None, 3):
        with pytest.raises(ValueError, match=r"`shards` must be a list of at least one shard"):
            sharded.fit_resample_shards(shards)
    with pytest.raises(ValueError, match=r"`shards` must hold at least one row"):
        sharded.fit_resample_shards([(np.zeros((0, 4)), np.zeros(0))])
    for missing in (tmp_path / "no.npz", (tmp_path / "no.npy", np.zeros(1))):
        with pytest.raises(FileNotFoundError, match=r"no\.np"):
            sharded.fit_resample_shards([missing])
    with pytest.raises(ValueError, match="`ipc` must be at most 60"):
        Sharded(KCenter(ipc=61)).fit_resample_shards(pairs())


def test_labels_of_several_types_stay_apart():
    """Joined as NumPy joins them, signed and unsigned ones would be floats, and large ones the same class."""
    X, big = np.arange(16.0).reshape(8, 2), 2**53
    signed, unsigned = np.array([big, big + 1] * 2), np.array([big, big + 1] * 2, dtype=np.uint64)
    _, y = Sharded(KCenter(ipc=1), random_state=0).fit_resample_shards([(X[:4], signed), (X[4:], unsigned)])
    assert sorted(y.tolist()) == [big, big + 1]
    _, y = Sharded(KCenter(ipc=1), random_state=0).fit_resample_shards([(X[:4], [0, 1, 0, 1]), (X[4:], [0.0, 1.0] * 2)])
    assert sorted(y.tolist()) == [0, 1]
    with pytest.raises(ValueError, match="`shards` must have labels of one type, or none beyond 9007199254740992"):
        Sharded(KCenter(ipc=1)).fit_resample_shards([(X[:4], signed), (X[4:], [0.0, 1.0] * 2)])


def test_half_precision_of_torch():
    X, y = table()
    halves = torch.from_numpy(X).bfloat16()
    small, expected = (
        Sharded(KCenter(ipc=2), random_state=0).fit_resample_shards([(x[:30], y[:30]), (x[30:], y[30:])])[0]
        for x in (halves, halves.float().numpy())
    )
    assert np.array_equal(small, expected)


def test_shards_in_another_order_the_second_time_are_refused():
    calls = []

    def shuffled():
        calls.append(1)
        order = np.random.default_rng(len(calls)).permutation(60)
        return np.arange(240.0).reshape(60, 4)[order], (np.arange(60) % 3)[order]

    with pytest.raises(ValueError, match="must give the same rows whenever it is read, got other labels"):
        Sharded(KCenter(ipc=3, features=Pixels()), random_state=0).fit_resample_shards([shuffled])
