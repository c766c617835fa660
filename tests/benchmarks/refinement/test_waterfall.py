"""Steps technique by technique: each finds the same gradient and goes down."""

from __future__ import annotations

from benchmarks.refinement.waterfall import ON_CPU, PUBLISHED, measure


def test_techniques_take_the_same_steps_and_what_needs_a_gpu_is_left_out() -> None:
    names = [*ON_CPU[:4], "or CUDA graphs"]
    found = measure(channels=[16, 8, 8], batch=2, repeats=4, names=names, device="cpu")
    assert "needs a CUDA device" in found["unavailable"]["or CUDA graphs"]
    assert {name: len(rates) for name, rates in found["rates"].items()} == dict.fromkeys(ON_CPU[:4], 4)
    for name in ON_CPU[:3]:
        assert found["difference"][name] < 1e-4
    assert found["difference"]["+ bf16"] < 0.2
    for name in ON_CPU[:4]:
        assert all(loss < start for loss, start in zip(found["loss"][name], found["start"], strict=True))
        assert abs(sum(found["loss"][name]) / sum(found["loss"][PUBLISHED]) - 1) < 0.3
