"""A codec is made ready on the device and backend that fit, and no backend works before the parity gate has let it through."""

from __future__ import annotations

import logging
import shutil

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from engine.config import Backend, Precision
from engine.encode import backends
from engine.encode import compile as preparing
from engine.encode.codec import Codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec
from engine.encode.compile import prepare
from engine.encode.inductor import compile_inductor
from engine.encode.parity import Difference, measure_parity, probe_latents, probe_pixels
from engine.errors import BackendError
from engine.networks.convnext import ConvNextEncoder, ConvNextSettings
from engine.networks.pca import PcaGenerator, PcaSettings
from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.recipe import PixelRecipe

SIZE = 32
CODE = (1, 16)


class MixesImages(nn.Module):
    """An encoder that looks at the whole batch, as a layer with batch statistics does that was left in training mode."""

    def forward(self, pixels: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(pixels, 4).reshape(len(pixels), *CODE)
        return pooled - pooled.mean(0)


def make_codec(encoder: nn.Module | None, *, generator: nn.Module | None = None) -> Codec:
    spec = CodecSpec(
        name="tiny",
        encoder=None if encoder is None else NetworkSpec(weights="e.safetensors", network="convnext", settings={}),
        generator=NetworkSpec(weights="g.safetensors", network="pggan", settings={}),
        code=CodeSpec(dims=("layer", "channel"), shape=CODE, gauge="sphere"),
        recipe=PixelRecipe(resolution=SIZE),
    )
    generator = generator or PgganGenerator(PgganSettings(channels=(8, 8, 8, 4), code_size=16))
    return Codec(spec, encoder=encoder, generator=generator, mean=torch.ones(CODE), digest="0" * 64)


@pytest.fixture
def codec() -> Codec:
    torch.manual_seed(0)
    return make_codec(ConvNextEncoder(ConvNextSettings(depths=(1, 1), widths=(8, 16), code_size=16)))


def pixels(count: int) -> Tensor:
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_eager_on_a_cpu_is_the_codec_itself(codec: Codec) -> None:
    ready = prepare(codec, backend="auto", precision="auto", batch_size=4, device="cpu")
    assert (ready.backend, ready.precision, ready.device.type, ready.batch_size) == ("eager", "fp32", "cpu", 4)
    assert "eager" not in ready.parity["encode"]  # the very network
    assert ready.parity["generate"]["eager"]["relative"] < 1e-5  # another form of it
    films = pixels(6)  # more than a batch
    codes = ready.encode(films)
    torch.testing.assert_close(codes, codec.encode(films))
    assert Difference.between(ready.generate(codes), codec.generate(codes)).relative < 1e-5
    assert not codes.requires_grad
    with torch.inference_mode():
        assert not ready.encode(films).is_inference()  # so that refinement can start from it
    assert ready.encode(films[:0]).shape == (0, *CODE)


def test_where_eager_is_the_codec_itself_nothing_is_compared() -> None:
    codec = make_codec(None, generator=PcaGenerator(PcaSettings(resolution=SIZE, components=16)))
    ready = prepare(codec, backend="auto", precision="auto", batch_size=4, device="cpu")
    assert (ready.backend, ready.precision) == ("eager", "fp32")
    assert "skipped" in ready.parity
    codes = torch.randn(3, *CODE)
    assert torch.equal(ready.generate(codes), codec.generate(codes))


def test_half_precision_passes_the_gate_and_gives_float32_on_the_gauge(codec: Codec) -> None:
    ready = prepare(codec, backend="eager", precision="bf16", batch_size=3, device="cpu")
    assert ready.precision == "bf16"
    assert set(ready.parity) == {"encode", "generate"}
    assert 0 < ready.parity["encode"]["eager"]["relative"] <= ready.parity["encode"]["limit"]
    codes = ready.encode(pixels(3))
    assert codes.dtype == ready.generate(codes).dtype == torch.float32
    torch.testing.assert_close(codes.square().mean(-1), torch.ones(3, 1))


def test_codec_without_encoder_starts_from_its_mean_code() -> None:
    ready = prepare(make_codec(None), backend="eager", precision="bf16", batch_size=2, device="cpu")
    assert torch.equal(ready.encode(pixels(3)), torch.ones(3, *CODE))
    assert set(ready.parity) == {"generate"}


def test_without_films_the_generator_is_neither_built_nor_judged(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "frozen_generator", None)
    ready = prepare(codec, backend="eager", precision="bf16", batch_size=3, device="cpu", makes_films=False)
    assert set(ready.parity) == {"encode"}
    assert ready.encode(pixels(3)).shape == (3, *CODE)
    with pytest.raises(RuntimeError, match="prepared to make no films"):
        ready.generate(torch.zeros(1, *CODE))


@pytest.mark.parametrize("batch_size", [2, 4])
def test_a_network_that_mixes_images_is_refused_with_its_figures(batch_size: int) -> None:
    with pytest.raises(BackendError, match=r"eager bf16 fails the parity gate.*encode stage: .*batch_of_one \d.* \(limit 0.05\)"):
        prepare(make_codec(MixesImages()), backend="eager", precision="bf16", batch_size=batch_size, device="cpu")


class MixesInHalf(MixesImages):
    """Right in float32, and mixed up in half precision."""

    def forward(self, pixels: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            return super().forward(pixels)
        return nn.functional.adaptive_avg_pool2d(pixels, 4).reshape(len(pixels), *CODE)


def test_refused_choice_is_logged_and_the_next_one_taken(caplog: pytest.LogCaptureFixture) -> None:
    options = [("eager", "bf16"), ("eager", "fp32"), ("eager", "fp16")]
    with caplog.at_level(logging.WARNING):
        ready = preparing._first_accepted(make_codec(MixesInHalf()), options, batch_size=4)
    assert (ready.backend, ready.precision, ready.fallbacks) == ("eager", "fp32", (("eager", "fp16"),))
    assert "batch_of_one" in caplog.text
    assert "taking eager fp32 instead" in caplog.text


def test_order_of_choices_on_a_cpu(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(of: Codec, backend: Backend, precision: Precision, gigaflops: float = 0) -> list[tuple[str, str]]:
        return backends.choices(of, backend, precision, gigaflops=gigaflops)

    much = backends.COMPILING_PAYS_GFLOP
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert ask(codec, "auto", "auto") == [("eager", "fp32")]  # half precision gains nothing in a network as small as this
    assert ask(codec, "auto", "auto", much) == [("inductor", "fp32"), ("eager", "fp32")]
    assert ask(codec, "auto", "bf16", much) == [("inductor", "bf16"), ("eager", "bf16")]
    assert ask(codec, "inductor", "auto") == [("inductor", "fp32")]
    heavy = make_codec(None, generator=PgganGenerator(PgganSettings(channels=(256, 256, 256, 128), code_size=16)))
    assert ask(heavy, "auto", "auto", much) == [("inductor", "bf16"), ("eager", "bf16"), ("inductor", "fp32"), ("eager", "fp32")]
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert ask(heavy, "auto", "auto") == [("eager", "fp32")]


@pytest.mark.gpu
def test_order_of_choices_on_a_gpu(codec: Codec) -> None:
    codec.to("cuda")
    found = backends.choices(codec, "auto", "auto", gigaflops=0)
    assert [choice for choice in found if choice[0] != "tensorrt"] == [
        *(("inductor", "bf16"), ("cudagraphs", "bf16"), ("eager", "bf16")),
        *(("inductor", "fp32"), ("cudagraphs", "fp32"), ("eager", "fp32")),
    ]
    assert backends.choices(codec, "inductor", "fp16", gigaflops=0) == [("inductor", "fp16")]


def test_backends_that_are_not_here_are_refused_before_anything_is_made() -> None:
    for backend in ("auto", "eager", "inductor"):
        backends.check_backend(backend)  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="cudagraphs needs a CUDA device"):
            backends.check_backend("cudagraphs")
        with pytest.raises(BackendError, match="tensorrt"):
            backends.check_backend("tensorrt")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"device": "abacus"}, "cpu, cuda or cuda:N: abacus"),
        ({"device": "meta"}, "cpu, cuda or cuda:N: meta"),
        ({"device": "cuda:99"}, "no such GPU here .*: cuda:99"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(codec: Codec, settings: dict[str, str], says: str) -> None:
    asked = {"backend": "auto", "precision": "auto", "device": "cpu"} | settings
    with pytest.raises(BackendError, match=says) as caught:
        prepare(codec, **asked, batch_size=2)
    assert "\n" not in str(caught.value)


def test_inductor_without_a_compiler_says_so(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError, match=r"C\+\+ compiler.*: no-such-compiler"):
        prepare(codec, backend="inductor", precision="auto", batch_size=2, device="cpu")


def ignores_all_but_the_first(rows: Tensor) -> Tensor:
    """The defect seen in the field: right for one image, and the same result four times for four images."""
    return rows.square()[:1].expand_as(rows)


def shifts_with_the_batch(rows: Tensor) -> Tensor:
    return rows.square() + 0.1 * len(rows)


def depends_on_the_position(rows: Tensor) -> Tensor:
    return rows.square() * (1 + torch.arange(len(rows)).reshape(-1, 1) / 100)


def loses_digits(rows: Tensor) -> Tensor:
    return rows.bfloat16().square().float()


def makes_a_nan(rows: Tensor) -> Tensor:
    return rows.square().index_fill(0, torch.tensor([len(rows) - 1]), torch.nan)


def make_probe(batch_size: int) -> Tensor:
    rows = torch.randn(batch_size, 7, generator=torch.Generator().manual_seed(0))
    rows[-1] = rows[0]
    return rows


@pytest.mark.parametrize(
    ("stage", "caught_by"),
    [
        (ignores_all_but_the_first, {"eager", "permuted_batch"}),
        (shifts_with_the_batch, {"eager", "batch_of_one"}),
        (depends_on_the_position, {"eager", "identical_rows", "permuted_batch"}),
        (loses_digits, {"eager"}),
        (makes_a_nan, {"eager", "identical_rows", "batch_of_one", "permuted_batch"}),
    ],
)
def test_gate_catches_a_wrong_backend(stage: preparing.Stage, caught_by: set[str]) -> None:
    probe = make_probe(8)
    parity = measure_parity(stage, torch.square, probe, precision="fp32")
    failed = {fault.split()[0] for fault in parity.faults()}
    assert failed == caught_by
    assert measure_parity(torch.square, torch.square, probe, precision="fp32").faults() == []


@pytest.mark.parametrize("batch_size", [8, 16])
def test_gate_catches_films_that_change_places(batch_size: int) -> None:
    def moves_by_four(rows: Tensor) -> Tensor:
        return rows.square().roll(-4, 0) if len(rows) == batch_size else rows.square()

    parity = measure_parity(moves_by_four, torch.square, make_probe(batch_size), precision="bf16")
    assert "eager" in {fault.split()[0] for fault in parity.faults()}


def test_without_a_reference_the_batch_is_still_checked() -> None:
    probe = make_probe(8)
    assert set(measure_parity(torch.square, None, probe, precision="fp32").checks) == {"identical_rows", "batch_of_one", "permuted_batch"}
    assert measure_parity(torch.square, None, probe, precision="fp32").faults() == []
    assert measure_parity(depends_on_the_position, None, probe, precision="fp32").faults() != []


def test_fp32_is_not_tf32_and_leaves_the_setting_as_it_was() -> None:
    seen: list[tuple[bool, bool]] = []

    class Looks(MixesInHalf):
        def forward(self, pixels: Tensor) -> Tensor:
            if not isinstance(pixels, FakeTensor):  # with which operations are counted, and nothing is computed
                seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            return super().forward(pixels)

    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    assert before[0]  # torch's own default, which would make this test mean nothing were it to change
    prepare(make_codec(Looks()), backend="eager", precision="fp32", batch_size=4, device="cpu").encode(pixels(2))
    assert set(seen) == {(False, False)}
    seen.clear()
    with pytest.raises(BackendError):
        prepare(make_codec(Looks()), backend="eager", precision="bf16", batch_size=2, device="cpu")
    assert seen[:2] == [before, (False, False)]  # the stage in bf16, then its reference
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


@pytest.mark.gpu
def test_eager_fp32_on_a_gpu_is_checked_and_as_exact_as_a_cpu(codec: Codec) -> None:
    films = pixels(4)
    expected = codec.encode(films)
    ready = prepare(codec, backend="eager", precision="fp32", batch_size=4, device="cuda")
    assert set(ready.parity["encode"]) == {"limit", "identical_rows", "batch_of_one", "permuted_batch"}
    assert Difference.between(ready.encode(films).cpu(), expected).relative < 5e-5


def test_a_difference_in_one_row_is_not_averaged_away() -> None:
    expected = torch.ones(100, 50)
    rows = expected.clone()
    rows[73] *= 1.5
    assert Difference.between(rows, expected) == Difference(0.5, pytest.approx(0.5))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_rows_of_a_probe_differ_but_for_its_ends(codec: Codec, batch_size: int) -> None:
    for probe in (probe_pixels(codec, batch_size), probe_latents(codec, batch_size)):
        assert len(probe) == batch_size
        assert torch.equal(probe[-1], probe[0]) == (batch_size != 2)
        assert len(probe.flatten(1).unique(dim=0)) == (batch_size if batch_size < 3 else batch_size - 1)
    assert probe_pixels(codec, batch_size).abs().max() <= 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_inductor_equals_eager_and_compiles_once(codec: Codec) -> None:
    ready = prepare(codec, backend="inductor", precision="fp32", batch_size=4, device="cpu")
    assert ready.backend == "inductor"
    assert ready.parity["encode"]["eager"]["relative"] < 1e-3
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for count in (1, 3, 4, 9):
        films = pixels(count)
        codes = ready.encode(films.to(memory_format=torch.channels_last))
        torch.testing.assert_close(codes, codec.encode(films), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ready.generate(codes), codec.generate(codes), rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        ready.encode(pixels(2))
    assert ready.encode(pixels(4)[:0]).shape == (0, *CODE)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled


def test_inductor_builds_nothing_before_its_first_call(codec: Codec) -> None:
    assert codec.encoder is not None
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compile_inductor(codec.encoder, batch_size=4, device=torch.device("cpu"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


@pytest.mark.gpu
@pytest.mark.slow
def test_auto_on_a_gpu_is_compiled_half_precision_behind_the_gate(codec: Codec) -> None:
    ready = prepare(codec, backend="auto", precision="auto", batch_size=4)
    assert (ready.device.type, ready.backend, ready.precision) == ("cuda", "inductor", "bf16")
    codes = ready.encode(pixels(3))
    assert codes.device.type == "cuda"
    torch.testing.assert_close(codes, codec.encode(pixels(3)), rtol=0.1, atol=0.1)
