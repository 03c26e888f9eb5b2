"""Studies: run what is missing, once, and keep what they found."""

import csv

from experiments.freeze_or_never import STUDY
from experiments.study import run_study
from tests import runs


def test_every_run_is_made_once_and_recorded(tmp_path, capsys):
    results = tmp_path / "results.csv"
    flags = [f for f in runs.TINY if not f.startswith(("--task", "--preset", "--no_video"))]
    study = [f"--folder={tmp_path}", f"--results={results}", "--seeds", "0", *flags]

    run_study(STUDY, "", [*study, "--jobs=2"])
    with results.open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["method"], r["step"]) for r in rows] == [
        (method, str(step)) for method in ("freeze", "never") for step in (0, 20, 40, 60)
    ]
    assert int(rows[3]["replay_bytes"]) != int(rows[7]["replay_bytes"])  # latents, frames
    assert "--freeze_step=never" in rows[-1]["command"]
    assert "1 of" in rows[0]["hardware"]
    assert rows[0]["commit"]
    assert "never" in capsys.readouterr().out.splitlines()[-1]

    written = results.read_text()
    run_study(STUDY, "", [*study, "--jobs=1"])  # nothing is missing now
    assert results.read_text() == written
