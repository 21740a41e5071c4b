"""CLIPSeg here and in PyTorch: one picture under many prompts, in one process.

    python tests/against_torch_clipseg.py --prompts=171

Random weights of the refined model go to disk by `transformers` and come back by the
converter. PyTorch gets the picture once for every prompt, as its interface wants it.
Needs torch and transformers, which nothing else here does.
"""

import argparse
import functools
import json
import pathlib
import tempfile

from torch_turns import options

if __name__ == '__main__':
  ARGUMENTS = options(
    __doc__,
    ('--prompts', 20, 'masks of one picture'),
    ('--batch', 8, 'prompts at once in PyTorch'),
    ('--size', 352, 'side of the picture'),
    ('--repeats', 3, 'of each, in turns'),
  )

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from torch_turns import circumstances, median_seconds  # noqa: E402

from ovs_jax.convert import exchange  # noqa: E402
from ovs_jax.core.checkpoint import load_model  # noqa: E402
from ovs_jax.models import clipseg  # noqa: E402
from ovs_jax.models.clipseg import ClipSegConfig  # noqa: E402


def hugging_face() -> transformers.CLIPSegForImageSegmentation:
  """Returns the refined model's sizes with random weights, also where they are 0."""
  torch.manual_seed(0)
  config = transformers.CLIPSegConfig(
    vision_config={'patch_size': 16},
    use_complex_transposed_convolution=True,
  )
  model = transformers.CLIPSegForImageSegmentation(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.ndim == 1:
        parameter.add_(0.05 * torch.randn_like(parameter))
  return model


def converted(
  model: transformers.CLIPSegForImageSegmentation,
) -> tuple[ClipSegConfig, dict]:
  """Returns the model by way of a Hugging Face folder and the converter."""
  with tempfile.TemporaryDirectory() as folder:
    source, output = pathlib.Path(folder) / 'hf', pathlib.Path(folder) / 'ovs_jax'
    model.save_pretrained(source)
    exchange.convert(source, output, source='hf_clipseg')
    params, stored = load_model(output, kind='clipseg')
  return ClipSegConfig.from_dict(stored['clipseg']), jax.device_put(params)


def image_tower_once(
  reference: transformers.CLIPSegForImageSegmentation,
  pixels: torch.Tensor,
  prompts: np.ndarray,
  batch: int,
) -> np.ndarray:
  """Runs CLIP once, as here, and PyTorch's own decoder for all prompts."""
  found, side = [], pixels.shape[-1]
  with torch.inference_mode():
    seen = reference.clip.vision_model(
      pixels, output_hidden_states=True, interpolate_pos_encoding=True
    ).hidden_states
    activations = [seen[i + 1] for i in reference.config.extract_layers]
    for start in range(0, len(prompts), batch):
      part = torch.from_numpy(prompts[start : start + batch])
      wide = tuple(x.expand(len(part), -1, -1) for x in activations)
      out = reference.decoder(wide, part)
      found.append(out.logits.reshape(len(part), side, side).numpy())
  return np.concatenate(found)


def main(arguments: argparse.Namespace) -> None:
  """Prints one line of JSON."""
  torch.set_num_threads(arguments.threads)
  reference = hugging_face()
  config, params = converted(reference)
  rng = np.random.default_rng(0)
  side = arguments.size
  image = rng.normal(size=(1, side, side, 3)).astype(np.float32)
  prompts = rng.normal(size=(arguments.prompts, 512)).astype(np.float32)
  pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))

  def by_torch() -> np.ndarray:
    found = []
    with torch.inference_mode():
      for start in range(0, len(prompts), arguments.batch):
        part = torch.from_numpy(prompts[start : start + arguments.batch])
        out = reference(
          pixel_values=pixels.expand(len(part), -1, -1, -1),
          conditional_embeddings=part,
          interpolate_pos_encoding=True,
        )
        found.append(out.logits.reshape(len(part), side, side).numpy())
    return np.concatenate(found)

  by_torch_once = functools.partial(
    image_tower_once, reference, pixels, prompts, arguments.batch
  )

  def by_jax() -> np.ndarray:
    return clipseg.segment(config, params, image, prompts)[0]

  expected, found = by_torch(), by_jax()  # compiles, too
  once = by_torch_once()
  jobs = by_torch, by_torch_once, by_jax
  theirs, at_best, mine = median_seconds(*jobs, repeats=arguments.repeats)
  report = {
    'prompts': arguments.prompts,
    'size': side,
    'threads': arguments.threads,
    'largest_difference': float(np.abs(found - expected).max()),
    'largest_value': float(np.abs(expected).max()),
    'largest_difference_within_torch': float(np.abs(once - expected).max()),
    'torch_seconds': round(theirs, 3),
    'torch_once_seconds': round(at_best, 3),
    'ovs_jax_seconds': round(mine, 3),
    'ratio': round(theirs / mine, 3),
    'ratio_to_torch_once': round(at_best / mine, 3),
    **circumstances(),
  }
  print(json.dumps(report))


if __name__ == '__main__':
  main(ARGUMENTS)
