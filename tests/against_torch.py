"""CLIP here and in PyTorch, in one process: are the numbers the same, which is faster?

    python tests/against_torch.py --preset=b16 --batch=8

Random weights go to disk by `transformers` and come back by the converter. Needs torch
and transformers, which nothing else here does, beside requirements/core.txt.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import tempfile

from torch_turns import REPEATS, options

if __name__ == '__main__':
  ARGUMENTS = options(
    __doc__,
    ('--preset', 'b16', 'b32, b16, l14, l14_336 or tiny'),
    ('--batch', 8, 'images at once'),
    ('--dtype', 'float32', 'that both compute in; compared with float32 in PyTorch'),
    REPEATS,
    choices={'dtype': ('float32', 'bfloat16')},
  )

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from torch_turns import circumstances, median_seconds  # noqa: E402

from ovs_jax.convert import exchange  # noqa: E402
from ovs_jax.core.checkpoint import load_model  # noqa: E402
from ovs_jax.models.clip import PRESETS, ClipConfig  # noqa: E402
from ovs_jax.models.clip_fast import encode_images  # noqa: E402


def hugging_face(config: ClipConfig) -> transformers.CLIPModel:
  """Returns a CLIP of these sizes with random weights, also where they start at 0."""
  torch.manual_seed(0)
  common = {'hidden_act': config.activation, 'projection_dim': config.embed_dim}
  model = transformers.CLIPModel(
    transformers.CLIPConfig(
      projection_dim=config.embed_dim,
      vision_config={
        **common,
        'image_size': config.image_size,
        'patch_size': config.patch,
        'hidden_size': config.vision_width,
        'intermediate_size': 4 * config.vision_width,
        'num_hidden_layers': config.vision_layers,
        'num_attention_heads': config.vision_heads,
      },
      text_config={
        **common,
        'vocab_size': config.vocab_size,
        'max_position_embeddings': config.context_length,
        'hidden_size': config.text_width,
        'intermediate_size': 4 * config.text_width,
        'num_hidden_layers': config.text_layers,
        'num_attention_heads': config.text_heads,
        'eos_token_id': config.vocab_size - 1,
      },
    )
  ).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.ndim == 1:
        parameter.add_(0.05 * torch.randn_like(parameter))
  return model


def converted(model: transformers.CLIPModel) -> tuple[ClipConfig, dict]:
  """Returns the model by way of a Hugging Face folder and the converter."""
  with tempfile.TemporaryDirectory() as folder:
    source, output = pathlib.Path(folder) / 'hf', pathlib.Path(folder) / 'ovs_jax'
    model.save_pretrained(source)
    exchange.convert(source, output, source='hf_clip')
    params, stored = load_model(output, kind='clip')
  return ClipConfig.from_dict(stored['clip']), jax.device_put(params)


def main(arguments: argparse.Namespace) -> None:
  """Prints one line of JSON."""
  torch.set_num_threads(arguments.threads)
  reference = hugging_face(PRESETS[arguments.preset])
  config, params = converted(reference)
  side = config.image_size
  image = np.random.default_rng(0).normal(size=(arguments.batch, side, side, 3))
  image = image.astype(np.float32)
  given = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))

  def by_torch(dtype: torch.dtype) -> np.ndarray:
    with torch.inference_mode():
      out = reference.get_image_features(pixel_values=given.to(dtype))
    # Later versions of transformers return an object.
    return getattr(out, 'pooler_output', out).float().numpy()

  expected = by_torch(torch.float32)
  dtype = getattr(torch, arguments.dtype)
  reference.to(dtype)
  config = dataclasses.replace(config, dtype=arguments.dtype)
  encode = jax.jit(lambda params, x: encode_images(config, params, x))
  ours = jax.device_put(image)

  def by_jax() -> np.ndarray:
    return np.asarray(encode(params, ours), np.float32)

  them, found = by_torch(dtype), by_jax()  # compiles, too
  jobs = (functools.partial(by_torch, dtype), by_jax)
  theirs, mine = median_seconds(*jobs, repeats=arguments.repeats)
  report = {
    'preset': arguments.preset,
    'batch': arguments.batch,
    'dtype': arguments.dtype,
    'threads': arguments.threads,
    'largest_value': float(np.abs(expected).max()),
    'largest_difference': float(np.abs(found - expected).max()),
    'largest_difference_of_torch': float(np.abs(them - expected).max()),
    'torch_images_per_second': round(arguments.batch / theirs, 3),
    'ovs_jax_images_per_second': round(arguments.batch / mine, 3),
    'ratio': round(theirs / mine, 3),
    **circumstances(),
  }
  print(json.dumps(report))


if __name__ == '__main__':
  main(ARGUMENTS)
