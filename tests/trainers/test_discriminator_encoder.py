"""The embedder of Segal et al. 2021, 4.5: a discriminator learns the codes of generated films, and a codec with it comes out."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from engine.cli import run_verb
from engine.encode.codec import load_codec
from engine.errors import ConfigError
from tests.trainers.steps import CODE_SIZE, make_codec, same_bits, states
from trainers import train
from trainers.checkpoint import checkpoints
from trainers.nets.discriminator_encoder import DiscriminatorEncoder
from trainers.nets.discriminator_file import save_discriminator
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator
from trainers.presets.encoder import EncoderBootstrapConfig
from trainers.task import Batch
from trainers.tasks.encoder_bootstrap import build_encoder_bootstrap

CPU = torch.device("cpu")
CONFIG = EncoderBootstrapConfig(network="discriminator", distance="mse", images=64, batch=8, lr=3e-3, storage="float32")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A codec of 64x64, and discriminators of 64x64 and 32x32."""
    folder = tmp_path_factory.mktemp("embedder")
    make_codec(folder / "codec")
    for side, widths in (("64", (8, 8, 6, 5, 4)), ("32", (8, 8, 6, 5))):
        torch.manual_seed(4)
        save_discriminator(folder / side, GrowingDiscriminator(DiscriminatorSettings(channels=widths)), len(widths) - 1)
    return folder


def build(files, cfg=CONFIG, *, seed=1, side="64"):
    codec = load_codec(files / "codec")
    return build_encoder_bootstrap(cfg, device=CPU, seed=seed, codec=codec, discriminator=None if side is None else str(files / side))


def test_the_loss_is_the_mean_squared_error_of_codes(files):
    task = build(files)
    batch = Batch(numbers=range(3), films=None, seed=0, purpose="encoder/0", device=CPU)
    z = batch.normal("code", 1, CODE_SIZE)
    z = z / z.norm(dim=-1, keepdim=True) * CODE_SIZE**0.5  # where the codec keeps its codes
    with torch.no_grad():
        found = task.encoder.raw(task.codec.generate(z))
        loss = task.loss(batch)["loss"]
    by_hand = sum((a - b) ** 2 for a, b in zip(found.flatten().tolist(), z.flatten().tolist(), strict=True)) / (3 * CODE_SIZE)
    assert loss.item() == pytest.approx(by_hand, rel=1e-3)


def test_it_learns_codes(files):
    """Four of them by heart."""
    task = build(files, replace(CONFIG, lr=1e-2))
    (phase,) = task.phases()
    batch = Batch(numbers=range(4), films=None, seed=0, purpose="encoder/0", device=CPU)
    losses = []
    for _ in range(60):
        phase.optimiser.zero_grad()
        loss = phase.loss(batch)["loss"]
        loss.backward()
        phase.optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_a_codec_with_the_embedder_comes_out(files, tmp_path):
    task = build(files)
    assert isinstance(task.encoder, DiscriminatorEncoder)
    task.export(tmp_path, {"preset": "tiny"})
    codec = load_codec(tmp_path)
    assert codec.spec.encoder.network == "pggan-discriminator"
    films = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(codec.encode(films), task.encoder(films), rtol=1e-4, atol=1e-4)
        assert codec.generate(codec.encode(films)).shape == films.shape
    assert task.summary()["parameters"]["encoder"] == sum(value.numel() for value in codec.encoder.parameters())


def test_the_trunk_is_the_files_and_the_last_layer_follows_the_seed(files):
    one, again, other = (states(build(files, seed=seed)) for seed in (1, 1, 2))
    assert same_bits(one, again)
    assert {name for name, value in one.items() if not torch.equal(value, other[name])} == {"encoder/linear.weight"}


def test_what_does_not_fit_is_refused(files):
    with pytest.raises(ConfigError, match="network needs --discriminator: discriminator"):
        build(files, side=None)
    with pytest.raises(ConfigError, match="discriminator sees films of 32 pixels a side, the codec makes others: 64"):
        build(files, side="32")
    with pytest.raises(ConfigError, match="only network discriminator starts from --discriminator: convnext"):
        build(files, EncoderBootstrapConfig(images=8))
    with pytest.raises(ConfigError, match="fresh must be true: False"):
        EncoderBootstrapConfig(images=8, network="discriminator", fresh=False)


def test_stopped_and_resumed_equals_one_run(files, tmp_path):
    def run(out, *more):
        quiet = ["--evaluate-images", 0, "--sample-images", 0]
        words = ["--codec", files / "codec", "--discriminator", files / "64", "--set", "network=discriminator", "--set", "distance=mse"]
        argv = ["encoder-bootstrap", "--preset", "cpu-small", *words, "--out", out, "--threads", "1", *quiet, *more]
        assert run_verb("train", train, list(map(str, argv))) == 0

    threads = torch.get_num_threads()
    try:
        run(tmp_path / "whole", "--images", 48)
        run(tmp_path / "parts", "--images", 32)
        run(tmp_path / "parts", "--images", 48, "--resume")
    finally:
        torch.set_num_threads(threads)
    one, other = (load_file(checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert load_codec(tmp_path / "whole").spec.files() == load_codec(tmp_path / "parts").spec.files()
