"""The benchmark of reliability: what it tries holds, and it would see what does not."""

import json

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.reliability import __main__ as command
from benchmarks.reliability import changes, children, faults, jobs, kills, places, races
from benchmarks.reliability.report import markdown
from benchmarks.reliability.trials import Trials, one_line
from lossbuf.files import save_tensors

pytestmark = pytest.mark.skipif("forkserver" not in children.multiprocessing.get_all_start_methods(), reason="Unix")


def wrong(trials):
    return {row["what"]: row["happened"] for row in trials.rows() if row["wrong"]}


# ---- what is tried holds ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("job", [jobs.TRAININGS[2], jobs.CONDENSATIONS[1]], ids=lambda job: job.name)
def test_killed_work_ends_with_the_same_bits(job):
    trials = Trials("kills")
    kills.kill_jobs(trials, (job,), 4, 1, lambda: None)
    assert not wrong(trials)
    killed = [row for row in trials.rows() if "SIGKILL" in row["what"]]
    assert sum(row["tried"] for row in killed) == 4
    assert any("a whole checkpoint" in row["happened"] for row in killed)


@pytest.mark.slow
@pytest.mark.parametrize("place", faults.PLACES)
def test_nothing_is_lost_where_nothing_can_be_written(place, tmp_path):
    tmp_path.chmod(0o755)
    happened, right = children.call(faults.save_in, tmp_path, place, "LossBufferCallback.save", 0.5)
    assert right, happened


@pytest.mark.slow
def test_a_training_goes_on_after_a_full_disk(tmp_path):
    happened, right = children.call(faults.job_interrupted, tmp_path, jobs.TRAININGS[0].name, 3)
    assert right, happened


@pytest.mark.slow
@pytest.mark.parametrize("writer", races.SAVED)
def test_a_reader_sees_one_or_the_other(writer):
    trials = Trials("races")
    races.race_to_save(trials, writer, 15)
    assert not wrong(trials)


@pytest.mark.parametrize("part", [changes.of_callbacks, changes.of_trainings, changes.of_condensations])
def test_other_data_are_refused(part):
    trials = Trials("changes")
    part(trials)
    assert trials.rows()
    assert not wrong(trials)


@pytest.mark.slow
def test_scans_of_other_data_are_refused():
    trials = Trials("changes")
    changes.of_scans(trials)
    assert len(trials.rows()) == 17
    assert not wrong(trials)


# ---- what does not hold is seen --------------------------------------------------------------------------------------


def box(folder, legal):
    job = jobs.Job("box", lambda path: None, "box", lambda state: state["step"])
    return kills.Killed(job, folder, ("end", legal))


def test_a_checkpoint_that_was_never_written_is_seen(tmp_path):
    state = {"kind": "box", "step": 3, "x": torch.zeros(2)}
    run = box(tmp_path, {3: children.digest(state)})
    assert run.on_disk() == ("no checkpoint yet", True)
    save_tensors(run.checkpoint, state)
    assert run.on_disk() == ("a whole checkpoint", True)
    save_tensors(run.checkpoint, state | {"x": torch.tensor([0.0, -0.0])})
    assert run.on_disk() == ("a checkpoint that the run never wrote", False)
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-30])
    assert run.on_disk()[0].startswith("damaged")
    assert not run.on_disk()[1]
    run.checkpoint.unlink()
    assert run.on_disk() == ("no checkpoint yet", False)  # one that was there is gone


def test_a_checkpoint_that_falls_behind_is_seen(tmp_path):
    states = [{"kind": "box", "step": step} for step in range(2)]
    run = box(tmp_path, {state["step"]: children.digest(state) for state in states})
    save_tensors(run.checkpoint, states[1])
    assert run.on_disk()[1]
    save_tensors(run.checkpoint, states[0])
    assert not run.on_disk()[1]


def judged(tmp_path, error=None, before=b"old", same=True, later=lambda: True):
    error = error or OSError(28, "No space left on device", "saved")
    target = tmp_path / "saved"
    return faults._judged(error, faults.PLACES[0], tmp_path, target, before, same, later)


def test_a_loss_is_seen(tmp_path):
    (tmp_path / "saved").write_bytes(b"old")
    assert judged(tmp_path) == ("No space left on device: nothing lost", True)
    assert "the old file changed" in judged(tmp_path, before=b"other")[0]
    assert "memory changed" in judged(tmp_path, same=False)[0]
    assert "later save" in judged(tmp_path, later=lambda: False)[0]
    for error in (OSError("two\nlines"), RuntimeError("of another kind"), OSError("")):
        assert "an unclear error" in judged(tmp_path, error)[0]
    (tmp_path / ".saved.0.part").touch()
    assert judged(tmp_path) == ("No space left on device: a part was left", False)


def test_one_line():
    assert one_line(ValueError("`x` must be 1, got 2."))
    assert not any(map(one_line, (ValueError("a\nb"), ValueError(" "), ValueError("long" * 300))))


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (1, 1.0), ([1], (2,)), ({"a": 1}, {"a": 2}), (torch.zeros(2), torch.zeros(2, 1))]
)
def test_digests_differ(one, other):
    assert children.digest(one) != children.digest(other)
    assert children.digest(one) == children.digest(one)


def fails():
    raise KeyError


def test_work_that_fails_is_told():
    with pytest.raises(RuntimeError, match="fails ended with status 1"):
        children.call(fails)


# ---- the command -----------------------------------------------------------------------------------------------------


def answered(monkeypatch, *outcomes):
    """A command whose parts note the outcomes, in the order of the calls; how often it was asked."""
    asked = []

    def run(part, files, kills, seed, advance):
        trials = Trials(part)
        trials.note(f"{part}: one|two", "kept", right=outcomes[len(asked)])
        trials.note(f"{part}: three", "kept")
        asked.append(part)
        return trials.rows()

    monkeypatch.setattr(command, "run", run)
    return asked


def test_the_exit_status_tells_and_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    asked = answered(monkeypatch, True, False, True)
    words = ["--out", str(tmp_path), "--only"]
    assert CliRunner().invoke(command.app, [*words, "kills"]).exit_code == 0
    result = CliRunner().invoke(command.app, [*words, "kills,faults"])
    assert result.exit_code == 1
    assert "not as it should be: faults, faults: one|two" in result.output
    assert CliRunner().invoke(command.app, [*words, "faults"]).exit_code == 0
    assert asked == ["kills", "faults", "faults"]
    assert json.loads((tmp_path / "faults.json").read_text())["settings"] == {"part": "faults", "seed": 0}
    text = (tmp_path / "table.md").read_text()
    assert r"| kills: one\|two | 1 | kept | 0 |" in text
    assert "| faults | 2 | kept | 0 |" in text
    assert CliRunner().invoke(command.app, [*words, "none"]).exit_code == 2


def test_the_table():
    trials = Trials("races")
    for happened in ("a", "b", "a"):
        trials.note("two writers: one", happened)
    trials.note("two writers: other", "lost", right=False)
    assert markdown(trials.rows()).splitlines()[2:] == ["| two writers | 4 | a (2); b (1); lost (1) | 1 |"]


def test_the_table_of_files():
    def row(loader, damage, **counts):
        zeros = dict.fromkeys(("same", "other", "refused", "failed"), 0) | counts
        return {"loader": loader, "damage": damage, "tried": sum(counts.values()), "failures": [], **zeros}

    rows = [
        row("a", "cut", refused=3) | {"seconds": 0.12, "mebibytes": 7.0},
        row("a", "flipped", same=1, refused=1, other=1) | {"seconds": 0.1, "mebibytes": 900.4},
        row("b", "cut", failed=2) | {"seconds": 9.0, "mebibytes": 1.0},
    ]
    common = [command.common_form(row) for row in rows]
    assert [row["wrong"] for row in common] == [0, 0, 2]
    assert common[1]["happened"] == {"refused in one line": 1, "read as it was": 1, "read": 1}
    assert markdown(common).splitlines()[2:] == [
        "| a | 6 | 4 | 1 | 1 | 0 | 0.1 | 900 |",
        "| b | 2 | 0 | 0 | 0 | 2 | 9.0 | 1 |",
        "| all | 8 | 4 | 1 | 1 | 2 | 9.0 | 900 |",
    ]


def test_places_that_cannot_be_made_are_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(places.os, "geteuid", lambda: 1)
    happened, right = faults.save_in(tmp_path, faults.PLACES[1], "CSV tables", 0.0)
    assert (happened, right) == ("left out: only root on Linux may mount", True)
