"""The notebooks run from top to bottom, at small scale."""

import pathlib

import nbclient
import nbformat
import pytest
import runs

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"
# Theirs say which task.
FLAGS = runs.tiny_without("--task", "--freeze_step", "--no_video")
FREEZE = ["--freeze_step=40"]
SMALL = {
    "quickstart.ipynb": {"TASK": "cartpole_swingup", "FLAGS": FLAGS, "FREEZE": FREEZE},
    "seeds_tpu.ipynb": {"NUM_SEEDS": 2, "FLAGS": [*FLAGS, *FREEZE]},
}


def test_every_notebook_is_run():
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_what_a_reader_may_change_is_in_one_cell(name):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    (parameters,) = _parameters(notebook)
    assert all(f"\n{variable} = " in parameters.source for variable in SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    (parameters,) = _parameters(notebook)
    lines = [f"{variable} = {value!r}" for variable, value in SMALL[name].items()]
    parameters.source += "\n" + "\n".join(lines)
    # Its folder is elsewhere, as of a package that is installed; experiments/ comes by a link.
    for folder in ("seer_jax", "experiments", "benchmarks"):
        (tmp_path / folder).symlink_to(NOTEBOOKS.parent / folder)
    resources = {"metadata": {"path": str(tmp_path)}}

    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "latents" in text  # it froze
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert "image/png" in shown  # the curves
    assert any("video/mp4" in str(output) for output in outputs)


def _parameters(notebook):
    return [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
