"""Every benchmark runs from beginning to end and writes records with what they depend on."""

import json
import subprocess
import sys

import pytest

from benchmarks import conv, env, growth, loop, memory, replay, tpu, update

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("module", "arguments", "names"),
    [
        (update, ["--agent=curl_sac", "--repeats=1"], ["update/pixels", "act/latents"]),
        (update, ["--agent=rainbow", "--repeats=1"], ["update/pixels", "act/latents"]),
        (
            loop,
            ["--preset=quick", "--repeats=1", "--passes=2"],
            [
                f"{part}/{phase}/1"
                for phase in ("pixels", "latents")
                for part in ("loop", "simulate", "learn", "act")
            ],
        ),
        (loop, ["--task=Pong", "--num_envs", "2", "--repeats=1", "--passes=2"], ["loop/latents/2"]),
        (env, ["--tasks", "cartpole_swingup", "--repeats=1"], ["cartpole_swingup/frame/fast"]),
        (
            replay,
            ["--agents", "curl_sac", "--rows=100", "--repeats=6"],
            ["curl_sac/pixels/add", "curl_sac/latents/prioritised"],
        ),
        (conv, ["--repeats=1"], ["paper 1/forward", "quick 2/weights", "quick 2/weights/xla"]),
        (growth, ["--axes", "num_seeds", "--repeats=1"], ["num_seeds/8/latents"]),
        (memory, ["--rows=600"], ["memory/pixels", "memory/freeze", "memory/latents"]),
    ],
)
def test_it_writes_its_records(tmp_path, module, arguments, names):
    if "--task=Pong" in arguments:
        pytest.importorskip("envpool")
    # In a process of its own, as a user does: what others leave there would change its memory.
    command = [sys.executable, "-m", module.__name__, *arguments, f"--json={tmp_path}/records.json"]
    subprocess.run(command, check=True)
    written = json.loads((tmp_path / "records.json").read_text())
    assert written["machine"]["commit"]
    assert arguments[0] in written["command"]
    records = {record["name"]: record for record in written["records"]}
    assert set(names) <= set(records)
    assert all(record["value"] > 0 for record in records.values())


def test_no_program_of_a_tpu_copies_replay(tmp_path):
    pytest.importorskip("envpool")
    pytest.importorskip("libtpu", reason="the extra `tpu` has its compiler; no TPU is needed")
    tpu.main([f"--json={tmp_path}/tpu.json"])  # walker_walk and Alien, by `paper`
    several = ["--tasks", "cartpole_swingup", "--num_seeds=2", "--latent_dtype=int8"]
    tpu.main([*several, f"--json={tmp_path}/several.json"])
    files = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    records = [record for file in files for record in file["records"]]
    assert len(records) == 15
    for record in records:  # arguments are replay for the most part
        assert 0 < record["value"] and record["temporary_bytes"] < record["argument_bytes"] / 4, (
            record
        )
