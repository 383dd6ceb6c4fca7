"""Results are replaced together or not at all, whatever fails, and nothing else is touched."""

import os
import sys

import pytest

from lossbuf.files import write_whole
from lossbuf.files.locks import LOCK
from lossbuf.inputs import InputError
from lossbuf.results import MARKER, Kind, ResultFolder
from tests.results.faults import FAULTS, content, failing, in_child

unix = pytest.mark.skipif(sys.platform == "win32", reason="needs os.fork and the limits of Unix")

SUMS = Kind("sum", ("a.txt", "b.txt", "c.txt"), state="state.pt")
OLD = {"a.txt": b"old a", "b.txt": b"old b"}
NEW = {"a.txt": b"new a", "c.txt": b"new c"}
MINE = {"mine.txt": b"mine", "unfinished-1/a.txt": b"mine, too", "unfinished-7/notes": b"and this"}


def make(folder, results, overwrite=False, resume=False, state=b""):
    with folder.draft({"results": len(results)}, overwrite=overwrite, resume=resume) as draft:
        if state:
            write_whole(draft.state, lambda file: file.write(state))
        for name, text in results.items():
            write_whole(draft.file(name), lambda file, text=text: file.write(text))
        folder.commit(draft)


def found(folder):
    return {path.name: path.read_bytes() for path in folder.files() if path.exists()}


def mine(folder):
    return {name: (folder.path / name).read_bytes() for name in MINE if (folder.path / name).exists()}


@pytest.fixture
def folder(tmp_path):
    """A folder with results, and with files of the user's own."""
    folder = ResultFolder(tmp_path / "out", SUMS)
    for name, text in MINE.items():
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_bytes(text)
    make(folder, OLD)
    return folder


def assert_old_or_new(folder):
    """All results are of one run, once what was begun is carried through."""
    folder.settle()
    assert found(folder) in (OLD, NEW)
    assert mine(folder) == MINE


def test_results_are_replaced_together(folder):
    make(folder, NEW, overwrite=True, state=b"state")
    assert found(folder) == NEW
    assert mine(folder) == MINE
    assert {path.name for path in folder.path.iterdir()} == {
        LOCK, MARKER, "a.txt", "c.txt", "mine.txt", "unfinished-1", "unfinished-7"
    }  # fmt: skip


@unix
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_step_leaves_the_old_results_or_the_new(tmp_path, fault):
    steps, states = 0, []
    while True:
        folder = ResultFolder(tmp_path / f"out{steps}", SUMS)
        for name, text in MINE.items():
            (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
            (folder.path / name).write_bytes(text)
        make(folder, OLD)

        def run(folder=folder, at=steps):
            with failing(folder.path, at, FAULTS[fault]) as seen:
                make(folder, NEW, overwrite=True, state=b"state")
                assert seen[0] <= at  # the run did without the step that fails

        if fault == "killed":
            ended = in_child(run) == 0
        else:
            try:
                run()
                ended = True
            except (OSError, KeyboardInterrupt, AssertionError):
                ended = False
        assert_old_or_new(folder)
        states.append(found(folder) == NEW)
        make(folder, NEW, overwrite=True)  # another run is not hindered by what is left
        assert found(folder) == NEW
        assert not folder.unfinished()
        if ended:
            break
        steps += 1
    assert steps > 15
    assert states.count(False) > 5
    assert states[-1]


@unix
@pytest.mark.parametrize("fault", ["full", "broken"])
def test_a_fault_that_lasts_leaves_what_the_next_run_carries_through(tmp_path, fault):
    for at in range(30):
        folder = ResultFolder(tmp_path / f"out{at}", SUMS)
        make(folder, OLD)
        with failing(folder.path, at, FAULTS[fault], lasting=True) as seen:
            try:
                make(folder, NEW, overwrite=True, state=b"state")
            except OSError:
                pass
            else:
                assert seen[0] <= at
        folder.settle()
        assert found(folder) in (OLD, NEW)


@unix
@pytest.mark.parametrize("limit", [0, 3, 200, 400])
def test_a_disk_that_fills_up_leaves_the_old_results(folder, limit):
    import resource

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        make(folder, NEW | {"b.txt": b"b" * 500}, overwrite=True)

    assert in_child(run) != 0
    folder.settle()
    assert found(folder) == OLD
    assert mine(folder) == MINE


def test_without_leave_nothing_is_replaced(folder):
    before = content(folder.path)
    with pytest.raises(InputError, match=r"holds a\.txt already: `--overwrite` replaces it"):
        make(folder, NEW)
    with pytest.raises(InputError, match=r"holds a\.txt already"):
        make(folder, NEW, resume=True)
    assert content(folder.path) == before


@pytest.mark.parametrize("asked", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.txt", "was not written by this command, or was changed since"),
        ("c.txt", "was not written by this command"),
        ("folder", "must be a regular file or not be there, got a folder"),
        ("link", "got a link"),
        ("broken link", "got a link"),
        ("pipe", "got a pipe or a device"),
        (MARKER, "must list the files that lossbuf wrote"),
    ],
)
def test_what_lossbuf_did_not_write_is_not_replaced(folder, name, said, asked):
    if name == "a.txt" and not asked:
        said = "holds a.txt already"
    place = folder.path / ("b.txt" if name in ("folder", "link", "broken link", "pipe") else name)
    place.unlink(missing_ok=True)
    if name == "folder":
        place.mkdir()
    elif "link" in name:
        place.symlink_to(folder.path / ("mine.txt" if name == "link" else "nothing"))
    elif name == "pipe":
        os.mkfifo(place)
    else:
        place.write_bytes(b"mine")
    before = content(folder.path)
    with pytest.raises(InputError, match=said):
        make(folder, NEW, **asked)
    assert content(folder.path) == before


def test_a_file_that_appears_meanwhile_is_not_replaced(folder):
    with folder.draft(overwrite=True) as draft:
        draft.file("c.txt").write_bytes(b"new c")
        (folder.path / "c.txt").write_bytes(b"mine")
        with pytest.raises(InputError, match=r"c\.txt was not written"):
            folder.commit(draft)
    assert found(folder) == OLD | {"c.txt": b"mine"}


def test_results_of_other_kinds_stay(folder):
    other = ResultFolder(folder.path, Kind("product", ("product.txt",)))
    make(other, {"product.txt": b"6"})
    make(folder, NEW, overwrite=True)
    assert found(folder) == NEW
    assert found(other) == {"product.txt": b"6"}
    with pytest.raises(InputError, match="was not written by this command"):
        make(ResultFolder(folder.path, Kind("quotient", ("product.txt",))), {}, overwrite=True)


def test_a_state_is_kept_until_results_are_there(folder):
    for state in (b"first", b"second"):  # started anew: the first state stays until there are results
        with folder.draft({"run": state.decode()}, overwrite=True) as draft:
            write_whole(draft.state, lambda file, state=state: file.write(state))
    assert [draft.state.read_text() for draft in folder.unfinished()] == ["second", "first"]
    with pytest.raises(InputError, match="`--resume` goes on with an unfinished run"):
        make(folder, NEW)
    with folder.draft({"run": "first"}, resume=True) as draft:
        assert draft.state.read_text() == "first"
    with folder.draft({"run": "third"}, resume=True) as draft:
        assert draft.state.read_text() == "second"
        for name, text in NEW.items():
            draft.file(name).write_bytes(text)
        folder.commit(draft)
    assert not folder.unfinished()
    assert found(folder) == NEW
    assert mine(folder) == MINE


def test_a_run_that_is_not_completed_and_has_no_state_leaves_nothing(tmp_path):
    folder = ResultFolder(tmp_path, SUMS)
    with folder.draft() as draft:
        draft.file("a.txt").write_bytes(b"half")
    assert os.listdir(tmp_path) == [LOCK]


def test_files_of_others_in_a_draft_stay(tmp_path):
    folder = ResultFolder(tmp_path, SUMS)
    with folder.draft() as draft:
        draft.file("a.txt").write_bytes(b"a")
        (draft.path / "mine.txt").write_bytes(b"mine")
        folder.commit(draft)
    assert (draft.path / "mine.txt").read_bytes() == b"mine"
    assert found(folder) == {"a.txt": b"a"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (".", "must lie outside the folder"),
        ("..", "must lie outside the folder"),
        ("a.txt", "must be another place than"),
        ("link", "must lie outside the folder"),
        ("hard link", "must be another place than"),
        ("unfinished-8/state.pt", "is unfinished work in it"),
    ],
)
def test_an_output_is_no_input(folder, tmp_path, source, said):
    with folder.draft({}, overwrite=True) as draft:
        draft.state.write_bytes(b"state")
    path = folder.path / source
    if source == "link":
        path = tmp_path / "link"
        path.symlink_to(folder.path)
    elif source == "hard link":
        path = tmp_path / "hard"
        os.link(folder.path / "b.txt", path)
    elif source.startswith("unfinished"):
        path = draft.state
    before = content(tmp_path)
    with pytest.raises(InputError, match=said):
        folder.check([path], overwrite=True)
    with pytest.raises(InputError, match=said), folder.draft(inputs=[path], overwrite=True, resume=True):
        pass
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"kind": "other"}', '{"kind": "lossbuf.written", "files": {}}', "[" * 100_000,
     '{"kind": "lossbuf.written", "files": {"a": 1}, "swap": null}',
     '{"kind": "lossbuf.written", "files": {}, "swap": {"kind": "sum", "draft": "..", "files": {}, "remove": []}}',
     '{"kind": "lossbuf.written", "files": {}, "swap": {"kind": "s", "draft": "d", "files": {}, "remove": ["../x"]}}'],
)  # fmt: skip
def test_a_damaged_marker_is_refused(folder, text):
    (folder.path / MARKER).write_text(text)
    with pytest.raises(InputError, match="must list the files that lossbuf wrote"):
        make(folder, NEW, overwrite=True)
    with pytest.raises(InputError, match="must list the files that lossbuf wrote"):
        folder.settle()
    assert found(folder) == OLD
