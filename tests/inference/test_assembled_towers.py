"""OVSegs of CLIPs whose towers are not OpenAI's: put together, resized and run."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_ovseg

from configs import scenes
from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.inference.assemble import assemble
from ovs_jax.models import image_kinds, ovseg
from ovs_jax.models.clip import PRESETS, ClipConfig
from ovs_jax.models.clip_config import ImageTower
from ovs_jax.ops.resize import resize_grid
from ovs_jax.settings import Settings

KINDS = {
  'siglip': PRESETS['tiny_siglip'].image_tower,
  'pe': image_kinds.pe(6),
  'eva02': image_kinds.EVA02,
}


def save_parts(folder: pathlib.Path, kind: ImageTower) -> ClipConfig:
  """Writes a proposer in an OVSeg, and a CLIP with such a tower."""
  clip = dataclasses.replace(
    tiny_ovseg.CONFIG.clip,
    vision_layers=1,
    prompt_depth=0,
    image_tower=dataclasses.replace(kind, pool_heads=4 if kind.pool == 'map' else 0),
  )
  config = dataclasses.replace(tiny_ovseg.CONFIG, clip=clip)
  params = tiny_ovseg.draw_params(config)
  save_model(folder / 'whole', params, {**tiny_ovseg.STORED, **config.to_dict()})
  stored = {'model': 'clip', 'clip': dataclasses.asdict(clip)}
  save_model(folder / 'clip', params['clip'], stored)
  return clip


@pytest.mark.parametrize(
  'name',
  ['siglip', *(pytest.param(x, marks=pytest.mark.slow) for x in ('pe', 'eva02'))],
)
def test_crops_of_another_side(name: str, tmp_path: pathlib.Path) -> None:
  """Positions of patches are resized, that of a class token stays."""
  clip = save_parts(tmp_path, KINDS[name])
  where = [str(tmp_path / part) for part in ('whole', 'clip')]
  config = scenes.assemble(*where, prompt_depth=0)
  config.test.update(clip_side=64, shortest=40, longest=96)
  assemble(Settings.of(config), tmp_path / 'run')
  params, stored = load_model(tmp_path / 'run' / 'model')
  assert stored['clip']['image_size'] == stored['region']['size'] == 64
  before = load_model(tmp_path / 'clip')[0]['visual']['positional_embedding']
  after = params['clip']['visual']['positional_embedding']
  first = int(clip.image_tower.class_token)
  assert before.shape[0] == first + 36 and after.shape[0] == first + 64
  np.testing.assert_array_equal(after[:first], before[:first])
  method = 'bilinear' if name == 'pe' else 'bicubic'
  want = resize_grid(jnp.asarray(before[first:]), (8, 8), method)
  np.testing.assert_allclose(after[first:], want, atol=1e-6)
  model = ovseg.OvSegConfig.from_dict(stored)
  assert model.clip.image_tower == clip.image_tower
  rng = np.random.default_rng(0)
  pixels = jnp.asarray(rng.normal(size=(1, 64, 64, 3)), jnp.float32)
  run = jax.jit(lambda p: ovseg.embed_crops(model, p, pixels, jnp.ones((1, 64, 64))))
  assert np.isfinite(run(params['clip'])).all()
