"""The tables that the README and docs/performance.md quote come out of the records."""

import json

import pytest

from benchmarks import report


def record(name, value, **more):
    return {"name": name, "unit": "s", "value": value, **more}


def write(path, *records):
    path.write_text(json.dumps({"records": records}))


def test_updates_stand_beside_the_official_code_round_by_round(tmp_path, capsys):
    for number, seconds in ((1, 0.5), (2, 0.7)):
        write(
            tmp_path / f"update_rainbow_{number}.json",
            record("update/pixels", seconds, analytic_flops=1e9),
            {"name": "matmul_peak", "unit": "FLOP/s", "value": 4e9},
        )
    write(
        tmp_path / "update_rainbow_bf16_1.json",  # in another round than the official code
        record("update/pixels", 0.25, analytic_flops=1e9),
        {"name": "matmul_peak", "unit": "FLOP/s", "value": 4e9},
    )
    official = {"seconds": {"rainbow/update/pixels": [1.0, 1.0]}}
    (tmp_path / "official.json").write_text(json.dumps(official))
    report.main([str(tmp_path)])
    out = capsys.readouterr().out
    assert "| rainbow | update/pixels | 600.0 | 1000.0 | 0.50 0.70 | 1.00 | 43% |" in out
    assert "| rainbow_bf16 | update/pixels | 250.0 | 1000.0 | 0.25 | 1.00 | 100% |" in out


def test_a_folder_without_records_of_a_kind_has_no_table_of_it(tmp_path, capsys):
    parts = ("loop", "simulate", "learn", "act")
    write(
        tmp_path / "loop_cartpole.json",
        *(record(f"{part}/latents/1", 0.01, over=0.25) for part in parts),
    )
    report.main([str(tmp_path)])
    out = capsys.readouterr().out
    assert "| cartpole | latents | 1 | 10.0 | 10.0 | 10.0 | 10.0 | 25% | 100 |" in out
    assert "Updates" not in out and "Memory" not in out


def test_growth_has_both_phases_of_a_point_in_a_row(tmp_path, capsys):
    point = "batch_size/32"
    write(
        tmp_path / "growth.json",
        record(f"{point}/pixels", 0.02, analytic_flops=2e9, replay_bytes=2**21),
        record(f"{point}/latents", 0.001, analytic_flops=5e7, replay_bytes=2**20),
    )
    report.main([str(tmp_path)])
    assert "| batch_size | 32 | 20.00 | 1.00 | 100 | 50 | 2.0 | 1.0 |" in capsys.readouterr().out


def test_the_committed_records_make_tables(capsys):
    titles = {
        "update_": "Updates",
        "loop_": "The loop",
        "programs": "Programs",
        "conv": "Convolutions",
        "memory": "Memory",
        "tpu_": "Compiled for a TPU",
    }
    for folder in (x for x in report.RESULTS.iterdir() if x.is_dir()):
        report.main([str(folder)])
        out = capsys.readouterr().out
        for kind, title in titles.items():
            assert (f"## {title}\n" in out) == any(folder.glob(f"{kind}*.json"))


def test_a_folder_without_records_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        report.main([str(tmp_path)])
    err = capsys.readouterr().err
    assert "holds no records; these do:" in err and "epyc-zen5-2cores" in err


def test_replay_has_a_line_for_each_agent_and_phase(tmp_path, capsys):
    operations = ("add", "uniform", "prioritised", "priorities")
    write(
        tmp_path / "replay.json",
        *(record(f"rainbow/latents/{x}", 2e-6, rows=1_000, row_bytes=2_320) for x in operations),
    )
    report.main([str(tmp_path)])
    assert "| rainbow | latents | 1,000 | 2,320 | 2 | 2 | 2 | 2 |" in capsys.readouterr().out


def test_programs_of_a_tpu_are_in_ms_of_its_clock(tmp_path, capsys):
    one = {"temporary_bytes": 2**20, "argument_bytes": 2**30, "unit": "cycles", "value": 3_000_000}
    write(tmp_path / "tpu_paper.json", {"name": "gymnasium:a/B-v0/pixels/update", **one})
    report.main([str(tmp_path)])
    out = capsys.readouterr().out
    assert "| paper | gymnasium:a/B-v0 | pixels | update | 2.00 | 1 | 1,024 |" in out
