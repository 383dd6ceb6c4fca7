"""``benchmarks.scale``: each measurement at a small size, and the tables from its files."""

import json

import pytest
import torch
import typer

from benchmarks.scale import cells as scale_cells
from benchmarks.scale import experiment as scale

CLASSES, SAMPLES = 5, 3000


@pytest.fixture(autouse=True)
def small_pool(monkeypatch):
    """Logits enough for these samples."""
    monkeypatch.setattr(scale_cells, "POOL", 20_000)


def test_samples_are_the_same_whatever_the_batch():
    source = scale_cells.Simulated(CLASSES)
    rows = torch.arange(SAMPLES)
    logits, given = source.batch(rows)
    assert torch.equal(logits[100:200], source.batch(rows[100:200])[0])
    assert torch.equal(given, source.labels(rows))
    assert 0.1 < (logits.argmax(1) != given).float().mean() < 0.5


@pytest.mark.parametrize("place", scale.PLACES)
def test_records_in_all_places_name_as_many_suspects(place, tmp_path):
    found = scale_cells.storage(SAMPLES, CLASSES, place, str(tmp_path))
    assert found["suspects"] == round(SAMPLES * scale_cells.NOISE)
    assert found["rows_a_second"] == pytest.approx(SAMPLES / found["seconds_an_epoch"])
    assert not list(tmp_path.iterdir())


def test_a_stream_is_written_and_summed_up(tmp_path):
    pytest.importorskip("duckdb")
    folder, out = tmp_path / "stream", tmp_path / "out.parquet"
    written = scale_cells.streamed(SAMPLES, CLASSES, str(folder))
    assert written["bytes_a_row"] == scale_cells.folder_bytes(folder) / SAMPLES > 1
    assert scale_cells.summed(str(folder), str(out))["suspects"] == round(SAMPLES * scale_cells.NOISE)


def test_the_summary_names_the_suspects_of_the_callback(tmp_path):
    pytest.importorskip("duckdb")
    scale_cells.streamed(SAMPLES, CLASSES, str(tmp_path / "stream"), epochs=2)
    found = scale_cells.same(SAMPLES, CLASSES, str(tmp_path / "stream"), str(tmp_path / "out.parquet"))
    assert found["suspects by known rate"] == round(SAMPLES * scale_cells.NOISE)
    assert found["suspects by mixture"] > 0
    assert found["not the same by known rate"] == found["not the same by mixture"] == 0


@pytest.mark.slow
def test_ranks_share_the_rows(tmp_path):
    alone, two = (scale_cells.ranks(SAMPLES, CLASSES, count, "aum", str(tmp_path)) for count in (1, 2))
    assert alone["collectives"] == 0 < two["collectives"]
    assert 0 < two["seconds_in_collectives"] < two["seconds_an_epoch"]


def test_memory_of_a_block_is_seen():
    with scale_cells.watched() as memory:
        held = torch.ones(2**24)
    assert held.nbytes * 0.9 < memory.own < memory.process


def test_cells_done_are_not_done_again(tmp_path, monkeypatch, capsys):
    calls = []

    def measured(table, settings, scratch):
        calls.append(settings)
        return {"rows_a_second": 2_500_000.0, "peak_own_bytes": 3_000_000, "seconds": 0.125}

    monkeypatch.setattr(scale, "compute", measured)
    for _ in range(2):
        scale.main("storage", "1e3,2000", "7", out=tmp_path)
    assert len(calls) == 6
    assert json.loads((tmp_path / "storage-1e+03-7-cpu.json").read_text())["settings"]["samples"] == 1000
    text = (tmp_path / "tables.md").read_text()
    assert text.count("| 2,500,000 | 3 | 0.125 |") == 6
    assert text.strip() in capsys.readouterr().out


@pytest.mark.parametrize("bad", ["0", "many", "1e3,,", "-5"])
def test_numbers_that_are_none(bad, tmp_path):
    with pytest.raises(typer.BadParameter, match="must be whole numbers above 0"):
        scale.main("machine", bad, "7", out=tmp_path)


def test_tables_that_are_none(tmp_path):
    with pytest.raises(typer.BadParameter, match="must be among machine, streams"):
        scale.main("clouds", out=tmp_path)
