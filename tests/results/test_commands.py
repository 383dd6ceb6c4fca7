"""No command loses a file that it did not write, whatever it is asked and wherever it fails."""

import os
import shutil
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from condensation.cli import CONDENSED, CORESET, app
from lossbuf.results import MARKER, Kind, ResultFolder
from lossbuf.scan import ScanFolder
from lossbuf.scan.folder import SCAN
from tests.results.faults import FAULTS, content, failing, in_child

LABELS = Kind("file of labels", ("labels.csv",))
COMMANDS = {
    "scan": (["--epochs", "1", "--network", "mlp", "--device", "cpu", "--top", "3"], SCAN),
    "coreset": (["--method", "random", "--ipc", "1"], CORESET),
    "condense": (["--iterations", "1", "--ipc", "1", "--device", "cpu"], CONDENSED),
    "apply": ([], LABELS),
}
SOURCES = ("data.npz", "features.npz", "photos", "found", "typo", "out", "out/coreset.npz", "photos/cat/0.png")
PLACES = ("out", "photos", "photos/small", "found", "new/out", "data.npz", ".")
NAMES = (
    "scan.json", "summary.json", "clean.csv", "coreset.npz", "coreset.png", "condensed.npz", "condense.pt",
    "labels.csv", "unfinished-1/scan.pt", "unfinished-1/mine.txt", ".lossbuf.json", "mine.txt",
)  # fmt: skip


def run(command, source, out, *more):
    words = [command, str(source), "--out", str(out / "labels.csv" if command == "apply" else out)]
    return CliRunner().invoke(app, [*words, *COMMANDS[command][0], *more])


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Sources of all kinds, and a finished scan of one."""
    root = tmp_path_factory.mktemp("template")
    draws = np.random.default_rng(0)
    labels = np.arange(24) % 2
    x = draws.integers(0, 100, (24, 8, 8), dtype=np.uint8) + 100 * labels[:, None, None].astype(np.uint8)
    np.savez(root / "data.npz", x=x, y=labels)
    np.savez(root / "features.npz", x=draws.normal(size=(24, 3)), y=labels)
    for row, label in enumerate(labels):
        path = root / "photos" / ("cat", "dog")[label] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[row]).save(path)
    assert run("scan", root / "data.npz", root / "found").exit_code == 0
    return root


def arranged(template, root, earlier, mine):
    """A copy of the template with earlier results in ``out`` and files of the user's own; the content of these."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(template, root)
    about = root / "found" / "scan.json"
    about.write_text(about.read_text().replace(str(template), str(root)))
    if earlier:
        source = root / ("found" if earlier == "apply" else "data.npz")
        assert run(earlier, source, root / "out").exit_code == 0
    for name in mine:
        path = root / "out" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("mine")
    written = {str(root / "out" / name) for name in (*COMMANDS[earlier][1].files, MARKER)} if earlier else set()
    written |= {str(root / "found" / name) for name in (*SCAN.files, MARKER)}  # a scan may replace another one
    return {name: kept for name, kept in content(root).items() if name not in written}


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    command=st.sampled_from(list(COMMANDS)),
    source=st.sampled_from(SOURCES),
    out=st.sampled_from(PLACES),
    flags=st.sets(st.sampled_from(["--overwrite", "--resume"])),
    earlier=st.sampled_from([None, *COMMANDS]),
    mine=st.sets(st.sampled_from(NAMES), max_size=3),
    fault=st.sampled_from([None, "full", "broken", "stopped"]),
    at=st.integers(0, 60),
)
def test_no_command_loses_a_file_that_it_did_not_write(
    template, tmp_path_factory, command, source, out, flags, earlier, mine, fault, at
):
    root = tmp_path_factory.getbasetemp() / "work"
    before = arranged(template, root, earlier, mine)
    flags -= {"--resume"} if command in ("coreset", "apply") else set()
    results = ResultFolder(root / out, COMMANDS[command][1])
    old = {path.name: path.read_bytes() for path in results.files() if path.is_file()}
    with failing(root / out if fault else root / "nothing", at, FAULTS.get(fault)):
        ended = run(command, root / source, root / out, *sorted(flags))
    after = content(root)
    assert {name: after.get(name) for name in before} == before
    assert ended.exit_code in (0, 1, 2, 130), ended.output
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    now = {path.name: path.read_bytes() for path in results.files() if path.is_file()}
    if ended.exit_code == 2 or not flags:
        assert {name: now.get(name) for name in old} == old  # nothing is replaced without leave, or by an error


@pytest.mark.parametrize(
    ("command", "earlier", "source"),
    [
        ("coreset", "coreset", "out/coreset.npz"),
        ("condense", "condense", "out/condensed.npz"),
        ("coreset", "coreset", "typo"),
        ("condense", "condense", "features.npz"),
        ("condense", "condense", "typo"),
        ("scan", "scan", "typo"),
        ("apply", "apply", "typo"),
    ],
)
def test_what_cannot_be_done_leaves_the_earlier_results(template, tmp_path, command, earlier, source):
    arranged(template, tmp_path / "work", earlier, ())
    before = content(tmp_path / "work" / "out")
    ended = run(command, tmp_path / "work" / source, tmp_path / "work" / "out", "--overwrite")
    assert ended.exit_code == 2
    assert content(tmp_path / "work" / "out") == before


@pytest.mark.parametrize("command", ["scan", "condense"])
def test_a_device_that_is_not_there_leaves_the_earlier_results(template, tmp_path, command):
    arranged(template, tmp_path / "work", command, ())
    before = content(tmp_path / "work" / "out")
    ended = run(
        command, tmp_path / "work" / "data.npz", tmp_path / "work" / "out", "--overwrite", "--device", "cuda:99"
    )
    assert ended.exit_code == 2
    assert "device" in ended.stderr
    assert content(tmp_path / "work" / "out") == before


@pytest.mark.parametrize("name", ["summary.json", "clean.csv"])
@pytest.mark.parametrize("flag", [None, "--resume", "--overwrite"])
def test_a_scan_does_not_replace_what_is_the_users(template, tmp_path, name, flag):
    arranged(template, tmp_path / "work", None, [name])
    before = content(tmp_path / "work")
    ended = run("scan", tmp_path / "work" / "data.npz", tmp_path / "work" / "out", *([flag] if flag else []))
    assert ended.exit_code == 2
    assert f"{name} was not written by this command" in ended.stderr
    assert "--resume" not in ended.stderr
    assert content(tmp_path / "work") == before


@pytest.mark.parametrize("out", ["photos/cat/0.png", "found/clean.csv", "data.npz", "pipe", "link", "."])
def test_labels_replace_no_other_file(template, tmp_path, out):
    root = tmp_path / "work"
    arranged(template, root, None, ())
    os.mkfifo(root / "pipe")
    (root / "link").symlink_to(root / "data.npz")
    before = content(root)
    words = ["apply", str(root / "found"), "--out", str(root / out), "--overwrite"]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2
    assert content(root) == before


def test_labels_are_replaced_where_lossbuf_wrote_them(template, tmp_path):
    for flags in ([], ["--overwrite"]):
        assert run("apply", template / "found", tmp_path, *flags).exit_code == 0
    (tmp_path / "labels.csv").write_text("mine")
    ended = run("apply", template / "found", tmp_path, "--overwrite")
    assert ended.exit_code == 2
    assert "was changed since" in ended.stderr
    assert (tmp_path / "labels.csv").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.fork")
@pytest.mark.parametrize("command", ["scan", "apply", "coreset", "condense"])
def test_a_command_killed_at_any_step_leaves_the_old_results_or_the_new(template, tmp_path, command):
    root, kind = tmp_path / "work", COMMANDS[command][1]
    arranged(template, root, command, ["mine.txt"])
    results, source = ResultFolder(root / "out", kind), root / ("found" if command == "apply" else "data.npz")
    more = {"apply": ["--undecided", "drop"], "scan": ["--seed", "1"]}.get(command, ["--seed", "1"])
    old = {path.name: path.read_bytes() for path in results.files() if path.exists()}
    pristine = tmp_path / "pristine"
    shutil.copytree(root, pristine)

    def state():
        return {path.name: path.read_bytes() for path in results.files() if path.exists()}

    def once(at):
        with failing(root / "out", at, FAULTS["killed"]):
            ended = run(command, source, root / "out", "--overwrite", *more)
        assert ended.exit_code == 0, ended.output

    outcomes = []
    for at in range(0, 400, 3 if command in ("scan", "condense") else 2):
        status = in_child(lambda at=at: once(at))
        assert status in (0, -9)
        results.settle()
        assert (root / "out" / "mine.txt").read_text() == "mine"
        outcomes.append(state() == old)
        if not outcomes[-1]:
            assert set(state()) == set(old)
            assert all(state()[name] != old[name] for name in kind.files if name.endswith((".npz", ".pt")))
        if status == 0:
            break
        shutil.rmtree(root)
        shutil.copytree(pristine, root)
    assert outcomes[0]
    assert not outcomes[-1]


def test_an_overwritten_run_that_was_stopped_is_gone_on_with(template, tmp_path, monkeypatch):
    """The finished scan stays until the new one is complete, and both can be gone on with."""
    root = tmp_path / "work"
    arranged(template, root, "scan", ())
    folder = ScanFolder(root / "out")
    before = {path.name: path.read_bytes() for path in folder.files()}
    with monkeypatch.context() as patched:
        patched.setattr("lossbuf.scan.folder.issues_table", lambda scan: (_ for _ in ()).throw(KeyboardInterrupt()))
        ended = run("scan", root / "data.npz", root / "out", "--overwrite", "--seed", "3")
    assert ended.exit_code == 130
    assert {path.name: path.read_bytes() for path in folder.files()} == before
    assert len(folder.results.unfinished()) == 1
    assert run("scan", root / "data.npz", root / "out", "--resume", "--seed", "3").exit_code == 0
    assert folder.read_about()["settings"]["seed"] == 3
    assert not folder.results.unfinished()
