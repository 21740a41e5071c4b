"""Meshes: where parameters live, and that a mesh does not change results."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_configs
from jax.sharding import PartitionSpec

from ovs_jax.core import sharding
from ovs_jax.core.tree import flatten
from ovs_jax.core.types import Array, Batch, Params
from ovs_jax.models import clip, clipseg_decoder, coseg, maskformer
from ovs_jax.settings import Settings
from ovs_jax.train.recipes import RECIPES

KEY = jax.random.key(0)
MODELS: dict[str, Callable[[], Params]] = {
  'clip': lambda: clip.init_clip(
    dataclasses.replace(clip.PRESETS['b16'], prompt_depth=3), KEY
  ),
  'siglip': lambda: clip.init_clip(clip.PRESETS['tiny_siglip'], KEY),
  'convnext': lambda: clip.init_clip(clip.PRESETS['tiny_convnext'], KEY),
  'eva02': lambda: clip.init_clip(clip.PRESETS['eva02_b16'], KEY),
  'tips': lambda: clip.init_clip(clip.PRESETS['tipsv2_b14'], KEY),
  'pe': lambda: clip.init_clip(clip.PRESETS['pe_t16_384'], KEY),
  **{
    name: functools.partial(maskformer.init_maskformer, preset, KEY)
    for name, preset in maskformer.PRESETS.items()
  },
  **{
    language: functools.partial(coseg.init_coseg, coseg.tiny(language), KEY)
    for language in ('prefix', 'cross')
  },
  **{
    f'coseg, {size}': functools.partial(
      coseg.init_coseg,
      dataclasses.replace(coseg.tiny('prefix'), size_embedding=size),
      KEY,
    )
    for size in ('slot', 'area')
  },
  **{
    name: functools.partial(
      lambda name: {
        'decoder': clipseg_decoder.init_decoder(
          clipseg_decoder.tiny(name), KEY, width=64, embed_dim=64
        )
      },
      name,
    )
    for name in clipseg_decoder.PRESETS
  },
}


class TestMakeMesh:
  @pytest.mark.parametrize(('data', 'model'), [(4, 2), (-1, 2), (8, 1), (-1, 8)])
  def test_takes_all_devices(self, data: int, model: int) -> None:
    mesh = sharding.make_mesh(data, model)
    assert mesh.shape['data'] * mesh.shape['model'] == 8
    assert mesh.shape['model'] == model

  @pytest.mark.parametrize(
    ('data', 'model'),
    [
      (3, 2),
      (-1, 3),
      (1, 1),
      (16, 1),
      (-1, 0),
      (-1, -1),
      (-8, -1),
      (0, 8),
    ],
  )
  def test_others_are_refused(self, data: int, model: int) -> None:
    with pytest.raises(ValueError, match=r'does not fit the 8 .*config\.mesh\.data'):
      sharding.make_mesh(data, model)


class TestParameters:
  def test_heads_and_hidden_units_are_split(self) -> None:
    shapes = jax.eval_shape(
      lambda: clip.init_clip(clip.PRESETS['b16'], jax.random.key(0))
    )
    placed = flatten(sharding.parameter_shardings(sharding.make_mesh(4, 2), shapes))
    split = {path: x.spec for path, x in placed.items() if 'model' in x.spec}
    for tower in ('visual', 'text'):
      attention = f'{tower}/blocks/attn'
      assert split[f'{attention}/q/kernel'] == PartitionSpec(None, None, 'model')
      assert split[f'{attention}/q/bias'] == PartitionSpec(None, 'model')
      assert split[f'{attention}/out/kernel'] == PartitionSpec(None, 'model')
      assert split[f'{tower}/blocks/c_fc/kernel'] == PartitionSpec(None, None, 'model')
      assert split[f'{tower}/blocks/c_fc/bias'] == PartitionSpec(None, 'model')
      assert split[f'{tower}/blocks/c_proj/kernel'] == PartitionSpec(None, 'model')
    assert split['text/token_embedding/embedding'] == PartitionSpec(None, 'model')
    assert len(split) == 21  # ten of each tower, and the token embedding

  @pytest.mark.parametrize('name', MODELS)
  def test_every_parameter_of_every_model_has_a_rule(self, name: str) -> None:
    shapes = jax.eval_shape(MODELS[name])
    placed = flatten(sharding.parameter_shardings(sharding.make_mesh(8, 1), shapes))
    assert set(placed) == set(flatten(shapes))

  def test_every_rule_has_a_parameter_in_some_model(self) -> None:
    used = set()
    for init in MODELS.values():
      for path in flatten(jax.eval_shape(init)):
        rules = (p for p, _ in sharding.SHARDING_RULES if re.search(p, path))
        used.add(next(rules))
    assert used == {pattern for pattern, _ in sharding.SHARDING_RULES}

  def test_rules_of_a_run_come_first(self) -> None:
    params = {'text': {'proj': jnp.zeros((8, 6))}, 'visual': {'proj': jnp.zeros(8)}}
    mesh = sharding.make_mesh(4, 2)
    placed = sharding.parameter_shardings(
      mesh, params, rules=((r'text/proj$', (None, 'model')),)
    )
    assert placed['text']['proj'].spec == PartitionSpec(None, 'model')
    assert placed['visual']['proj'].spec == PartitionSpec()

  @pytest.mark.parametrize(
    ('rules', 'message'),
    [
      (((r'vision/', ()),), "'vision/' matches no parameter"),
      (((r'proj$', ('modle',)),), "Did you mean 'model'"),
      (((r'proj$', (None, None, 'model')),), 'fewer dimensions than the rule'),
    ],
  )
  def test_rules_that_cannot_be_are_explained(
    self, rules: tuple[tuple[str, Any], ...], message: str
  ) -> None:
    with pytest.raises(ValueError, match=message):
      sharding.parameter_shardings(
        sharding.make_mesh(4, 2), {'text': {'proj': jnp.zeros((8, 6))}}, rules=rules
      )

  def test_a_parameter_without_a_rule_is_named(self) -> None:
    with pytest.raises(ValueError, match=r'without a pattern: head/new_weights'):
      sharding.parameter_shardings(
        sharding.make_mesh(4, 2), {'head': {'new_weights': jnp.zeros(8)}}
      )

  def test_fsdp_splits_what_is_large_along_data(self) -> None:
    shapes = jax.eval_shape(
      lambda: clip.init_clip(clip.PRESETS['b16'], jax.random.key(0))
    )
    mesh = sharding.make_mesh(4, 2)
    placed = flatten(sharding.parameter_shardings(mesh, shapes, fsdp=True))
    spec = {path: x.spec for path, x in placed.items()}
    blocks = 'visual/blocks'
    assert spec[f'{blocks}/c_fc/kernel'] == PartitionSpec(None, 'data', 'model')
    assert spec['visual/proj'] == PartitionSpec('data')  # 768 x 512
    assert spec['text/token_embedding/embedding'] == PartitionSpec('data', 'model')
    assert spec['visual/ln_post/scale'] == PartitionSpec()
    total = sum(x.size for x in flatten(shapes).values())
    held = sum(
      math.prod(placed[path].shard_shape(x.shape))
      for path, x in flatten(shapes).items()
    )
    assert total / 8 < held < total / 6

  def test_what_cannot_be_split_is_named(self) -> None:
    mesh = sharding.make_mesh(2, 4)
    params = {
      'blocks': {
        'c_fc': {'kernel': jnp.zeros((1, 8, 6))},
        'c_proj': {'kernel': jnp.zeros((1, 6, 8))},
        'attn': {'q': {'kernel': jnp.zeros((1, 8, 4, 2))}},
      }
    }
    with pytest.raises(ValueError) as error:
      sharding.parameter_shardings(mesh, params)
    message = str(error.value)
    assert 'blocks/c_fc/kernel: dimension 2 of (1, 8, 6) over 4 devices' in message
    assert 'blocks/c_proj/kernel: dimension 1' in message
    assert 'attn' not in message


class TestBatch:
  def test_is_split_along_its_first_axis(self) -> None:
    mesh = sharding.make_mesh(4, 2)
    x = np.arange(16).reshape(8, 2)
    placed = sharding.shard_batch(mesh, {'x': x}, size=8)['x']
    np.testing.assert_array_equal(placed, x)
    assert {s.data.shape for s in placed.addressable_shards} == {(2, 2)}

  def test_must_be_divisible(self) -> None:
    mesh = sharding.make_mesh(4, 2)
    sharding.check_batch(mesh, 12)
    with pytest.raises(ValueError, match='batch_size 10 is not a multiple of 4'):
      sharding.check_batch(mesh, 10)
    for size in (0, -8):
      with pytest.raises(
        ValueError, match=f'batch_size is {size}, expected at least 1'
      ):
        sharding.check_batch(mesh, size)
    with pytest.raises(ValueError, match="'x' of the batch has 4 rows; .* take 8 of"):
      sharding.shard_batch(mesh, {'x': np.arange(4)}, size=8)


class Device:
  """Has what meshes ask of a device of a process, seen from one of them."""

  def __init__(self, i: int, process: int, here: int, **more: Any) -> None:
    self.id, self.process_index = i, process
    self.platform, self.device_kind = 'gpu', 'of no kind'
    self.client = SimpleNamespace(process_index=lambda: here)
    self.__dict__.update(more)


def pod(here: int, **more: Any) -> list[Device]:
  """Eight TPU chips in a square of 4x2; two hosts with 2x2 chips each."""
  kind = {'platform': 'tpu', 'device_kind': 'TPU v5 lite', 'core_on_chip': 0, **more}
  places = [(x, y, 0) for y in range(2) for x in range(4)]
  return [Device(i, p[0] // 2, here, coords=p, **kind) for i, p in enumerate(places)]


class TestRows:
  @pytest.mark.parametrize(
    ('processes', 'devices', 'data', 'model', 'rows'),
    [
      (1, 4, 2, 2, [range(8)]),
      (2, 1, 2, 1, [range(4), range(4, 8)]),
      (2, 1, 1, 2, [range(8), range(8)]),
      (2, 2, 2, 2, [range(4), range(4, 8)]),
      (2, 2, 1, 4, [range(8), range(8)]),
      (4, 1, 2, 2, [range(4), range(4), range(4, 8), range(4, 8)]),
      (4, 2, 8, 1, [range(2 * i, 2 * i + 2) for i in range(4)]),
      (4, 2, 2, 4, [range(4), range(4), range(4, 8), range(4, 8)]),
      (2, 3, 2, 3, [range(4), range(4, 8)]),
      # Nothing that a machine has; each still gives what its devices take.
      (3, 2, 2, 3, [range(4), range(8), range(4, 8)]),
    ],
  )
  def test_are_those_that_a_process_has_devices_for(
    self,
    processes: int,
    devices: int,
    data: int,
    model: int,
    rows: list[range],
    monkeypatch: pytest.MonkeyPatch,
  ) -> None:
    for here in range(processes):
      made = [Device(i, i // devices, here) for i in range(processes * devices)]
      monkeypatch.setattr(jax, 'devices', lambda made=made: made)
      mesh = sharding.make_mesh(data, model)
      sharding.check_batch(mesh, 8)
      assert sharding.own_rows(mesh, 8).tolist() == list(rows[here])

  def test_may_be_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    for here in range(2):
      monkeypatch.setattr(jax, 'devices', lambda here=here: pod(here))
      parts.append(sharding.own_rows(sharding.make_mesh(-1, 1), 16).tolist())
    # The ring goes out along one side and back along the other.
    assert parts == [[*range(4), *range(12, 16)], [*range(4, 12)]]


class TestSlices:
  def nodes(self, monkeypatch: pytest.MonkeyPatch, platform: str = 'gpu') -> None:
    """Two nodes of four GPUs each, which XLA numbers the other way round."""
    made = [Device(i, i // 4, 0, platform=platform) for i in range(8)]
    for device in made:
      device.slice_index = 1 - device.process_index
    monkeypatch.setattr(jax, 'devices', lambda: made)

  @pytest.mark.parametrize(('data', 'model'), [(-1, 1), (4, 2), (2, 4)])
  def test_data_goes_along_them_and_model_stays(
    self, data: int, model: int, monkeypatch: pytest.MonkeyPatch
  ) -> None:
    self.nodes(monkeypatch)
    mesh = sharding.make_mesh(data, model)
    assert [device.id for device in mesh.devices.flat] == [4, 5, 6, 7, 0, 1, 2, 3]
    assert mesh.shape == {'data': 8 // model, 'model': model}
    assert sharding.own_rows(mesh, 8).tolist() == [4, 5, 6, 7]

  def test_of_a_tpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = [pod(0, slice_index=i) for i in range(2)]
    monkeypatch.setattr(jax, 'devices', lambda: slices[1] + slices[0])
    mesh = sharding.make_mesh(-1, 2)
    assert mesh.shape == {'data': 8, 'model': 2}
    numbers = [[device.slice_index for device in row] for row in mesh.devices]
    assert numbers == [[0, 0]] * 4 + [[1, 1]] * 4

  def test_model_does_not_go_beyond(self, monkeypatch: pytest.MonkeyPatch) -> None:
    self.nodes(monkeypatch)
    with pytest.raises(ValueError, match='model=8 does not divide the 4 devices of ea'):
      sharding.make_mesh(1, 8)

  def test_processes_of_a_cpu_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
    self.nodes(monkeypatch, 'cpu')
    assert sharding.make_mesh(1, 8).shape == {'data': 1, 'model': 8}


def test_every_option_of_coseg_has_a_place() -> None:
  mesh = sharding.make_mesh(4, 2)
  more = {'slot_position': 'learned', 'image_position': 'learned'}
  for kind, size in (('prefix', 'slot'), ('cross', 'area')):
    config = coseg.tiny(kind)
    language = dataclasses.replace(config.language, **more)
    config = dataclasses.replace(
      config, language=language, language_out=True, size_embedding=size
    )
    params = jax.eval_shape(lambda c=config: coseg.init_coseg(c, jax.random.key(0)))
    placed = flatten(sharding.parameter_shardings(mesh, params))
    for path in ('slots/position', 'slots/image_position'):
      assert placed[f'language/{path}'].spec == PartitionSpec(), path
    assert placed['out/kernel'].spec == PartitionSpec()


def test_a_mesh_gives_the_losses_and_gradients_of_one_device() -> None:
  recipe = RECIPES['clip_pretrain'](Settings.of(tiny_configs.pretraining('unused')))
  draw = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: jnp.asarray(draw.normal(0, 0.2, x.shape), jnp.float32),
    jax.eval_shape(lambda: clip.init_clip(recipe.clip, jax.random.key(0))),
  )
  batch = {
    'image': draw.integers(0, 256, (8, 16, 16, 3)).astype(np.uint8),
    'tokens': draw.integers(1, 49_408, (8, 16)).astype(np.int32),
  }

  @jax.jit
  def run(params: Params, batch: Batch) -> tuple[Array, Params]:
    (value, _), grads = jax.value_and_grad(recipe.loss, has_aux=True)(
      params, {}, batch, jax.random.key(0)
    )
    return value, grads

  expected_loss, expected = run(params, batch)
  mesh = sharding.make_mesh(4, 2)
  placed = jax.device_put(params, sharding.parameter_shardings(mesh, params))
  loss, got = run(placed, sharding.shard_batch(mesh, batch, size=8))
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
  got, expected = flatten(got), flatten(expected)
  largest = max(float(jnp.max(jnp.abs(x))) for x in expected.values())
  for path in expected:
    # Sums run in another order, and a key's bias has no gradient but rounding.
    np.testing.assert_allclose(
      got[path], expected[path], rtol=1e-5, atol=1e-5 * largest, err_msg=path
    )
