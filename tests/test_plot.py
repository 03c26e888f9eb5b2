"""The figure and the summary of a study whose numbers are made up."""

import csv

import numpy as np
import pytest

from experiments import plot, scores, study
from seer_jax.types import UserError


def write_results(path, finals, task="walker_walk"):
    """Two evaluations for each run: 0 and then its final return; `freeze` froze between them."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, study.COLUMNS, restval="")
        writer.writeheader()
        for method, returns in finals.items():
            for seed, final in enumerate(returns):
                for step, value in ((0, 0.0), (100, final)):
                    small = method == "freeze" and step
                    writer.writerow(
                        {"method": method, "task": task, "seed": seed, "step": step}
                        | {"env_step": 2 * step, "return": value, "flops": step * 1e9}
                        | {"replay_bytes": 10 if small else 100, "hours": step / 6000}
                        | {"return_std": 0}
                    )


def test_curves_are_as_long_as_the_shortest_run(tmp_path):
    write_results(tmp_path / "results.csv", {"freeze": [300, 500], "never": [400]})
    rows = study.read(tmp_path / "results.csv")
    found = plot.curves(rows, "walker_walk", "freeze")
    assert found.returns.tolist() == [[0, 300], [0, 500]] and found.frozen == [1]
    assert found.x["env_step"].tolist() == [[0, 200]] * 2
    assert found.x["minutes"].tolist() == [[0, 1]] * 2
    assert plot.curves(rows, "walker_walk", "never").frozen == []
    assert plot.curves(rows[:3], "walker_walk", "freeze").returns.shape == (2, 1)


def test_a_freeze_of_any_seed_is_marked():
    """Seeds that freeze by themselves do at different steps, or never."""
    held = {"0": (9, 9, 4), "1": (9, 5, 5), "2": (9, 9, 9)}
    rest = dict.fromkeys(("return", "env_step", "flops", "hours"), "0")
    rows = [
        {"task": "Alien", "method": "auto", "seed": seed, "step": str(step)}
        | {**rest, "replay_bytes": str(size)}
        for seed, sizes in held.items()
        for step, size in enumerate(sizes)
    ]
    assert plot.curves(rows, "Alien", "auto").frozen == [1, 2]
    longer = [row | {"command": "python -m seer_jax.run --freeze_step=never"} for row in rows]
    assert plot.curves(longer, "Alien", "auto").frozen == []
    at_once = [row | {"command": "python -m seer_jax.run --freeze_step=0"} for row in rows[6:]]
    assert plot.curves(at_once, "Alien", "auto").frozen == [0]


def test_seeds_that_were_evaluated_at_different_steps_have_no_mean(tmp_path):
    write_results(tmp_path / "results.csv", {"never": [300, 500]})
    rows = study.read(tmp_path / "results.csv")
    rows[-1]["env_step"] = "100"
    with pytest.raises(UserError, match="evaluated at different steps"):
        plot.curves(rows, "walker_walk", "never")


def test_the_line_is_the_mean_and_the_band_95_percent(tmp_path):
    write_results(tmp_path / "results.csv", {"never": [100, 200, 600]})
    axes = plot.draw(study.read(tmp_path / "results.csv")).axes[0]
    (mean,) = (line for line in axes.lines if line.get_linewidth() == 2)
    assert mean.get_ydata().tolist() == [0, 300]
    x = np.random.default_rng(1).normal(size=400)
    low, high = plot.interval((x,), lambda x, axis: np.mean(x, axis=axis))
    np.testing.assert_allclose([x.mean() - low, high - x.mean()], 1.96 * x.std() / 20, rtol=0.1)


def test_a_diamond_lies_on_the_mean_and_the_band_has_both_ends(tmp_path):
    write_results(tmp_path / "results.csv", {"freeze": [100, 200, 600]})
    axes = plot.draw(study.read(tmp_path / "results.csv")).axes[0]
    (diamond,) = (line for line in axes.lines if line.get_marker() == "D" and len(line.get_xdata()))
    assert (diamond.get_xdata().tolist(), diamond.get_ydata().tolist()) == ([200], [300])
    (band,) = axes.collections
    ends = band.get_paths()[0].vertices
    assert (ends[:, 1].min(), ends[:, 1].max()) == (0, 600)
    assert {tuple(end) for end in ends} >= {(200, 100), (200, 600)}


def test_a_published_curve_is_drawn_to_its_full_height(tmp_path, capsys):
    write_results(tmp_path / "walk.csv", {"freeze": [20]})
    rows = study.read(tmp_path / "walk.csv")
    longer = [row | {"env_step": str(2_000 * int(row["env_step"]))} for row in rows]
    axes = plot.draw(longer, ["drqv2"], ["env_step", "flops"]).axes
    steps, mean = plot.read_published("drqv2", "walker_walk", 400_000)
    assert mean.max() > 300 and axes[0].get_ylim()[1] >= mean.max()
    dashed = [[line for line in each.lines if line.get_linestyle() == "--"] for each in axes]
    assert list(map(len, dashed)) == [1, 0]
    np.testing.assert_array_equal(dashed[0][0].get_xydata(), np.transpose([steps, mean]))
    with pytest.raises(SystemExit, match="2"):
        plot.main([f"{tmp_path}/walk.csv", "--published", "curl", "--against", "flops"])
    assert "against environment steps" in capsys.readouterr().err


def test_a_published_curve_is_the_mean_over_its_seeds():
    rows = [
        float(row["return"])
        for row in study.read(plot.PUBLISHED)
        if (row["method"], row["task"]) == ("curl", "walker_walk") and row["env_step"] == "0"
    ]
    _, mean = plot.read_published("curl", "walker_walk", last=0)
    assert len(rows) > 3 and min(rows) < mean[0] < max(rows)
    assert mean.tolist() == [pytest.approx(sum(rows) / len(rows))]


def test_returns_are_normalised():
    assert plot.normalised("walker_walk", np.array([500.0])) == [0.5]
    assert plot.normalised("Breakout", np.array([1.7, 30.5])) == pytest.approx([0, 1])


def test_statistics_by_hand():
    few, many = np.array([1.0, 2, 3, 100]), np.array([2.0, 4])
    assert plot.interquartile_mean(few, axis=-1) == 2.5
    assert plot.interquartile_mean(few, np.array([-50.0, 2, 2, 2]), axis=-1) == 2
    # Two tasks with the same weight: of the middle half, a run of the one counts like two.
    assert plot.interquartile_mean(np.array([1.0, 3]), np.array([0.0, 2, 4, 9]), axis=-1) == 2.25
    # Of eight pairs 3 beats 2, and 100 beats both; 2 and 2 are a tie.
    assert plot.improvement(few, many, axis=-1) == 3.5 / 8
    # With another task, of which the first method wins every pair.
    both = plot.improvement(few, many, many, -few, axis=-1)
    assert both == (3.5 / 8 + 1) / 2


def test_figure_and_summary(tmp_path, capsys):
    write_results(tmp_path / "walk.csv", {"freeze": [300, 500, 400], "never": [100, 200, 90]})
    write_results(tmp_path / "stand.csv", {"freeze": [900], "never": [800]}, "walker_stand")
    plot.main([f"{tmp_path}/walk.csv", f"--out={tmp_path}/figure.png", "--published", "curl"])
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:4] == ["freeze", "3", "3.00e+11", "0.40"]
    assert lines[3].split()[-4:] == ["1.00", "(1.00", "to", "1.00)"]
    plot.main([f"{tmp_path}/walk.csv", f"--out={tmp_path}/2.png", "--methods", "never", "freeze"])
    assert "P(never better)" in capsys.readouterr().out

    rows = [row for name in ("walk", "stand") for row in study.read(tmp_path / f"{name}.csv")]
    panels = plot.draw(rows, ["curl"]).axes
    assert [axes.get_title(loc="left") for axes in panels[::3]] == ["walker_stand", "walker_walk"]
    assert [axes.get_xlabel() for axes in panels[:3]] == ["environment steps", "FLOPs", "minutes"]
    legend = [text.get_text() for text in panels[3].get_legend().get_texts()]
    assert legend == ["freeze (3 seeds)", "never (3 seeds)", "curl (published)", "encoder frozen"]


def test_returns_are_compared_at_the_last_step_that_all_methods_have_got_to(tmp_path):
    write_results(tmp_path / "walk.csv", {"freeze": [300], "never": [400]})
    rows = study.read(tmp_path / "walk.csv")
    more = [row | {"step": "200", "env_step": "400", "return": "900"} for row in rows[1:2]]
    assert plot.summary(more + rows[2:] + rows[:2])[1].split()[2:4] == ["1.00e+11", "0.30"]


def test_published_curves_begin_with_random_play_and_end_where_ours_do():
    steps, returns = plot.read_published("curl", "walker_walk", last=100_000)
    assert steps[-1] <= 100_000 and len(steps) == len(returns) > 3
    assert returns[0] < 60 < returns[-1] < 1000


def test_without_results_a_plain_message(tmp_path, capsys):
    with pytest.raises(SystemExit):
        plot.main([str(tmp_path / "none.csv")])
    assert "run the study first" in capsys.readouterr().err


def test_what_cannot_be_drawn_is_a_plain_message(tmp_path, capsys):
    write_results(tmp_path / "walk.csv", {"freeze": [300]})
    write_results(tmp_path / "pong.csv", {"freeze": [3]}, "Skiing")
    write_results(tmp_path / "other.csv", {"never": [300]}, "walker_stand")
    (tmp_path / "layers.csv").write_text("layer,seed,step,cka\nconv0,0,0,1.0\n")
    for files, message in (
        (["walk", "layers"], "layers.csv does not hold evaluations"),
        (["walk", "walk"], "the same seed"),
        (["walk", "none"], "none.csv: run the study first"),
    ):
        with pytest.raises(SystemExit):
            plot.main([f"{tmp_path}/{name}.csv" for name in files])
        assert message in capsys.readouterr().err
    for files, message in (
        (["walk", "other"], "no task that all"),
        (["pong"], "no scores to normalise"),
    ):
        figure = tmp_path / f"{files[-1]}.png"
        plot.main([*(f"{tmp_path}/{name}.csv" for name in files), f"--out={figure}"])
        assert message in capsys.readouterr().out and figure.exists()
    with pytest.raises(SystemExit):
        plot.main([f"{tmp_path}/walk.csv", "--methods", "freeze", "nevr"])
    assert "no runs of nevr; there are freeze" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        plot.main([f"{tmp_path}/pong.csv", "--published", "curl"])
    assert "no curve of curl on Skiing" in capsys.readouterr().err


def test_scores_of_atari_beside_published_ones(tmp_path, capsys):
    write_results(tmp_path / "krull.csv", {"freeze": [2_000, 3_000], "never": [2_665.5]}, "Krull")
    write_results(tmp_path / "boxing.csv", {"never": [12.1]}, "Boxing")
    write_results(tmp_path / "walk.csv", {"never": [400]})
    scores.main([f"{tmp_path}/{name}.csv" for name in ("krull", "boxing", "walk")])
    found = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    # Two evaluations each, at first 0: their mean is half of the score. Of four, three count.
    assert [row[1:6] for row in found] == [
        ["never", "12", "12", "6", "1.00"],
        ["freeze", "2,000 3,000", "2,500", "1,250", "0.84"],
        ["never", "2,666", "2,666", "1,333", "1.00"],
    ]
    assert [row[8] for row in found] == ["", "2,852", "2,852"]  # DER
    assert [row[12].strip("| ") for row in found] == ["", "3,278", "3,278"]  # SEER's own
    assert found[1][9:11] == ["1", "1.0e+11"]
    rows = study.read(tmp_path / "krull.csv")[:2]
    four = [{**rows[1], "step": str(x), "env_step": str(x), "return": str(x)} for x in (1, 3, 4, 8)]
    assert next(scores.rows_of(four))[3:5] == ["8", "5"]
    with pytest.raises(SystemExit, match="2"):
        scores.main([f"{tmp_path}/walk.csv"])
