"""Every full-size program of inference can be had on GPUs and TPUs."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import full_size
import jax
import jax.numpy as jnp
import pytest

from ovs_jax.bench import clipseg as clipseg_bench
from ovs_jax.bench import ovseg_inference
from ovs_jax.inference import classifier, one_pass
from ovs_jax.inference import coseg as coseg_system
from ovs_jax.inference import encode as encoding
from ovs_jax.mining import candidates
from ovs_jax.models import clip, clipseg, coseg, maskformer
from ovs_jax.ops.painting import label_map

KERNEL = '__cudnn$fmha'
SIDES = (640, 864)


def shape(*lengths: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(lengths, dtype)


def drawn(init: Any, config: Any) -> Any:
  return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


def shapes_of(function: Any, *args: Any) -> tuple[list[Any], Callable[[Any], Any]]:
  """Shapes of a result's arrays, and what builds such a result of traced ones.

  Its own class would refuse shapes in place of arrays.
  """
  kept = []

  def leaves(*args: Any) -> list[Any]:
    found, structure = jax.tree.flatten(function(*args))
    kept.append(structure)
    return found

  return jax.eval_shape(leaves, *args), lambda x: jax.tree.unflatten(kept[0], x)


def ovseg_programs(dtype: str, layers: int) -> dict[str, tuple[Any, ...]]:
  """Of a picture's stages, as a Segmenter runs them; and of mining."""
  options = ovseg_inference.Options(
    preset='l14', proposer='swin_b_l14', shortest=SIDES[0], dtype=dtype
  )
  config = ovseg_inference.configuration(options)
  proposer = dataclasses.replace(
    config.proposer, layers=min(layers, config.proposer.layers)
  )
  config = dataclasses.replace(config, proposer=proposer)
  params = {
    'proposer': drawn(maskformer.init_maskformer, config.proposer),
    'clip': drawn(clip.init_clip, config.clip),
  }
  image, size = shape(*SIDES, 3), shape(2, dtype=jnp.int32)
  propose = functools.partial(encoding.propose_crops.__wrapped__, config, crop=True)
  regions, build = shapes_of(lambda *given: propose(*given)[2], params, image, size)
  embed_crops = functools.partial(encoding.embed_crops.__wrapped__, config)

  def embed(params: Any, regions: Any) -> Any:
    return embed_crops(params, (build(regions),))

  mine = functools.partial(candidates.propose_masks.__wrapped__, config)
  once = functools.partial(one_pass.embed.__wrapped__, config, (46, 62))
  return {
    'propose': (propose, params, image, size),
    'embed': (embed, {'clip': params['clip']}, regions),
    'mine': (mine, params, image, size),
    'one pass': (once, params['clip'], image, shape(100, *SIDES)),
    'text': (
      functools.partial(clip.embed_tokens.__wrapped__, config.clip),
      params['clip'],
      shape(64, 77, dtype=jnp.int32),
    ),
    'classifier': (
      functools.partial(classifier.embed.__wrapped__, config.clip),
      params['clip'],
      shape(224, 224, 3),
    ),
  }


def clipseg_programs(dtype: str) -> dict[str, tuple[Any, ...]]:
  config = clipseg_bench.sizes(clipseg_bench.Options(dtype=dtype))
  params = drawn(clipseg.init_clipseg, config)
  encode = functools.partial(clipseg.encode.__wrapped__, config)
  image = shape(1, config.image_size, config.image_size, 3)
  seen, build = shapes_of(encode, params, image)
  condition = shape(1, 20, config.clip.embed_dim)

  def decode(params: Any, seen: Any, condition: Any) -> Any:
    return clipseg.decode.__wrapped__(
      config, params, build(seen), condition, (config.image_size,) * 2
    )

  return {
    'clipseg image': (encode, params, image),
    'clipseg prompts': (decode, params, seen, condition),
  }


def coseg_programs(language: str, dtype: str) -> dict[str, tuple[Any, ...]]:
  config = coseg.PRESETS[language]
  tower = dataclasses.replace(config.clip, dtype=dtype)
  config = dataclasses.replace(config, clip=tower)
  params = drawn(coseg.init_coseg, config)
  image = shape(1, config.image_size, config.image_size, 3, dtype=jnp.uint8)
  predict = functools.partial(coseg_system.predict.__wrapped__, config)
  return {f'coseg {language}': (predict, params, image)}


def starts(
  function: Callable[..., Any], *args: Any, machine: str, patch: pytest.MonkeyPatch
) -> str:
  jax.clear_caches()  # what a function in a function looked like elsewhere
  program = jax.jit(lambda *args: jax.tree.leaves(function(*args)))
  return full_size.export(program, *args, machine=machine, patch=patch).mlir_module()


# In bfloat16 on GPUs: what has an attention without bias. Texts are float32 always.
FUSED = {'propose', 'embed', 'mine', 'one pass', 'classifier'}
FUSED |= {'clipseg image', 'clipseg prompts', 'coseg prefix', 'coseg cross'}


def check(
  programs: dict[str, tuple[Any, ...]],
  dtype: str,
  machine: str,
  patch: pytest.MonkeyPatch,
) -> None:
  for name, (function, *args) in programs.items():
    text = starts(function, *args, machine=machine, patch=patch)
    fused = name in FUSED and dtype == 'bfloat16' and machine != 'TPU'
    assert (KERNEL in text) == fused, name


@pytest.mark.parametrize('name', ['embed', 'text'])
def test_clip_runs_in_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
  programs = ovseg_programs('bfloat16', 1)
  check({name: programs[name]}, 'bfloat16', 'H100', monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize('machine', full_size.MACHINES)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_every_program_runs(
  dtype: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  programs = ovseg_programs(dtype, 6) | clipseg_programs(dtype)
  for language in coseg.PRESETS:
    programs |= coseg_programs(language, dtype)
  check(programs, dtype, machine, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize('machine', full_size.MACHINES)
def test_labels_are_painted(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
  paint = functools.partial(label_map, size=(1500, 2000))
  given = shape(100, 847), shape(100, *SIDES)
  starts(paint, *given, machine=machine, patch=monkeypatch)
