"""What the joint training of encoder and generator starts from: the networks of a codec, or fresh ones. They must fit the schedule."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.calibrate import fit_codec_heads
from engine.encode.codec import Codec
from engine.errors import ConfigError
from engine.networks.pggan import PgganSettings
from trainers.nets.discriminator_file import load_discriminator
from trainers.nets.pggan_discriminator import DiscriminatorSettings, GrowingDiscriminator
from trainers.nets.sided_encoder import EncoderShape, SidedEncoder, build_encoder, take_encoder
from trainers.nets.trainable_pggan import TrainablePggan
from trainers.presets.codec import CodecFinetuneConfig
from trainers.tasks.joined_codec import pggan_of


def start_generator(cfg: CodecFinetuneConfig, codec: Codec | None) -> TrainablePggan:
    """A codec's generator with coarse heads, fitted where it has none and coarse levels are trained, or a fresh one."""
    last = cfg.levels[-1].resolution
    if codec is None:
        settings = PgganSettings(channels=cfg.channels, code_size=cfg.code_size, output_range=cfg.output_range)
        generator = TrainablePggan(settings)
    else:
        plain = pggan_of(codec)
        generator = TrainablePggan(plain.settings)
        has_coarse_levels = any(level.resolution < plain.resolution for level in cfg.levels)
        generator.take(plain, codec.coarse or (fit_codec_heads(codec) if has_coarse_levels else {}))
    if generator.resolution != last:
        raise ConfigError(f"the last level must be the {generator.resolution} pixels of the generator's films: {last}")
    return generator


def start_encoder(cfg: CodecFinetuneConfig, codec: Codec | None, generator: TrainablePggan) -> SidedEncoder:
    """A codec's encoder, or a fresh one."""
    if codec is not None and codec.encoder is not None:
        network = codec.encoder.get_submodule("network")
        return take_encoder(network, generator.resolution)
    if generator.resolution % cfg.encoder_side:
        raise ConfigError(f"encoder_side must divide the {generator.resolution} pixels of a film's side: {cfg.encoder_side}")
    code_size = generator.settings.code_size
    shape = EncoderShape(code_size, cfg.depths, cfg.widths, cfg.stochastic_depth, True)
    return build_encoder(shape, cfg.encoder_side)


def start_critic(
    cfg: CodecFinetuneConfig, generator: TrainablePggan, file: str | None, device: torch.device
) -> GrowingDiscriminator | None:
    """The discriminator of a file, or a fresh one; None without an adversarial loss."""
    if not cfg.adversarial:
        if file is not None:
            raise ConfigError(f"a discriminator is of use only with adversarial above 0: {cfg.adversarial:g}")
        return None
    if file is None:
        settings = generator.settings
        return GrowingDiscriminator(
            DiscriminatorSettings(channels=settings.channels, output_range=settings.output_range, leak=settings.leak)
        )
    critic = load_discriminator(Path(file), device=device)
    if 4 * 2**critic.top < generator.resolution:
        raise ConfigError(f"discriminator must see films of {generator.resolution} pixels a side: {4 * 2**critic.top}")
    return critic
