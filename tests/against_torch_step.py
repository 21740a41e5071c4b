"""A step of CLIP's adaptation here and in PyTorch: same loss, and which is faster?

    python tests/against_torch_step.py --preset=b16 --method=ft --batch=8

In PyTorch as open_clip trains: float32, InfoNCE over crops and texts that are embedded
beforehand, AdamW. `ft` trains the image tower and the temperature, `mpt` the mask
prompts, which there are put in by hooks. Needs torch and transformers, which nothing
else here does, beside requirements/core.txt and data.txt.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from torch_turns import REPEATS, options

if __name__ == '__main__':
  ARGUMENTS = options(
    __doc__,
    ('--preset', 'b16', 'b32, b16, l14, l14_336 or tiny'),
    ('--method', 'ft', 'what trains'),
    ('--batch', 8, 'crops at once'),
    REPEATS,
    choices={'method': ('ft', 'mpt')},
  )

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from against_torch import converted, hugging_face  # noqa: E402

from ovs_jax.bench.clip_adapt_step import Options, settings  # noqa: E402
from ovs_jax.models.clip import PRESETS  # noqa: E402
from ovs_jax.settings import Settings  # noqa: E402
from ovs_jax.train.loop import make_step  # noqa: E402
from ovs_jax.train.recipes.clip_regions import ClipRegions  # noqa: E402
from ovs_jax.train.state import TrainState, split_params  # noqa: E402

DEPTH = 3


def torch_step(model: Any, prompts: Any, batch: dict[str, Any], method: str) -> Any:
  """Returns a function that takes one step and returns the loss before it."""
  vision = model.vision_model
  scale = model.logit_scale
  trained = [prompts] if method == 'mpt' else [*vision.parameters(), scale]
  trained += list(model.visual_projection.parameters()) if method == 'ft' else []
  for parameter in model.parameters():
    parameter.requires_grad_(False)
  for parameter in trained:
    parameter.requires_grad_(True)
  optimizer = torch.optim.AdamW(trained, lr=1e-9, betas=(0.9, 0.98), eps=1e-6)
  keep = batch['keep'][..., None]

  def after_patches(module: Any, given: Any, out: Any) -> Any:
    b, d, y, x = out.shape
    tokens = out.flatten(2).transpose(1, 2)
    tokens = torch.where(keep, tokens, prompts[0])
    return tokens.transpose(1, 2).reshape(b, d, y, x)

  def after_block(depth: int) -> Any:
    def hook(module: Any, given: Any, out: Any) -> Any:
      state = out[0] if isinstance(out, tuple) else out
      tokens = torch.where(keep, state[:, 1:], prompts[depth])
      state = torch.cat([state[:, :1], tokens], dim=1)
      return (state, *out[1:]) if isinstance(out, tuple) else state

    return hook

  if method == 'mpt':
    vision.embeddings.patch_embedding.register_forward_hook(after_patches)
    for depth in range(1, DEPTH):
      vision.encoder.layers[depth - 1].register_forward_hook(after_block(depth))

  def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    pooled = vision(pixel_values=batch['pixels']).pooler_output
    image = torch.nn.functional.normalize(model.visual_projection(pooled), dim=1)
    logits = scale.exp() * image @ batch['text'].T
    target = torch.arange(len(logits))
    cross = torch.nn.functional.cross_entropy
    loss = (cross(logits, target) + cross(logits.T, target)) / 2
    loss.backward()
    optimizer.step()
    return float(loss.detach())

  return step


def seconds(job: Any) -> float:
  """Times one call."""
  began = time.perf_counter()
  job()
  return time.perf_counter() - began


def jax_step(
  arguments: argparse.Namespace,
  config: Any,
  params: dict[str, Any],
  constants: dict[str, np.ndarray],
  batch: dict[str, np.ndarray],
) -> Callable[[], float]:
  """Returns what takes one step of the recipe and gives its loss."""
  options = Options(
    preset=arguments.preset, method=arguments.method, batch=len(batch['image'])
  )
  keys = settings(config, options)
  # So small that every step has the loss of the first.
  keys.optimizer.learning_rate = 1e-9
  keys.optimizer.weight_decay = 0.01
  recipe = ClipRegions(Settings.of(keys))
  take, optimizer, trained = make_step(recipe, Settings.of(keys), params)
  state = optimizer.init(split_params(params, trained)[0])
  state = TrainState(jnp.int32(0), params, state)
  take = jax.jit(take, donate_argnums=0)  # as the training loop does
  constants, batch = jax.device_put((constants, batch))
  held = [jax.device_put(state)]

  def by_jax() -> float:
    held[0], metrics = jax.block_until_ready(take(held[0], constants, batch))
    return float(metrics['loss'])

  return by_jax


def main(arguments: argparse.Namespace) -> None:
  """Prints one line of JSON."""
  torch.set_num_threads(arguments.threads)
  reference = hugging_face(PRESETS[arguments.preset])
  config, params = converted(reference)
  rng = np.random.default_rng(0)
  b, side, grid = arguments.batch, config.image_size, config.image_size // config.patch
  image = rng.uniform(0, 255, (b, side, side, 3)).astype(np.float32)
  mask = np.zeros((b, side, side), np.float32)
  mask[:, : (grid // 2) * config.patch] = 1
  text = rng.normal(size=(b, config.embed_dim)).astype(np.float32)
  text /= np.linalg.norm(text, axis=1, keepdims=True)
  prompts = rng.normal(0, 0.02, (DEPTH, grid * grid, config.vision_width))
  prompts = prompts.astype(np.float32)
  if arguments.method == 'mpt':
    config = dataclasses.replace(config, prompt_depth=DEPTH)
    visual = {**params['visual'], 'mask_prompt': jnp.asarray(prompts)}
    params = {**params, 'visual': visual}
  batch = {'image': image, 'mask': mask, 'noun': np.arange(b, dtype=np.int32)}
  by_jax = jax_step(arguments, config, params, {'nouns': text}, batch)
  from ovs_jax.ops.regions import normalise

  pixels = np.asarray(normalise(jnp.asarray(image))).transpose(0, 3, 1, 2)
  given = {
    'pixels': torch.from_numpy(np.ascontiguousarray(pixels)),
    'text': torch.from_numpy(text),
    'keep': torch.from_numpy(np.arange(grid * grid) < (grid // 2) * grid).expand(b, -1),
  }
  by_torch = torch_step(
    reference, torch.nn.Parameter(torch.from_numpy(prompts)), given, arguments.method
  )

  losses = (by_torch(), by_jax())  # compiles, too

  def warm(job: Any) -> float:
    # Training takes step after step; the other's step drives one's memory out.
    job()
    return seconds(job)

  times = [(warm(by_torch), warm(by_jax)) for _ in range(arguments.repeats)]
  theirs, mine = (statistics.median(column) for column in zip(*times, strict=True))
  report = {
    'preset': arguments.preset,
    'method': arguments.method,
    'batch': b,
    'threads': arguments.threads,
    'losses': losses,
    'torch_crops_per_second': round(b / theirs, 3),
    'ovs_jax_crops_per_second': round(b / mine, 3),
    'ratio': round(theirs / mine, 3),
    'torch': torch.__version__,
    'jax': jax.__version__,
  }
  print(json.dumps(report))


if __name__ == '__main__':
  main(ARGUMENTS)
