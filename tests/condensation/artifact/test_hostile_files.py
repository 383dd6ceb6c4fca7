"""Bad values and hostile files of condensed sets."""

import io
import json
import os
import pickle
import random
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from condensation.artifact import CondensedSet
from condensation.artifact.condensed_set import Cleaning, Normalisation, Provenance
from tests.artifacts import DAMAGED, as_dict, bare, hard, npy, parts_of, put
from tests.states import assert_same_bits


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": [[1.0]]}, r"`x` must be a tensor of torch\.float32 or torch\.uint8, got list"),
        ({"x": torch.zeros(4, 1, dtype=torch.float64)}, r"`x` must be a tensor of .*, got torch\.float64"),
        ({"x": torch.zeros(4)}, r"`x` must have 2 or more axes and not be empty, got shape \(4,\)"),
        ({"x": torch.zeros(4, 0)}, r"`x` must have .* not be empty, got shape \(4, 0\)"),
        ({"x": torch.full((4, 1, 5, 6), torch.nan)}, "`x` must be finite, got values from nan to nan"),
        ({"x": torch.full((4, 1, 5, 6), -torch.inf)}, "`x` must be finite, got values from -inf to -inf"),
        ({"x": torch.zeros(4, 3, 5, 6)}, "`normalisation` must have 3 means, one a channel of `x`, got 1"),
        (
            {"x": torch.zeros(4, 1, 2, 2, dtype=torch.uint8)},
            r"must have black=0 and white=255 where .*, got 0\.0 and 1\.0",
        ),
        ({"labels": torch.tensor([0, 1])}, "`labels` must be 4, one a sample, got 2"),
        ({"labels": torch.tensor([0, 1, 2, 3])}, r"`labels` must lie in \[0, 3\), got 3"),
        ({"labels": torch.tensor([0, 1, 2, -1])}, r"`labels` must be finite and lie in \[0, inf\), got values from -1"),
        ({"labels": torch.zeros(4)}, r"`labels` must have 2 axes and not be empty, got shape \(4,\)"),
        ({"labels": torch.full((4, 2), 0.5)}, "`class_names` must be 2, one a class, got 3"),
        ({"labels": torch.full((4, 2), 0.5), "class_names": None, "num_classes": 3}, "`labels` must have 3 columns"),
        ({"labels": torch.full((4, 3), 0.5)}, "`labels` must sum to 1 in every row"),
        ({"labels": torch.tensor([[2.0, -1.0, 0.0]] * 4)}, r"`labels` must be finite and lie in \[0, inf\)"),
        ({"weights": torch.ones(3)}, "`weights` must be 4, one a sample, got 3"),
        ({"weights": torch.zeros(4)}, "`weights` must not all be 0"),
        ({"weights": torch.tensor([1.0, 1.0, 1.0, -1.0])}, r"`weights` must be finite and lie in \[0, inf\)"),
        ({"weights": torch.tensor([1.0, 1.0, 1.0, torch.nan])}, "`weights` must be finite"),
        ({"learning_rates": torch.ones(2)}, "`learning_rates` must be 3, one a step, got 2"),
        ({"learning_rates": torch.full((3,), torch.inf)}, "`learning_rates` must be finite"),
        ({"steps": torch.full((3, 2), 4)}, r"`steps` must be finite and lie in \[0, 4\), got values from 4 to 4"),
        ({"synthetic": False}, "`rows` must be 4, one a sample, got 50"),
        ({"synthetic": None}, "`synthetic` must be True or False, got None"),
        ({"num_classes": 2**16, "class_names": None}, "`num_classes` must be at most 65535, got 65536"),
        ({"num_classes": True}, "`num_classes` must be an integer of at least 1"),
        ({"class_names": ("a", "b")}, r"`labels` must lie in \[0, 2\), got 2"),
        ({"class_names": "abc"}, "`class_names` must be texts, got 'abc'"),
        ({"class_names": ("a", "b", "b")}, "`class_names` must all be different"),
        ({"class_names": ("a", "b", "c\n")}, r"`class_names` must be a text that can be printed, got 'c\\n'"),
        ({"method": ""}, "`method` must be a text that can be printed, got ''"),
        ({"method": 3}, "`method` must be a text that can be printed, got 3"),
        ({"seed": -1}, "`seed` must be an integer of at least 0, got -1"),
        ({"normalisation": (0.0, 1.0)}, "`normalisation` must be a Normalisation"),
        ({"provenance": {}}, r"`provenance` must be a Provenance, got \{\}"),
        ({"settings": None}, "`settings` must be a dict of plain values, got None"),
        ({"settings": {"a": object()}}, "`settings` must hold finite numbers, .*, got object. `described` makes"),
        ({"settings": {"a": float("nan")}}, "`settings` must hold finite numbers, .*, got float"),
        ({"settings": {1: 2}}, "`settings` must hold .* dicts of texts, .*, got dict"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(ValueError, match=message):
        hard(**changes)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalisation(mean=(), std=()), "`mean` must be finite numbers, at least one"),
        (lambda: Normalisation(mean=0.5, std=1.0), r"`mean` must be finite numbers, at least one, got 0\.5"),
        (lambda: Normalisation(mean=(0.0,), std=(0.0,)), "`std` must be 1 numbers above 0"),
        (lambda: Normalisation(mean=(0.0,), std=(1.0, 1.0)), "`std` must be 1 numbers above 0"),
        (lambda: Normalisation(mean=(0.0,), std=(float("nan"),)), "`std` must be finite numbers"),
        (lambda: Normalisation(mean=(0,), std=(1,), white=0), "`white` must be a finite number above `black`"),
        (lambda: Cleaning(name=""), "`name` must be a text"),
        (lambda: Cleaning(name="a", dropped=-1), "`dropped` must be an integer of at least 0"),
        (lambda: Cleaning(name="a", noise_rate=1.5), r"`noise_rate` must lie in \[0, 1\]"),
        (lambda: Cleaning(name="a", pure_rate="b"), r"`pure_rate` must lie in \[0, 1\]"),
        (lambda: Provenance(rows=torch.tensor([0, 5]), n_samples=5), r"`rows` must be finite and lie in \[0, 5\)"),
        (lambda: Provenance(rows=torch.tensor([-1])), r"`rows` must be finite and lie in \[0, inf\)"),
        (lambda: Provenance(n_samples=0), "`n_samples` must be an integer of at least 1"),
        (lambda: Provenance(fingerprint="../x"), "`fingerprint` must be 64 hexadecimal digits"),
        (lambda: Provenance(cleaning="ours"), "`cleaning` must be a Cleaning, got 'ours'"),
    ],
)
def test_bad_parts(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.usefixtures("no_shape_checks")
def test_numbers_of_numpy_are_numbers(tmp_path):
    five = np.int64(5)
    source = Provenance(n_samples=five, cleaning=Cleaning(name="ours", dropped=five, noise_rate=np.float32(0.5)))
    made = bare(seed=five, num_classes=five, schedule={"lr": np.float64(0.1)}, provenance=source)
    made.save(tmp_path / "set")
    assert_same_bits(as_dict(CondensedSet.load(tmp_path / "set")), as_dict(made))


def test_too_deep_a_setting():
    deep = [1]
    for _ in range(25):
        deep = [deep]
    with pytest.raises(ValueError, match="at most 20 deep"):
        bare(settings={"deep": deep})


# ---- bad files ----


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        CondensedSet.load(tmp_path / "set")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match=f"{DAMAGED}.*: it is not a file"):
            CondensedSet.load(path)


@pytest.mark.parametrize("content", [b"", b"text" * 20, b"PK\x03\x04", b"PK\x05\x06" + bytes(18), pickle.dumps(1)])
def test_no_file_of_ours(tmp_path, content):
    (tmp_path / "set").write_bytes(content)
    with pytest.raises(ValueError, match=DAMAGED):
        CondensedSet.load(tmp_path / "set")


def test_flipped_bits_are_found_or_do_no_harm(tmp_path):
    path = tmp_path / "set"
    saved = hard(x=torch.rand(4, 1, 5, 6), provenance=None, augmentation=None)
    saved.save(path)
    whole, expected = path.read_bytes(), as_dict(saved)
    inside = whole.index(saved.x.numpy().tobytes())
    places = random.Random(0).choices(range(len(whole) * 8), k=300)
    found = 0
    for place in [8 * inside, 8 * inside + 3839, *places, *range(8 * len(whole) - 8 * 22, 8 * len(whole))]:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert_same_bits(as_dict(CondensedSet.load(path)), expected)
            assert not inside <= place // 8 < inside + 480
        except ValueError as error:
            assert str(error).startswith(DAMAGED)  # noqa: PT017
            found += 1
    assert found > 250


@pytest.mark.parametrize("place", [0, 2**15, -1])
def test_a_flipped_bit_of_a_large_array_is_found(tmp_path, place):
    saved = bare(x=torch.rand(3, 3 * 2**19))  # read in several parts
    saved.save(tmp_path / "set")
    damaged = bytearray((tmp_path / "set").read_bytes())
    content = saved.x.numpy().tobytes()
    damaged[damaged.index(content) + place % len(content)] ^= 1
    (tmp_path / "set").write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{DAMAGED}.*Bad CRC-32 for file 'x.npy'"):
        CondensedSet.load(tmp_path / "set")


def test_parts_that_share_bytes(tmp_path):
    """Labels that lie inside of x: so a file could unfold to several times its size."""
    path, labels = tmp_path / "set", torch.zeros(1000, dtype=torch.int64)
    file = io.BytesIO()
    put(file, {"labels.npy": npy(labels.numpy())})
    inner = file.getvalue()[: file.getvalue().index(b"PK\x01\x02")]
    x = torch.frombuffer(bytearray(inner.ljust(10000, b"\0")), dtype=torch.uint8).view(1000, 10)
    CondensedSet(x=x, labels=labels, method="DC").save(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start, directory = archive.getinfo("labels.npy").header_offset, archive.start_dir
    end = whole[directory:].replace(struct.pack("<L", start), struct.pack("<L", whole.index(inner)))
    path.write_bytes(whole[:start] + end.replace(struct.pack("<L", directory), struct.pack("<L", start)))
    with zipfile.ZipFile(path) as archive:
        assert sum(info.file_size for info in archive.infolist()) > path.stat().st_size
    with pytest.raises(ValueError, match=DAMAGED):
        CondensedSet.load(path)


def test_cut_files(tmp_path):
    path = tmp_path / "set"
    hard().save(path)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 37), *range(len(whole) - 60, len(whole))]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=DAMAGED):
            CondensedSet.load(path)


def test_random_plain_values(tmp_path):
    """Any value anywhere in the header is taken, if it has a meaning, or refused as all bad files are."""
    path = tmp_path / "set"
    hard().save(path)
    parts = parts_of(path)
    header = json.loads(parts["header.json"])
    places = [("kind",), ("format",), ("set",)]
    for key, value in header["set"].items():
        places += [("set", key)] + [("set", key, deeper) for deeper in (value if isinstance(value, dict) else ())]
    places += [("set", "provenance", "cleaning", name) for name in header["set"]["provenance"]["cleaning"]]
    for place in places:
        for value in (None, -1, "\ud800", [[]], {"a": {}}):
            changed = json.loads(parts["header.json"])
            record = changed
            for key in place[:-1]:
                record = record[key]
            record[place[-1]] = value
            put(path, parts | {"header.json": json.dumps(changed)})
            try:
                CondensedSet.load(path)
            except ValueError as error:
                assert str(error).startswith(DAMAGED)  # noqa: PT017
        if place[1:2] and place[1] in ("settings", "schedule", "augmentation", "versions") and place[2:]:
            continue  # any keys will do
        del record[place[-1]]
        put(path, parts | {"header.json": json.dumps(changed)})
        with pytest.raises(ValueError, match=DAMAGED):
            CondensedSet.load(path)


def hostile_files(parts, folder):
    """Names, contents and what is said of them."""
    header = json.loads(parts["header.json"])

    def with_header(**changes):
        return parts | {"header.json": json.dumps({**header, **changes})}

    def with_npy(text, data=bytes(480)):
        text = text.encode().ljust(117) + b"\n"
        return parts | {"x.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data}

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(folder / "ran"),)

    objects = npy(np.array([Hostile()], dtype=object))
    shape = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"
    yield "later", with_header(format=3), "its format must be from 1 to 2, got 3; a later lossbuf may read it"
    yield "earlier", with_header(format=0), "its format must be from 1 to 2, got 0"
    yield "other kind", with_header(kind="box"), "it is of another kind"
    yield "unknown key", with_header(more=1), r"unknown, doubled or missing parts \['more'\]"
    yield "unknown key inside", with_header(set={**header["set"], "more": 1}), "`set` must have the keys"
    yield "climbing", parts | {"../../x.npy": parts["x.npy"]}, r"unknown, .* parts \['../../x.npy'\]"
    yield "absolute", parts | {"/x.npy": parts["x.npy"]}, r"unknown, .* parts \['/x.npy'\]"
    yield "no header", {name: parts[name] for name in parts if name != "header.json"}, "it is damaged"
    yield "no x", {name: parts[name] for name in parts if name != "x.npy"}, "`x` must be a tensor of .*, got NoneType"
    yield "deep", parts | {"header.json": "[" * 10**5}, "recursion|nested"
    yield "long", parts | {"header.json": json.dumps({"kind": "a" * 2**22})}, "more than 4194304 bytes"
    yield "nan", parts | {"header.json": parts["header.json"].replace(b"300", b"NaN")}, "`schedule` must hold finite"
    yield "far", parts | {"header.json": parts["header.json"].replace(b"300", b"1e999")}, "`schedule` must hold finite"
    yield "digits", parts | {"header.json": parts["header.json"].replace(b"300", b"9" * 9999)}, "4300 digits"
    yield "no text", parts | {"header.json": b"\xff\xfe"}, "codec can't decode"
    yield "objects", parts | {"x.npy": objects}, "x.npy is not an array of"
    yield "pickle", parts | {"x.npy": pickle.dumps(Hostile())}, "x.npy is not an array of"
    yield "text array", parts | {"x.npy": npy(np.array(["a"] * 4))}, "x.npy is not an array of"
    yield "complex", parts | {"x.npy": npy(np.zeros((4, 2), complex))}, "x.npy is not an array of"
    yield "big endian", parts | {"x.npy": npy(np.zeros((4, 2), ">f4"))}, "x.npy is not an array of"
    yield "column order", parts | {"x.npy": npy(np.zeros((4, 2), "f4", order="F"))}, "x.npy is not an array of"
    yield "double", parts | {"x.npy": npy(np.zeros((4, 2)))}, "`x` must be a tensor of .*, got torch.float64"
    yield "no rows", parts | {"x.npy": npy(np.zeros((0, 1, 5, 6), "f4"))}, "x.npy is not an array of"
    yield "scalar", parts | {"x.npy": npy(np.float32(1))}, "x.npy is not an array of"
    yield "NaN", parts | {"x.npy": npy(np.full((4, 1, 5, 6), np.nan, "f4"))}, "`x` must be finite"
    yield "huge", with_npy(shape.format("<f4", "(1000000000000,)")), "x.npy is not an array of"
    yield "large", with_npy(shape.format("<f4", "(250000000, 1000)")), "x.npy has not the size of its shape"
    yield "negative", with_npy(shape.format("<f4", "(-4, 30)")), "x.npy is not an array of"
    yield "many readings", with_npy(shape.format("<f4", "(" + "1" * 50 + "x)")), "x.npy is not an array of"
    yield "many commas", with_npy(shape.format("<f4", "(" + "1, " * 15 + "x)")), "x.npy is not an array of"
    yield "long names", with_header(set={**header["set"], "class_names": ["a" * 10**5, 1]}), "must be texts.{,500}$"
    yield "many axes", with_npy(shape.format("<f4", "(120" + ", 1" * 30 + ")")), "x.npy is not an|has not the size"
    yield "code", with_npy("__import__('os').mkdir('ran')"), "x.npy is not an array of"
    yield "short", with_npy(shape.format("<f4", "(4, 1, 5, 6)"), bytes(479)), "x.npy has not the size of its shape"
    yield "labels", parts | {"labels.npy": npy(np.array([0, 1, 2, 2**62]))}, r"`labels` must lie in \[0, 3\)"
    yield "rows without source", with_header(set={**header["set"], "provenance": None}), "it has rows of no provenance"


@pytest.mark.usefixtures("no_shape_checks")
def test_hostile_files(tmp_path):
    path = tmp_path / "set"
    hard().save(path)
    parts = parts_of(path)
    put(path, parts)
    CondensedSet.load(path)  # so that what is refused is refused for its own sake
    tracemalloc.start()
    for name, changed, message in hostile_files(parts, tmp_path):
        put(path, changed)
        start = time.perf_counter()
        with pytest.raises(ValueError, match=f"{DAMAGED}.*{message}"):
            pytest.fail(f"{name} was loaded: {CondensedSet.load(path)}")
        assert time.perf_counter() - start < 20, name
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_hostile_archives(tmp_path):
    path = tmp_path / "set"
    hard().save(path)
    whole, parts = path.read_bytes(), parts_of(path)
    with pytest.raises(ValueError, match=f"it has {len(whole)} bytes, more than max_bytes=1000"):
        CondensedSet.load(path, max_bytes=1000)
    put(path, parts | {"x.npy": bytes(2**26)}, zipfile.ZIP_DEFLATED)  # a bomb
    assert path.stat().st_size < 2**19
    tracemalloc.start()
    with pytest.raises(ValueError, match="it is damaged"):
        CondensedSet.load(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    with zipfile.ZipFile(path, "w") as archive:
        for name in [*parts, "x.npy"]:
            archive.writestr(name, parts[name])
    with pytest.raises(ValueError, match=r"unknown, doubled or missing parts \[\]"):
        CondensedSet.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(10**4):
            archive.writestr(str(number), b"")
    tracemalloc.reset_peak()
    with pytest.raises(ValueError, match="it is damaged"):
        CondensedSet.load(path)
    assert tracemalloc.get_traced_memory()[1] - tracemalloc.get_traced_memory()[0] < 2**20
    tracemalloc.stop()
    central = whole.index(b"PK\x01\x02")
    for place, value in ((20, 2**31), (24, 2**31), (42, 2**31)):  # sizes and place of the first part
        damaged = bytearray(whole)
        damaged[central + place : central + place + 4] = struct.pack("<L", value)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=DAMAGED):
            CondensedSet.load(path)
