"""Figures of benchmarks: of one call, and until its result is there."""

import types

import numpy as np

from benchmarks import measure, tpu, update
from seer_jax import presets
from seer_jax.envs.fake import FakeEnv


def test_a_sample_waits_for_its_result(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(measure, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))

    class Later:
        def block_until_ready(self):
            clock.now += 1

    assert measure._time(Later, 2) == 0.5


def test_a_record_is_of_one_call_and_its_quartiles_lie_among_the_samples():
    found = measure.record("x", measure._timing([8, 4]), 2)
    assert (found["value"], found["low"], found["high"]) == (3, 2.5, 3.5)
    found = measure.record("x", measure._timing([4]))
    assert (found["value"], found["low"], found["high"], found["repeats"]) == (4, 4, 4, 1)


def test_an_update_is_timed_in_twos(monkeypatch):
    """One with the actor's step and one without."""
    phase, calls = object.__new__(update.Phase), []
    phase.state, phase.replay, phase.key = types.SimpleNamespace(step=0), None, None
    phase.iteration = np.int32(0)
    learn = lambda state, *rest: (calls.append(rest), (state, None, None))[1]
    phase.functions = types.SimpleNamespace(learn=learn)
    phase.update()

    one = measure.Timing(1.0, 1.0, 1.0, 1)
    monkeypatch.setattr(update, "Phase", lambda *_: types.SimpleNamespace(update=None, act=None))
    monkeypatch.setattr(update, "xla_flops", lambda *_: (1.0, 1.0))
    monkeypatch.setattr(measure, "matmul", lambda _: None)
    monkeypatch.setattr(measure, "interleaved", lambda calls, *_, **__: dict.fromkeys(calls, one))
    spec = FakeEnv(obs_shape=(100, 100, 3), action_shape=(6,)).spec
    records = update.measure_update(presets.for_task("walker_walk", "paper"), spec, 1)
    values = {record["name"]: record["value"] for record in records}
    assert values["update/pixels"] == 1 / len(calls) == 0.5 and values["act/pixels"] == 1


PROGRAM = """HloModule jit_learn, entry_computation_layout={()->f32[]}

%thrice (p: s32[]) -> pred[] {
  %constant.7 = s32[]{:T(128)} constant(3)
  ROOT %lt.1 = pred[] compare(%p, %constant.7), direction=LT
}

%until (p: pred[]) -> pred[] {
  ROOT %not.1 = pred[] not(%p)
}

%body.1 (p: f32[]) -> f32[] {
  ROOT %fusion.1 = f32[] fusion(%p), backend_config={"estimated_cycles":"10"}
}

%forever (p: f32[]) -> f32[] {
  ROOT %fusion.2 = f32[] fusion(%p), backend_config={"estimated_cycles":"100"}
}

%branch (p: f32[]) -> f32[] {
  ROOT %fusion.3 = f32[] fusion(%p), backend_config={"estimated_cycles":"1000"}
}

ENTRY %main.2 () -> f32[] {
  %fusion.4 = f32[] fusion(), backend_config={"estimated_cycles":"1"}
  %while.1 = f32[] while(%x), condition=%thrice, body=%body.1, metadata={op_name="x"}
  %while.2 = f32[] while(%x), condition=%until, body=%forever
  ROOT %conditional = f32[] conditional(%x), branch_computations={%branch, %body.1}
}
"""


def test_cycles_count_a_loop_as_often_as_it_runs():
    assert tpu.cycles(PROGRAM) == 1 + 3 * 10 + 100 + 1000
