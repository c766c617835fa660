"""Where class optimisation starts: codes from a codec's prior, truncated as Segal et al. 2021 do, each drawn by its number alone."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch

from engine.archive.root import AnyPath, read_root
from engine.config import check_at_least
from engine.encode.codec import Codec
from engine.errors import ConfigError
from engine.latents.class_optimisation import Start
from engine.latents.codes import Space, Values, read_codes
from engine.networks.stylegan_mapping import MappingNetwork

MOST_CODES = 4096  # of an archive that its spread is taken from: evenly over its rows
_SERIES = 1  # apart from the draws of the start itself


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """How codes [d] lie: about `centre` [d], each number `scale` from it (root mean square).

    `deviations` [n, d] of codes from their mean, where these are known only by example. `mapping` makes codes of normal numbers. Without
    both, codes are N(0, I). `origin`: "prior", the fingerprint of the archive of the examples, or "mapping" and the digest of its file.
    """

    space: Space
    centre: Values
    scale: float
    deviations: Values | None = None
    mapping: MappingNetwork | None = None
    origin: str = "prior"

    def draw(self, rng: np.random.Generator, truncation: float) -> Values:
        """One code [d], on the gauge: N(0, I) with every number beyond `truncation` drawn anew (Brock et al. 2019, whom Segal et al. cite).

        By example: codes' deviations added up with such numbers over sqrt(n), so that draws spread as the codes do, along every direction
        alike less far. By a mapping network: such numbers through it; it looks at their direction alone, so truncation makes them more even
        and not the codes more common.
        """
        if self.mapping is not None:
            z = torch.from_numpy(truncated_normal(rng, self.mapping.settings.code_size, truncation))
            drawn: Values = self.space.on_gauge(_mapped(self.mapping, z[None], self.space))[0]
            return drawn
        if self.deviations is None:
            moved = truncated_normal(rng, self.space.size, truncation)
        else:
            count = len(self.deviations)
            moved = truncated_normal(rng, count, truncation) @ self.deviations / np.sqrt(count)
        found: Values = self.space.on_gauge((self.centre + moved).astype(np.float32)[None])[0]
        return found


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What is drawn. `truncation`: of starts, 0.7 in the paper; `films`: fewest and most of a patient, `sigma` how far these lie apart."""

    seed: int = 0
    truncation: float = 0.7
    films: tuple[int, int] = (3, 6)
    sigma: float = 0.2

    def __post_init__(self) -> None:
        check_at_least("truncation", self.truncation, 0.05)
        check_at_least("sigma", self.sigma, 0)
        check_at_least("seed", self.seed, 0)
        if not 1 <= self.films[0] <= self.films[1]:
            raise ConfigError(f"films of a patient must be 1 or more, the fewer first: {self.films[0]}-{self.films[1]}")

    def start(self, prior: Prior, label: str, number: int, threshold: float, *, device: torch.device | None = None) -> Start:
        """The start of one patient, a function of seed, label and number: its code, and a goal of `threshold` + |N(1, 1)|, its severity."""
        rng = self._rng(label, number)
        code = torch.from_numpy(prior.draw(rng, self.truncation)).reshape(prior.space.shape).to(device)
        return Start(number=number, code=code, goal=threshold + abs(float(rng.normal(1.0, 1.0))))

    def series(self, prior: Prior, label: str, number: int, code: Values) -> Values:
        """The films of one patient [n, d]: `code` itself, and others moved from it by N(0, sigma^2) in each number, on the gauge.

        n is uniform between the fewest and the most. Sigma is in units of the prior's spread: with N(0, I) it is the paper's own.
        """
        rng = self._rng(label, number, _SERIES)
        more = int(rng.integers(self.films[0], self.films[1] + 1)) - 1
        noise = self.sigma * prior.scale * rng.standard_normal((more, prior.space.size))
        return np.concatenate([code[None], prior.space.on_gauge((code + noise).astype(np.float32))])

    def _rng(self, label: str, number: int, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, crc32(label.encode()), number, *purpose])


def prior_of(codec: Codec, archive: AnyPath | None = None, *, mapping: tuple[MappingNetwork, str] | None = None) -> Prior:
    """Where codes of this codec lie: as those of `archive` do, else as `mapping`, a network and the digest of its file, draws them, else
    N(0, I) where the codec's codes are of mean zero or on the sphere.

    Raises ConfigError where none of it is known, and for an archive of another codec.
    """
    space = Space(shape=codec.code_shape, gauge=codec.gauge, codec=codec.name, digest=codec.digest)
    if archive is None and mapping is not None:
        return _prior_by(space, *mapping)
    if archive is None:
        if codec.gauge == "none" and codec.spec.code.mean != "zero":
            raise ConfigError(f"codec does not say how its codes lie; name an archive of them with --codes: {codec.name}")
        return Prior(space=space, centre=np.zeros(space.size, np.float32), scale=1.0)
    codes = read_codes(archive)
    if codes.space.digest != codec.digest:
        raise ConfigError(f"codes of --codes are of another codec than {codec.name}: {codes.space.codec}")
    if len(codes) < 2:
        raise ConfigError(f"the spread of codes needs 2 of them or more: {len(codes)}")
    places = np.unique(np.linspace(0, len(codes) - 1, min(len(codes), MOST_CODES)).astype(np.int64))
    values = codes.values[places].astype(np.float64)
    deviations = values - values.mean(axis=0)
    return Prior(
        space=space,
        centre=values.mean(axis=0).astype(np.float32),
        scale=float(np.sqrt(np.mean(deviations**2))),
        deviations=deviations.astype(np.float32),
        origin=str(read_root(archive).attributes["fingerprint"]),
    )


def _prior_by(space: Space, network: MappingNetwork, digest: str) -> Prior:
    """Codes as a mapping network draws them; how far they spread is looked at in MOST_CODES of them, the same every time."""
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((MOST_CODES, network.settings.code_size)).astype(np.float32))
    values = _mapped(network, z, space).astype(np.float64)
    spread = float(np.sqrt(np.mean((values - values.mean(axis=0)) ** 2)))
    centre = values.mean(axis=0).astype(np.float32)
    return Prior(space=space, centre=centre, scale=spread, mapping=network, origin=f"mapping sha256:{digest}")


def _mapped(network: MappingNetwork, z: torch.Tensor, space: Space) -> Values:
    """z [n, code_size] -> codes [n, d]: one w for all layers of a code that has several."""
    with torch.no_grad():
        found: Values = network(z)[:, None].expand(-1, *space.shape).reshape(len(z), space.size).numpy()
    return found


def truncated_normal(rng: np.random.Generator, size: int, limit: float) -> Values:
    """[size] numbers of N(0, 1), those beyond +-`limit` drawn anew until none is."""
    found = rng.standard_normal(size)
    while (beyond := np.abs(found) > limit).any():
        found[beyond] = rng.standard_normal(int(beyond.sum()))
    return found.astype(np.float32)
