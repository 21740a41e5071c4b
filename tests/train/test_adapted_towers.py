"""Fine-tuning of CLIPs whose towers are not OpenAI's."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import tiny_configs

from ovs_jax.core.checkpoint import save_model
from ovs_jax.models.clip import PRESETS, ClipConfig, init_clip
from ovs_jax.settings import Settings
from ovs_jax.train.recipes.clip_regions import ClipRegions

SIGLIP = PRESETS['tiny_siglip']
KIND = {
  'image_tower': dataclasses.replace(SIGLIP.image_tower, pool_heads=2),
  'text_tower': SIGLIP.text_tower,
  'scores': 'sigmoid',
}


def test_nouns_are_embedded_once_with_a_logit_bias_beside_them(
  data_dir: str, pairs_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  where = str(tmp_path / 'clip')
  config = tiny_configs.fine_tuning(data_dir, where, str(pairs_dir))
  plain = ClipConfig.from_dict(config.clip.to_dict())
  clip = dataclasses.replace(plain, **KIND)
  config.clip.update(dataclasses.asdict(clip))
  config.adapt.cache_text = True
  shapes = jax.eval_shape(lambda k: init_clip(clip, k), jax.random.key(0))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: (0.3 * rng.normal(size=x.shape)).astype(x.dtype), shapes
  )
  stored = {'model': 'clip', 'clip': dataclasses.asdict(clip)}
  save_model(tmp_path / 'clip', params, stored)
  recipe = ClipRegions(Settings.of(config))
  _, constants = recipe.prepare(jax.random.key(0))
  lengths = jnp.linalg.norm(constants['nouns'], axis=1)
  np.testing.assert_allclose(lengths, 1, rtol=1e-5)
