"""The curve of a made-up run: what is read is what was logged, and a picture comes out."""

import pytest

from experiments import plot_run
from seer_jax import logger


def make_run(logdir, freeze_step=None, gain=2.0):
    with logger.Logger(logdir, action_repeat=4, num_steps=300, progress=False) as log:
        for step in (0, 100, 200, 300):
            if step == freeze_step:
                log.write(step, {"freeze/step": step})
            log.write_eval(
                step,
                **{"return": gain * step, "return_std": 20.0, "episodes": 10, "flops": 1e9},
                **{"replay_bytes": 10, "hours": step / 1000, "phase": "pixels"},
            )


def test_curves_and_freeze_are_read_and_drawn(tmp_path):
    make_run(tmp_path / "seer", freeze_step=200)
    make_run(tmp_path / "curl")
    with (tmp_path / "seer" / "eval.csv").open("a") as file:
        file.write("400,1600,80")  # a row being written

    curve = plot_run.read_curve(tmp_path / "seer")
    assert curve.label == "seer" and curve.freeze_env_step == 800
    assert curve.env_step.tolist() == [0, 400, 800, 1200]
    assert curve.hours.tolist() == [0, 0.1, 0.2, 0.3]
    assert curve.mean.tolist() == [0, 200, 400, 600]
    other = plot_run.read_curve(tmp_path / "curl")
    assert other.freeze_env_step is None

    by_step, by_hours = plot_run.draw([curve, other]).axes
    markers = lambda axes: [
        tuple(point)
        for line in axes.lines
        if line.get_marker() == "D"
        for point in line.get_xydata()
    ]
    assert markers(by_step) == [(800, 400)]
    assert markers(by_hours) == [(0.2, 400)]
    band = by_step.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (-20, 620)  # the spread over episodes, at either end
    texts = [text.get_text() for text in by_step.get_legend().get_texts()]
    assert texts == ["seer", "curl", "encoder frozen"]


def test_several_seeds_are_one_curve(tmp_path):
    """As far as all have got."""
    make_run(tmp_path / "runs" / "seed9", freeze_step=200, gain=1.0)
    make_run(tmp_path / "runs" / "seed10", freeze_step=200, gain=3.0)
    evals = tmp_path / "runs" / "seed10" / "eval.csv"
    evals.write_text("".join(evals.read_text().splitlines(keepends=True)[:-1]))
    curve = plot_run.read_curve(tmp_path / "runs")
    assert curve.label == "runs (2 seeds)" and curve.freeze_env_step == 800
    assert curve.env_step.tolist() == [0, 400, 800]
    assert curve.mean.tolist() == [0, 200, 400] and curve.std.tolist() == [0, 100, 200]


def test_command_writes_the_picture_into_the_run_folder(tmp_path, capsys):
    make_run(tmp_path / "seer", freeze_step=100)
    plot_run.main([str(tmp_path / "seer")])
    assert (tmp_path / "seer" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "curve.png" in capsys.readouterr().out


def test_a_folder_without_evaluations_is_a_plain_message(tmp_path, capsys):
    with pytest.raises(SystemExit):
        plot_run.main([str(tmp_path)])
    assert "has no evaluation to draw" in capsys.readouterr().err
