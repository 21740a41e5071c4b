"""Models of libraries that are made small, to compare towers with."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch


@dataclasses.dataclass(frozen=True)
class Size:
  """How large models are made.

  Attributes:
    width: of image towers, for each head.
    layers: of both towers.
    side: of pictures, in patches.
    patch: in pixels; 0: as published.
    text: width of text towers.
    vocabulary: ids.
    context: tokens of a text.
  """

  width: int = 8
  layers: int = 2
  side: int = 4
  patch: int = 0
  text: int = 32
  vocabulary: int = 200
  context: int = 16


GOLDEN = Size(width=2, layers=1, side=3, patch=4, text=16, vocabulary=40, context=8)


@dataclasses.dataclass(frozen=True)
class Reference:
  """A model of a library.

  Attributes:
    family: of the converter, in `SOURCES`.
    settings: what lies beside its weights.
    tensors: its weights, in float32.
    side: of pictures in pixels.
    end: id at the end of texts; -1: none.
    pad: id behind it.
    image: from pictures (b, 3, s, s) to embeddings.
    text: from ids to embeddings.
  """

  family: str
  settings: Mapping[str, Any]
  tensors: Mapping[str, np.ndarray]
  side: int
  end: int
  pad: int
  image: Callable[[torch.Tensor], torch.Tensor]
  text: Callable[[torch.Tensor], torch.Tensor]


def perturbed(model: torch.nn.Module) -> torch.nn.Module:
  """Returns it in float64, of weights that float16 holds, none of which is 0 or 1."""
  generator = torch.Generator().manual_seed(0)
  for parameter in model.parameters():
    noise = 0.05 * torch.randn(parameter.shape, generator=generator)
    parameter.data = (parameter.data + noise).half().float()
  return model.double().eval()


def tensors_of(model: torch.nn.Module, prefix: str = '') -> dict[str, np.ndarray]:
  """Returns its weights by name."""
  state = model.state_dict().items()
  return {f'{prefix}{k}': v.detach().float().numpy() for k, v in state}
