"""Image towers of published size here and in open_clip: the same numbers, and how fast?

    python tests/against_torch_towers.py [--only=SigLIP] [--batch=2] [--threads=2]

Random weights, float32, both in one process, in turns. Needs torch, timm and
open_clip_torch, which nothing else here does, beside requirements/core.txt. Prints a
line of JSON for each tower.
"""

import argparse
import json
from typing import Any

from torch_turns import REPEATS, options

if __name__ == '__main__':
  ARGUMENTS = options(
    __doc__,
    ('--only', '', 'a part of the names'),
    ('--batch', 2, 'images at once'),
    REPEATS,
  )

import jax  # noqa: E402
import numpy as np  # noqa: E402
import open_clip  # noqa: E402
import torch  # noqa: E402
from torch_turns import circumstances, median_seconds  # noqa: E402
from towers_made import tensors_of  # noqa: E402
from towers_open_clip import published  # noqa: E402

from ovs_jax.convert import SOURCES  # noqa: E402
from ovs_jax.convert.family import Options  # noqa: E402
from ovs_jax.core.tree import count_parameters  # noqa: E402
from ovs_jax.models import clip  # noqa: E402
from ovs_jax.models.clip_fast import encode_images  # noqa: E402

TOWERS = (
  *('ViT-B-16', 'ViT-L-14', 'ViT-H-14', 'ViT-L-14-CLIPA'),
  *('ViT-B-16-SigLIP', 'ViT-L-16-SigLIP2-256', 'MobileCLIP2-L-14'),
  *('PE-Core-B-16', 'PE-Core-L-14-336', 'EVA02-B-16', 'EVA02-L-14'),
  *('convnext_base_w', 'convnext_large_d'),
)


def perturb(model: torch.nn.Module) -> None:
  """Moves biases, norms and scales from 0 and 1, and what is tiny from 0."""
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.ndim == 1:
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns a tower's row."""
  reference = open_clip.create_model(name).eval()
  perturb(reference)
  settings = {'model_cfg': published(name)}
  tensors = {k: np.asarray(v) for k, v in tensors_of(reference).items()}
  conversion = SOURCES['open_clip'].convert(tensors, settings, Options())
  config = clip.ClipConfig.from_dict(conversion.model['clip'])
  params = {'visual': jax.device_put(conversion.params['visual'])}
  side = config.image_size
  images = np.random.default_rng(0).normal(size=(arguments.batch, side, side, 3))
  images = images.astype(np.float32)
  given = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
  placed = jax.device_put(images)
  encode = jax.jit(lambda params, x: encode_images(config, params, x))

  def by_torch() -> np.ndarray:
    with torch.inference_mode():
      return reference.encode_image(given).numpy()

  def by_jax() -> np.ndarray:
    return np.asarray(encode(params, placed))

  expected, found = by_torch(), by_jax()  # compiles, too
  theirs, mine = median_seconds(by_torch, by_jax, repeats=arguments.repeats)
  return {
    'tower': name,
    'side': side,
    'parameters_of_the_image_tower': count_parameters(params),
    'largest_relative_difference': float(
      np.abs(found - expected).max() / np.abs(expected).max()
    ),
    'torch_seconds': round(theirs, 3),
    'ovs_jax_seconds': round(mine, 3),
    'ratio': round(theirs / mine, 2),
  }


def main(arguments: argparse.Namespace) -> None:
  """Prints a line of JSON for each tower, and one of the machine."""
  torch.set_num_threads(arguments.threads)
  for name in TOWERS:
    if arguments.only in name:
      print(json.dumps(compare(name, arguments)), flush=True)
  print(json.dumps({'open_clip': open_clip.__version__, **circumstances()}))


if __name__ == '__main__':
  main(ARGUMENTS)
