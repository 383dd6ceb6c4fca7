"""Files are written whole or not at all, and read without running code."""

import os
import pickle

import pytest
import torch

from lossbuf.files import load_tensors, save_tensors, write_whole
from tests.states import assert_same_bits


class Hostile:
    """Makes a folder where it is unpickled by a careless reader."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_what_was_saved_comes_back(tmp_path):
    content = {"kind": "box", "tensor": torch.arange(3), "plain": [1, 2.5, None, "text", {"deep": True}]}
    save_tensors(tmp_path / "new" / "folder" / "file.pt", content)
    assert_same_bits(load_tensors(tmp_path / "new" / "folder" / "file.pt", "box"), content)
    assert_same_bits(load_tensors(str(tmp_path / "new" / "folder" / "file.pt"), "box"), content)
    assert os.listdir(tmp_path / "new" / "folder") == ["file.pt"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"half of the n")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, half)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    write_whole(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []

    def write(file):
        file.write(b"new")
        file.flush()
        seen.append(path.read_bytes())

    write_whole(path, write)
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


def test_content_that_could_not_be_read_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"`content\['box'\]\[1\]` must be a tensor or a plain value"):
        save_tensors(tmp_path / "file", {"box": [1, object()]})
    assert os.listdir(tmp_path) == []


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "file", "box")


def test_folder(tmp_path):
    with pytest.raises(ValueError, match="`path` must be a file saved by lossbuf"):
        load_tensors(tmp_path, "box")


@pytest.mark.parametrize(
    ("content", "found"), [({"kind": "can"}, "can"), ({}, "no kind"), ([1], "list"), (torch.zeros(1), "Tensor")]
)
def test_other_kind(tmp_path, content, found):
    torch.save(content, tmp_path / "file")
    with pytest.raises(ValueError, match=rf"`path` must be a box file, got .*file with {found}\."):
        load_tensors(tmp_path / "file", "box")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", pickle.dumps({"kind": "box"})])
def test_no_file_of_ours(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r"`path` must be a file saved by lossbuf, got .*file: it is damaged"):
        load_tensors(tmp_path / "file", "box")


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize("deep", [False, True])
def test_code_in_a_file_is_not_run(tmp_path, write, deep):
    hostile = Hostile(tmp_path / "ran")
    write({"kind": "box", "state": hostile} if deep else hostile, tmp_path / "file")
    with pytest.raises(ValueError, match="or holds more than tensors and plain values"):
        load_tensors(tmp_path / "file", "box")
    assert os.listdir(tmp_path) == ["file"]
    # The file would have run it: otherwise this test shows nothing.
    if write is torch.save:
        torch.load(tmp_path / "file", weights_only=False)
    else:
        pickle.loads((tmp_path / "file").read_bytes())
    assert (tmp_path / "ran").is_dir()


def test_a_flipped_bit_is_found_or_does_no_harm(tmp_path, generator):
    path = tmp_path / "file"
    content = {"kind": "box", "tensor": torch.rand(50, generator=generator), "numbers": list(range(20)), "name": "a"}
    save_tensors(path, content)
    whole = path.read_bytes()
    places = torch.randint(len(whole), (400,), generator=generator).tolist()
    inside = whole.index(content["tensor"].numpy().tobytes())
    found = 0
    for place in [inside, inside + 199, *places]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            assert_same_bits(load_tensors(path, "box"), content)
            assert not inside <= place < inside + 200
        except ValueError:
            found += 1
    assert found > 100


def test_a_cut_file(tmp_path):
    path = tmp_path / "file"
    save_tensors(path, {"kind": "box", "tensor": torch.arange(100)})
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="it is damaged"):
            load_tensors(path, "box")
