"""The normal/abnormal head of Tang et al. 2021: how likely a code is one of an abnormal film; a small file beside the codec."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor, nn

from engine.errors import CodecError
from engine.json_object import read_json_object
from engine.networks.settings import read_settings

HEAD = "head.safetensors"
_FORMAT = "latentray-dgm-head-1"
_HEADER = "latentray"  # one entry: safetensors writes several in any order


@dataclass(frozen=True, kw_only=True)
class DgmHeadSettings:
    """`channels` of c_s, and what the head was trained to find, as a label of a training reads."""

    channels: int
    label: str = "abnormal"

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= 8192:
            raise CodecError(f"head.channels must be 1 to 8192: {self.channels}")


class DgmHead(nn.Module):
    """Codes [N, 2 C, k, k] -> logits [N]: the mean of c_s over its map and one linear layer (section 4)."""

    def __init__(self, settings: DgmHeadSettings) -> None:
        super().__init__()
        self.settings = settings
        self.linear = nn.Linear(settings.channels, 1)

    def forward(self, codes: Tensor) -> Tensor:
        c_s = codes[:, -self.settings.channels :]
        logits: Tensor = self.linear(c_s.mean(dim=(2, 3)).to(self.linear.weight.dtype)).squeeze(1)
        return logits

    def probability(self, codes: Tensor) -> Tensor:
        """P(abnormal) [N] float32 of codes."""
        return torch.sigmoid(self(codes).float())


def head_to_file(head: DgmHead) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `safetensors.torch.save` takes: float32 weights, and a header that says what they belong to."""
    tensors = {name: value.detach().cpu().float().contiguous() for name, value in sorted(head.state_dict().items())}
    return tensors, {_HEADER: json.dumps({"format": _FORMAT, "settings": asdict(head.settings)})}


def load_head(file: Path, *, device: torch.device) -> DgmHead:
    """The head of a file. Raises CodecError where the file is none, or its weights do not fit what it says."""
    try:
        with safe_open(file, framework="pt") as opened:
            header = read_json_object((opened.metadata() or {}).get(_HEADER, "{}"))
        if header.get("format") != _FORMAT:
            raise CodecError(f"safetensors file holds no head of a dgm: {file}")
        head = DgmHead(read_settings(DgmHeadSettings, header.get("settings"), file.name))
        head.load_state_dict(load(file.read_bytes()))
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise CodecError(f"head cannot be read ({type(error).__name__}): {file}") from None
    return head.to(device).eval().requires_grad_(False)
