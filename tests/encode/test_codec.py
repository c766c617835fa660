"""A codec directory: saved, read back, refused when damaged, and true to its gauge and range."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import engine
from engine.encode.codec import codec_files, load_codec, load_codec_files, save_codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec, WeightsFile, read_spec
from engine.encode.gauge import into_range, project
from engine.encode.mean_code import find_mean_code
from engine.errors import CodecError
from engine.networks.registry import build_network, network_names
from engine.recipe import PixelRecipe

ENCODER = NetworkSpec(
    network="convnext", settings={"depths": [1, 1], "widths": [8, 16], "code_size": 12, "in_channels": 1}, weights="encoder.safetensors"
)
GENERATOR = NetworkSpec(network="pggan", settings={"channels": [16, 8, 8, 4], "code_size": 12}, weights="generator.safetensors")
MEAN = WeightsFile(weights="mean.safetensors")
SPEC = CodecSpec(
    name="tiny",
    encoder=ENCODER,
    generator=GENERATOR,
    code=CodeSpec(dims=("layer", "channel"), shape=(1, 12), gauge="sphere", mean=MEAN),
    recipe=PixelRecipe(resolution=32, square="crop"),
    loss="mse=1,lpips=0.8",
    licence="CC0-1.0",
    provenance={"data": {"kind": "phantom", "films": 3}},
)


def tiny_weights():
    torch.manual_seed(0)
    networks = {
        part.weights: build_network(role, part.network, part.settings) for role, part in (("encoder", ENCODER), ("generator", GENERATOR))
    }
    return {name: net.state_dict() for name, net in networks.items()} | {"mean.safetensors": {"mean": torch.arange(12.0).reshape(1, 12)}}


@pytest.fixture
def saved(tmp_path):
    save_codec(tmp_path / "tiny", SPEC, weights=tiny_weights())
    return tmp_path / "tiny"


@pytest.fixture
def codec(saved):
    return load_codec(saved)


def pca_spec(name="pca"):
    part = NetworkSpec(network="pca", settings={"resolution": 8, "components": 3}, weights="pca.safetensors")
    code = CodeSpec(dims=("layer", "channel"), shape=(1, 3), gauge="none", mean="zero")
    return CodecSpec(name=name, encoder=part, generator=part, code=code, recipe=PixelRecipe(resolution=8))


def pca_weights(dtype=torch.float16):
    basis = torch.linalg.qr(torch.randn(64, 3, generator=torch.Generator().manual_seed(0)))[0].T.contiguous()
    return {"pca.safetensors": {"mean": torch.linspace(-1, 1, 64), "components": basis.to(dtype), "scale": torch.tensor([3.0, 2.0, 1.0])}}


class TestRoundTrip:
    def test_what_was_saved_is_loaded(self, codec, saved):
        assert codec.name == "tiny"
        assert codec.recipe == PixelRecipe(resolution=32, square="crop")
        assert (codec.code_dims, codec.code_shape, codec.gauge) == (("layer", "channel"), (1, 12), "sphere")
        assert codec.has_encoder
        assert codec.loss == "mse=1,lpips=0.8"
        assert codec.spec.provenance == SPEC.provenance
        plain = build_network("generator", GENERATOR.network, GENERATOR.settings).eval()
        plain.load_state_dict(tiny_weights()["generator.safetensors"])
        z = torch.randn(2, 1, 12)
        torch.testing.assert_close(codec.generate(z), plain(z).clamp(-1, 1), rtol=1e-4, atol=1e-4)

    def test_digest_is_that_of_sha256sum_over_the_files(self, codec, saved):
        lines = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(saved.iterdir()))
        assert codec.digest == hashlib.sha256(lines.encode()).hexdigest()

    def test_saving_twice_gives_the_same_bytes(self, saved, tmp_path):
        save_codec(tmp_path / "again", SPEC, weights=tiny_weights())
        assert codec_files(tmp_path / "again") == codec_files(saved)

    def test_embedded_files_give_the_same_codec(self, codec, saved):
        embedded = load_codec_files(codec_files(saved))
        assert embedded.digest == codec.digest
        z = torch.randn(1, 1, 12)
        assert torch.equal(embedded.generate(z), codec.generate(z))

    def test_only_the_codecs_own_files_are_embedded(self, saved):
        (saved / "metrics.jsonl").write_text("{}\n")
        assert set(codec_files(saved)) == {"codec.json", *read_spec((saved / "codec.json").read_bytes()).files()}

    def test_encoder_and_generator_may_share_a_file_and_its_memory(self, tmp_path):
        save_codec(tmp_path / "pca", pca_spec(), weights=pca_weights())
        codec = load_codec(tmp_path / "pca")
        assert len(codec_files(tmp_path / "pca")) == 2
        assert codec.encoder.network.components.data_ptr() == codec.generator.network.components.data_ptr()
        assert codec.encoder.network.components.dtype == torch.float32

    def test_modules_are_frozen(self, codec):
        for module in (codec.encoder, codec.generator):
            assert not module.training
            assert all(p.dtype == torch.float32 and not p.requires_grad for p in module.parameters())


class TestCodesAndFilms:
    def test_encoding_lands_on_the_sphere(self, codec):
        codes = codec.encode(torch.rand(3, 1, 32, 32) * 2 - 1)
        assert codes.shape == (3, 1, 12)
        assert codes.dtype == torch.float32
        torch.testing.assert_close(codes.norm(dim=-1), torch.full((3, 1), math.sqrt(12)))

    @pytest.mark.parametrize("length", [1e-30, 1e-3, 1.0, 1e30])
    def test_sphere_at_any_length(self, length):
        z = torch.randn(2, 1, 512) * length
        on = project(z, "sphere")
        torch.testing.assert_close(on.norm(dim=-1), torch.full((2, 1), math.sqrt(512)))
        torch.testing.assert_close(torch.cosine_similarity(on, z.double() / length, dim=-1), torch.ones(2, 1, dtype=torch.float64))

    def test_zero_has_no_direction_and_stays_finite(self, codec):
        assert torch.equal(project(torch.zeros(1, 1, 12), "sphere"), torch.zeros(1, 1, 12))
        assert codec.generate(torch.zeros(1, 1, 12)).isfinite().all()

    def test_projection_does_not_change_the_film(self, codec):
        z = torch.randn(2, 1, 12)
        films = codec.generate(z)
        torch.testing.assert_close(codec.generate(3.7 * z), films, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(codec.generate(codec.project(z)), films, rtol=1e-4, atol=1e-4)

    def test_no_gauge_leaves_codes_as_they_are(self):
        z = torch.randn(2, 1, 12)
        assert torch.equal(project(z, "none"), z)

    def test_films_do_not_mix(self, codec):
        films = torch.rand(4, 1, 32, 32) * 2 - 1
        torch.testing.assert_close(codec.encode(films)[1:2], codec.encode(films[1:2]), rtol=1e-4, atol=1e-4)
        codes = torch.randn(4, 1, 12)
        torch.testing.assert_close(codec.generate(codes)[1:2], codec.generate(codes[1:2]), rtol=1e-4, atol=1e-4)

    def test_films_are_in_range_and_pull_back_where_they_overshoot(self, tmp_path):
        save_codec(tmp_path / "pca", pca_spec(), weights=pca_weights())
        codec = load_codec(tmp_path / "pca")
        z = torch.full((1, 1, 3), 9.0, requires_grad=True)
        film = codec.generate(z)
        raw = codec.generator.network(z)
        assert film.shape == (1, 1, 8, 8)
        assert raw.detach().abs().max() > 1
        assert torch.equal(film, raw.clamp(-1, 1))
        (gradient,) = torch.autograd.grad(film.sum(), z, retain_graph=True)
        (unclamped,) = torch.autograd.grad(raw.sum(), z)
        assert torch.equal(gradient, unclamped)

    def test_range_works_under_functional_gradients(self):
        x = torch.tensor([-3.0, 0.2, 2.0])
        gradient, value = torch.func.grad_and_value(lambda v: (into_range(v) * torch.tensor([1.0, 2.0, 3.0])).sum())(x)
        assert gradient.tolist() == [1, 2, 3]
        assert value == pytest.approx(-1 + 0.4 + 3)

    def test_wrong_shapes_are_one_clear_line(self, codec):
        with pytest.raises(CodecError, match=r"takes pixels \[N, 1, 32, 32\]: \[2, 1, 16, 16\]"):
            codec.encode(torch.zeros(2, 1, 16, 16))
        with pytest.raises(CodecError, match=r"takes codes \[N, 1, 12\]: \[2, 12\]"):
            codec.generate(torch.zeros(2, 12))


class TestMeanCode:
    def test_stored_mean_on_the_gauge(self, codec):
        mean = codec.mean_latents(3)
        torch.testing.assert_close(mean[2], project(torch.arange(12.0).reshape(1, 12), "sphere"))
        mean[0] = 0
        assert mean[1].abs().max() > 0  # rows do not share memory

    def test_whitened_codes_have_mean_zero(self, tmp_path):
        save_codec(tmp_path / "pca", pca_spec(), weights=pca_weights())
        assert torch.equal(load_codec(tmp_path / "pca").mean_latents(2), torch.zeros(2, 1, 3))

    def test_without_a_mean_and_without_an_encoder(self, tmp_path):
        spec = replace(SPEC, encoder=None, code=replace(SPEC.code, mean=None))
        save_codec(tmp_path / "bare", spec, weights={"generator.safetensors": tiny_weights()["generator.safetensors"]})
        codec = load_codec(tmp_path / "bare")
        assert not codec.has_encoder
        with pytest.raises(CodecError, match="no mean code"):
            codec.mean_latents(1)
        with pytest.raises(CodecError, match="no encoder"):
            codec.encode(torch.zeros(1, 1, 32, 32))

    def test_found_mean_is_the_sample_nearest_the_mean_film(self, codec):
        found = find_mean_code(codec.generate, (1, 12), gauge="sphere", samples=20, batch_size=6, seed=3)
        codes = project(torch.randn(20, 1, 12, generator=torch.Generator().manual_seed(3)), "sphere")
        films = codec.generate(codes).flatten(1)
        nearest = int((films - films.mean(0)).norm(dim=1).argmin())
        torch.testing.assert_close(found, codes[nearest])


def edited(directory, change):
    """codec.json of `directory` after `change(data)`."""
    file = directory / "codec.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


CHANGES = {
    "unknown field": (lambda d: d.update(colour=1), "codec.json has unknown fields: colour"),
    "unknown field in code": (lambda d: d["code"].update(colour=1), "code has unknown fields: colour"),
    "unknown field in a network": (lambda d: d["generator"].update(colour=1), "generator has unknown fields: colour"),
    "unknown field in the recipe": (lambda d: d["recipe"].update(colour=1), "recipe has unknown fields: colour"),
    "missing field": (lambda d: d.pop("recipe"), "codec.json lacks fields: recipe"),
    "no generator": (lambda d: d.update(generator=None), "generator must be a JSON object: None"),
    "other format": (lambda d: d.update(format="zip"), "format must be latentray-codec"),
    "later version": (lambda d: d.update(format_version=2), "version that this release cannot read (it reads 1): 2"),
    "unknown network": (
        lambda d: d["encoder"].update(network="resnet"),
        f"encoder.network must be one of {', '.join(network_names('encoder'))}: resnet",
    ),
    "unknown setting": (lambda d: d["encoder"]["settings"].update(depth=3), "encoder.settings has unknown fields: depth"),
    "other widths": (lambda d: d["generator"]["settings"].update(channels=[16, 8, 8, 5]), "has a tensor of another shape"),
    "fewer blocks": (lambda d: d["encoder"]["settings"].update(depths=[1, 2]), "lacks a tensor that the network needs: features.3.1"),
    "other code size": (lambda d: d["code"].update(shape=[1, 13]), "code.shape is [1, 13], but the encoder has another: [1, 12]"),
    "other resolution": (lambda d: d["recipe"].update(resolution=64), "recipe.resolution is 64, but the generator has another: 32"),
    "upward path": (lambda d: d["generator"].update(weights="../generator.safetensors"), "plain file name that ends in .safetensors"),
    "absolute path": (lambda d: d["generator"].update(weights="/tmp/x.safetensors"), "plain file name that ends in .safetensors"),
    "pickle": (lambda d: d["generator"].update(weights="generator.pt"), "plain file name that ends in .safetensors: generator.pt"),
    "no digest": (lambda d: d["generator"].pop("sha256"), "lacks the sha256 of a weights file: generator"),
    "odd digest": (lambda d: d["generator"].update(sha256="abc"), "must be 64 lower-case hexadecimal digits: abc"),
    "missing weights": (lambda d: d["generator"].update(weights="gone.safetensors"), "codec file is missing"),
    "unknown gauge": (lambda d: d["code"].update(gauge="cube"), "code.gauge must be one of none, sphere: cube"),
    "odd dims": (lambda d: d["code"].update(dims=["a", "b"]), "code.dims must be"),
    "odd shape": (lambda d: d["code"].update(shape=[0, 12]), "code.shape must have a positive size"),
    "text for a number": (lambda d: d["code"].update(shape=["1", 12]), "code.shape must be of type int: 1"),
    "sphere without direction": (lambda d: d["code"].update(mean="zero"), "has no direction"),
    "odd name": (lambda d: d.update(name="../x"), "name must be letters"),
    "odd loss": (lambda d: d.update(loss="mse"), "loss must read like mse=1"),
    "list for provenance": (lambda d: d.update(provenance=[1]), "provenance must be of type dict: [1]"),
}


class TestDamage:
    @pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
    def test_a_changed_codec_json_is_one_clear_line(self, saved, change, message):
        edited(saved, change)
        with pytest.raises(CodecError, match=r"^[^\n]*$") as caught:
            load_codec(saved)
        assert message in str(caught.value)
        assert "tiny" in str(caught.value)

    @pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[]", b"[" * 100_000, b'{"name": NaN}', b'{"name": 1, "name": 2}', b" " * 2**21])
    def test_what_is_not_json_is_one_clear_line(self, saved, raw):
        (saved / "codec.json").write_bytes(raw)
        with pytest.raises(CodecError, match=r"^[^\n]*codec[^\n]*$"):
            load_codec(saved)

    def test_a_flipped_byte_of_the_weights_is_named(self, saved):
        file = next(saved.glob("generator-*.safetensors"))
        raw = bytearray(file.read_bytes())
        raw[-1] ^= 1
        file.write_bytes(raw)
        with pytest.raises(CodecError, match=f"damaged or of another codec.*: {file.name}$"):
            load_codec(saved)

    @pytest.mark.parametrize("raw", [b"", b"not safetensors", (2**60).to_bytes(8, "little")])
    def test_weights_that_are_no_safetensors(self, saved, raw):
        file = next(saved.glob("generator-*.safetensors"))
        file.write_bytes(raw)
        edited(saved, lambda d: d["generator"].update(sha256=hashlib.sha256(raw).hexdigest()))
        with pytest.raises(CodecError, match=f"{file.name} is not a readable safetensors file"):
            load_codec(saved)

    def test_a_left_over_tensor_is_refused(self, tmp_path):
        weights = tiny_weights()
        weights["generator.safetensors"]["extra"] = torch.zeros(1)
        with pytest.raises(CodecError, match="tensors that the network does not know: extra"):
            save_codec(tmp_path / "x", SPEC, weights=weights)
        assert not (tmp_path / "x").exists()

    def test_a_mean_of_another_shape_is_refused(self, tmp_path):
        weights = tiny_weights() | {"mean.safetensors": {"mean": torch.zeros(12)}}
        with pytest.raises(CodecError, match="the mean code must be a tensor `mean`"):
            save_codec(tmp_path / "x", SPEC, weights=weights)

    def test_two_digests_for_one_file(self):
        files = {"codec.json": replace(pca_spec(), encoder=replace(pca_spec().encoder, sha256="0" * 64)).to_bytes()}
        with pytest.raises(CodecError, match="one weights file has two digests"):
            load_codec_files(files)

    @pytest.mark.parametrize("missing", ["codec.json", "pca"])
    def test_embedded_files_that_are_incomplete(self, tmp_path, missing):
        save_codec(tmp_path / "pca", pca_spec(), weights=pca_weights())
        files = {name: data for name, data in codec_files(tmp_path / "pca").items() if not name.startswith(missing)}
        with pytest.raises(CodecError, match=f"embedded codec: .*{missing}"):
            load_codec_files(files)


class TestWhere:
    def test_a_missing_directory_says_how_to_fit_one(self, tmp_path):
        with pytest.raises(CodecError, match=r"no such codec directory .*latentray train pca"):
            load_codec(tmp_path / "none")

    def test_a_file_is_not_a_codec(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(CodecError, match="not a file"):
            load_codec(tmp_path / "file")

    def test_a_directory_without_codec_json(self, tmp_path):
        with pytest.raises(CodecError, match=r"holds no codec\.json"):
            load_codec(tmp_path)

    def test_the_demo_codec_is_shipped_or_the_error_says_what_to_do(self):
        if (Path(engine.__file__).parent / "codecs" / "demo").is_dir():
            assert load_codec("demo").has_encoder
            return
        with pytest.raises(CodecError, match=r"latentray train pca --data phantom:200 --out runs/pca$"):
            load_codec("demo")

    def test_other_files_are_not_overwritten(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(CodecError, match=r"notes\.txt"):
            save_codec(tmp_path, pca_spec(), weights=pca_weights())
        (tmp_path / "file").write_text("mine")
        with pytest.raises(CodecError, match="where a file is"):
            save_codec(tmp_path / "file", pca_spec(), weights=pca_weights())
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "notes.txt"]

    def test_a_codec_is_replaced_and_its_neighbours_stay(self, tmp_path):
        save_codec(tmp_path / "pca", pca_spec("first"), weights=pca_weights())
        (tmp_path / "pca" / "metrics.jsonl").write_text("{}\n")
        save_codec(tmp_path / "pca", pca_spec("second"), weights=pca_weights(torch.float32))
        assert load_codec(tmp_path / "pca").name == "second"
        assert len(list((tmp_path / "pca").glob("*.safetensors"))) == 1
        assert (tmp_path / "pca" / "metrics.jsonl").exists()

    def test_a_killed_write_leaves_the_former_codec_or_none(self, tmp_path, monkeypatch):
        import os

        save_codec(tmp_path / "pca", pca_spec("first"), weights=pca_weights())
        synced = []

        def full_disk(handle):
            synced.append(handle)
            if len(synced) == 2:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(CodecError, match="No space left on device"):
            save_codec(tmp_path / "pca", pca_spec("second"), weights=pca_weights(torch.float32))
        assert load_codec(tmp_path / "pca").name == "first"
        assert not list((tmp_path / "pca").glob("*.partial"))

    def test_a_named_weights_file_without_tensors(self, tmp_path):
        with pytest.raises(CodecError, match=r"no tensors were given .*pca\.safetensors"):
            save_codec(tmp_path / "pca", pca_spec(), weights={})
