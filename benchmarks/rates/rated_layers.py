"""What `bench rate-distortion` asks of the layer of a film: the bytes it adds to a code, and the film that it brings back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.rates.fidelity import gate
from benchmarks.rates.fidelity_methods import Method, layer_methods
from benchmarks.rates.picture_codecs import Gray
from engine.fidelity.target import Target, parse_target
from engine.records import FilmSamples

_FIRST = 4  # films that the way is chosen on


@dataclass(frozen=True, kw_only=True, eq=False)
class Layered:
    """Films as layers of one target: what comes back of each, and its bytes; `failed` says why there are none."""

    target: Target
    pictures: Sequence[Gray] = ()
    num_bytes: Sequence[int] = ()
    failed: str = ""


def layered(films: Sequence[Gray], targets: Sequence[str]) -> Iterator[Layered]:
    """Pictures u1 [H, W] as layers of each target, as an archive writes them; one that misses its target fails it for all."""
    samples = [FilmSamples(film, bits=8, black=0, white=255) for film in films]
    for target in map(parse_target, targets):
        method = next(layer_methods(samples, [None] * len(samples), target, first=_FIRST, effort="quick"))
        back = gate(method, samples, target) if isinstance(method, Method) else method.failed
        if isinstance(method, Method) and not isinstance(back, str):
            yield Layered(target=target, pictures=back, num_bytes=[len(file) for file in method.files])
        else:
            yield Layered(target=target, failed=str(back))
