"""Compares CLIPs with timm, open_clip and transformers, where these are installed.

    python -m venv towers && towers/bin/pip install -r requirements/core.txt \
      torch timm open_clip_torch transformers
    towers/bin/python tests/parity_towers.py [--only=siglip] [--goldens=FILE.npz]

Models are made small from the libraries' own configurations, with random weights, every
bias and norm among them; the libraries compute in float64, this package in float32.
Each comparison is of pictures in two sizes, or of texts of every length. With
`--goldens` still smaller ones are written with what the libraries say of them, which
tests/models/test_towers.py compares with.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
_HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent), str(_HERE / 'parity')]

import jax  # noqa: E402
import numpy as np  # noqa: E402
import open_clip  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from towers_hf import hf_clip, hf_metaclip_2, hf_siglip, hf_tips  # noqa: E402
from towers_made import GOLDEN, Reference, Size  # noqa: E402
from towers_open_clip import of_convnext, of_open_clip  # noqa: E402

from ovs_jax.convert import SOURCES  # noqa: E402
from ovs_jax.convert.family import Options  # noqa: E402
from ovs_jax.models import clip  # noqa: E402
from ovs_jax.models.clip_fast import encode_images  # noqa: E402

BOUND = 1e-5  # of the largest difference, relative to the largest value

# Name of a comparison: what makes the model, and of what.
CASES: dict[str, tuple[Callable[[str, Size], Reference], str]] = {
  'openai_b16': (of_open_clip, 'ViT-B-16-quickgelu'),
  'laion_h14': (of_open_clip, 'ViT-H-14'),
  'laion_bigg14': (of_open_clip, 'ViT-bigG-14'),
  'dfn_h14_378': (of_open_clip, 'ViT-H-14-378-quickgelu'),
  'metaclip2_h14': (of_open_clip, 'ViT-H-14-worldwide-quickgelu'),
  'metaclip2_l14': (of_open_clip, 'ViT-L-14-worldwide'),
  'clipa_h14': (of_open_clip, 'ViT-H-14-CLIPA'),
  'siglip_b16': (of_open_clip, 'ViT-B-16-SigLIP'),
  'siglip_i18n_so400m16': (of_open_clip, 'ViT-SO400M-16-SigLIP-i18n-256'),
  'siglip2_l16': (of_open_clip, 'ViT-L-16-SigLIP2-256'),
  'siglip2_gopt16': (of_open_clip, 'ViT-gopt-16-SigLIP2-384'),
  'mobileclip2_l14': (of_open_clip, 'MobileCLIP2-L-14'),
  'pe_t16': (of_open_clip, 'PE-Core-T-16-384'),
  'pe_l14': (of_open_clip, 'PE-Core-L-14-336'),
  'pe_bigg14': (of_open_clip, 'PE-Core-bigG-14-448'),
  'eva02_b16': (of_open_clip, 'EVA02-B-16'),
  'eva02_l14_336': (of_open_clip, 'EVA02-L-14-336'),
  'eva02_e14': (of_open_clip, 'EVA02-E-14-plus'),
  'convnext_base_w': (of_convnext, 'convnext_base_w'),
  'convnext_large_d': (of_convnext, 'convnext_large_d_320'),
  'convnext_xxlarge': (of_convnext, 'convnext_xxlarge'),
  'hf_siglip': (hf_siglip, 'gelu_pytorch_tanh'),
  'hf_siglip_gelu': (hf_siglip, 'gelu'),
  'hf_metaclip2': (hf_metaclip_2, 'quick_gelu'),
  'hf_clip_of_two': (hf_clip, 'gelu quick_gelu'),
  'hf_tipsv2': (hf_tips, 'mlp'),
  'hf_tipsv2_swiglu': (hf_tips, 'swiglu'),
}
# Of these there are goldens: one for each thing that is computed otherwise.
GOLDENS = (
  'metaclip2_h14',
  'clipa_h14',
  'siglip_b16',
  'mobileclip2_l14',
  'hf_siglip_gelu',
  'hf_clip_of_two',
  'pe_t16',
  'pe_bigg14',
  'eva02_b16',
  'eva02_e14',
  'convnext_large_d',
  'convnext_xxlarge',
  'hf_tipsv2',
  'hf_tipsv2_swiglu',
)


def inputs(made: Reference, size: Size) -> tuple[np.ndarray, np.ndarray]:
  """Returns pictures (2, s, s, 3), and texts of every length."""
  rng = np.random.default_rng(1)
  images = rng.normal(size=(2, made.side, made.side, 3)).astype(np.float32)
  rows = np.full((size.context - 1, size.context), made.pad, np.int32)
  for i, row in enumerate(rows):
    row[: i + 1] = rng.integers(3, size.vocabulary - 3, i + 1)
    row[i + (i < size.context - 2)] = made.end
  return images, rows


def outputs(made: Reference, images: np.ndarray, ids: np.ndarray) -> list[np.ndarray]:
  """Returns what the library says."""
  with torch.inference_mode():
    pictures = torch.from_numpy(images.transpose(0, 3, 1, 2)).double()
    found = made.image(pictures), made.text(torch.from_numpy(ids).long())
  return [x.numpy() for x in found]


def ours(made: Reference, images: np.ndarray, ids: np.ndarray) -> list[np.ndarray]:
  """Returns what this package says: of texts also after they were trimmed."""
  tensors = {k: np.asarray(v) for k, v in made.tensors.items()}
  conversion = SOURCES[made.family].convert(tensors, made.settings, Options())
  config = clip.ClipConfig.from_dict(conversion.model['clip'])
  model, params = clip.Clip(config), conversion.params

  @functools.partial(jax.jit, static_argnums=1)
  def run(x: Any, method: str) -> Any:
    if method == 'encode_images':
      return encode_images(config, params, x)
    return model.apply({'params': params}, x, method=method)

  every = [run(images, 'encode_image'), run(images, 'encode_images')]
  every.append(run(ids, 'encode_text'))
  if not config.text_tower.sees_padding:
    half = len(ids) // 2  # where fewer columns are left
    short = clip.trim_tokens(ids[:half], 1, pad=made.pad)
    assert short.shape[1] < ids.shape[1]
    every.append(np.concatenate([run(short, 'encode_text'), every[2][half:]]))
  return [np.asarray(x) for x in every]


def compare(name: str, size: Size) -> dict[str, float]:
  """Returns the largest relative difference of pictures and of texts."""
  make, what = CASES[name]
  made = make(what, size)
  images, ids = inputs(made, size)
  image, text = outputs(made, images, ids)
  found, short, *texts = ours(made, images, ids)

  def off(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())

  return {
    'pictures': max(off(found, image), off(short, image)),
    'texts': max(off(got, text) for got in texts),
  }


def write_goldens(path: pathlib.Path) -> None:
  """Writes models so small that they can be kept, and what they give."""
  arrays: dict[str, np.ndarray] = {}
  for name in GOLDENS:
    make, what = CASES[name]
    made = make(what, GOLDEN)
    images, ids = inputs(made, GOLDEN)
    image, text = outputs(made, images, ids)
    described = {'family': made.family, 'settings': made.settings, 'pad': made.pad}
    arrays[f'{name}/json'] = np.array(json.dumps(described))
    arrays |= {f'{name}/w/{k}': v.astype(np.float16) for k, v in made.tensors.items()}
    arrays |= {f'{name}/images': images, f'{name}/ids': ids}
    arrays |= {f'{name}/image': image, f'{name}/text': text}
  np.savez_compressed(path, **arrays)


def main() -> int:
  """Runs the command line; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--only', default='', help='a part of the names')
  parser.add_argument('--goldens', type=pathlib.Path, help='file to write')
  options = parser.parse_args()
  if options.goldens:
    write_goldens(options.goldens)
  print(
    f'timm {timm.__version__}, open_clip {open_clip.__version__}, transformers '
    f'{transformers.__version__}, torch {torch.__version__}'
  )
  wrong = 0
  for name in CASES:
    if options.only not in name:
      continue
    for side in (4, 5):
      for what, error in compare(name, Size(side=side)).items():
        wrong += error > BOUND
        print(f'{name:24s} {side} x {side} {what:9s} {error:.1e}', flush=True)
  print(f'{wrong} differences above {BOUND:g}')
  return 1 if wrong else 0


if __name__ == '__main__':
  sys.exit(main())
