"""How published autoencoders of latent diffusion name the layers of `autoencoder_kl.py`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Part = Literal["encoder", "decoder"]
Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`rules` are patterns in our names and what stands for them; `up_from_lowest`: the decoder's levels are counted from the lowest."""

    name: str
    rules: dict[Part, Rules]
    up_from_lowest: bool

    def name_of(self, part: Part, mine: str) -> str:
        """The file's name of our tensor `mine` of one half; numbers of levels stay (`number`)."""
        for pattern, theirs in self.rules[part]:
            mine = re.sub(pattern, theirs, mine)
        return f"{part}.{mine}"

    def number(self, part: Part, level: int, levels: int) -> int:
        """What the file counts our `level` of `levels` as, or the other way round."""
        return levels - 1 - level if self.up_from_lowest and part == "decoder" else level


def compvis(name: str) -> Layout:
    """Latent diffusion's own names."""
    layers = (
        *((r"\.blocks\.", ".block."), (r"\.attentions\.", ".attn."), (r"\.shortcut\.", ".nin_shortcut.")),
        *((r"^middle\.first\.", "mid.block_1."), (r"^middle\.second\.", "mid.block_2."), (r"^middle\.attention\.", "mid.attn_1.")),
        *((r"\.query\.", ".q."), (r"\.key\.", ".k."), (r"\.value\.", ".v."), (r"\.out\.", ".proj_out.")),
    )
    down: Rules = ((r"^levels\.", "down."), (r"\.resample\.", ".downsample.conv."), *layers)
    up: Rules = ((r"^levels\.", "up."), (r"\.resample\.", ".upsample.conv."), *layers)
    return Layout(name=name, rules={"encoder": down, "decoder": up}, up_from_lowest=False)


def diffusers(name: str) -> Layout:
    """diffusers' names, of today: `current_names` makes these of older ones."""
    layers = (
        *((r"(attentions?(\.\d+)?)\.norm\.", r"\1.group_norm."), (r"^norm_out\.", "conv_norm_out.")),
        *((r"\.blocks\.", ".resnets."), (r"\.shortcut\.", ".conv_shortcut.")),
        *((r"^middle\.first\.", "mid_block.resnets.0."), (r"^middle\.second\.", "mid_block.resnets.1.")),
        *((r"^middle\.attention\.", "mid_block.attentions.0."), (r"\.out\.", ".to_out.0.")),
        *((r"\.query\.", ".to_q."), (r"\.key\.", ".to_k."), (r"\.value\.", ".to_v.")),
    )
    down: Rules = ((r"^levels\.", "down_blocks."), (r"\.resample\.", ".downsamplers.0.conv."), *layers)
    up: Rules = ((r"^levels\.", "up_blocks."), (r"\.resample\.", ".upsamplers.0.conv."), *layers)
    return Layout(name=name, rules={"encoder": down, "decoder": up}, up_from_lowest=True)


_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION = re.compile(rf"(\.attentions\.\d+)\.({'|'.join(_OLD)})\.")


def current_name(name: str) -> str:
    """A name of diffusers before its attention was renamed, `...attentions.0.proj_attn.weight`, as today's; any other as it is."""
    return _OLD_ATTENTION.sub(lambda found: f"{found[1]}.{_OLD[found[2]]}.", name)
