"""Every number of the authors' configuration files that a model or training here has.

Those files are ovseg_swinB_vitL_bs32_120k.yaml, ovseg_R101c_vitB_bs32_120k.yaml and
what both are based on; the table writes them out. Of converted models see
tests/convert/test_convert_ovseg.py.
"""

import importlib
import pathlib
from typing import Any

import numpy as np
import pytest

from configs import adaptation, clipseg_finetune
from ovs_jax.models import clipseg, maskformer
from ovs_jax.models.stored import check_agreement
from ovs_jax.settings import Settings
from ovs_jax.train.recipes.clipseg import ClipSegTraining

SWIN, RESNET = 'Swin', 'ResNet'
# MASK_THR, MIN_SIZE_TEST, MAX_SIZE_TEST
INFERENCE = {SWIN: (0.4, 640, 2560), RESNET: (0.5, 512, 2048)}
TRAINING = {
  SWIN: {
    'config': 'proposer_swin_b',
    'learning_rate': 6e-5,
    'weight_decay': 0.01,
    'shortest': tuple(range(320, 1281, 64)),
    'longest': 2560,
    'crop': 640,
    'backbone_rate': 1.0,
  },
  RESNET: {
    'config': 'proposer_r101c',
    'learning_rate': 2e-4,
    'weight_decay': 1e-4,
    'shortest': (800,),
    'longest': 1333,
    'crop': 512,
    'backbone_rate': 0.1,
  },
}


def published(stored: Any) -> tuple[float, int, int]:
  test = stored['test']
  return stored['region']['threshold'], test['shortest'], test['longest']


@pytest.mark.parametrize(('kind', 'size'), [(SWIN, 'vitl14'), (RESNET, 'vitb16')])
def test_an_assembled_model_has_the_settings_of_its_file(kind: str, size: str) -> None:
  config = adaptation.frozen(size)
  assert published({'region': config.region, 'test': config.test}) == INFERENCE[kind]
  region, test = config.region, config.test
  assert (region.fill, region.expand, region.matting) == ('mean', 1.0, False)
  assert (test.weight, test.classifier, config.text.templates) == (
    0.7,
    'ensemble',
    'vild',
  )


@pytest.mark.parametrize('kind', [SWIN, RESNET])
def test_a_proposer_trains_with_the_numbers_of_its_file(kind: str) -> None:
  own = TRAINING[kind]
  config = importlib.import_module(f'configs.{own["config"]}').get_config()
  train, optimizer = config.train, config.optimizer
  assert (train.steps, train.batch_size) == (120_000, 32)
  assert tuple(train.shortest) == own['shortest']
  assert (train.longest, train.crop, train.colour) == (
    own['longest'],
    own['crop'],
    True,
  )
  assert optimizer.learning_rate == own['learning_rate']
  assert optimizer.weight_decay == own['weight_decay']
  assert (optimizer.schedule, optimizer.power) == ('warmup_poly', 0.9)
  assert (optimizer.warmup, optimizer.gradient_clip) == (1500, 0.01)
  assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.999, 1e-8)
  rates = [r for pattern, r in optimizer.groups if pattern == r'^backbone/']
  assert (rates or [1.0]) == [own['backbone_rate']]
  weights = train.set_weights
  assert (weights.ce, weights.mask, weights.dice) == (1.0, 20.0, 1.0)
  model = maskformer.MaskFormerConfig(**config.proposer)
  assert (model.num_queries, model.layers, model.heads, model.width) == (100, 6, 8, 256)
  assert (model.feed_forward, model.dropout, model.mask_dim) == (2048, 0.1, 256)
  assert (model.embed_hidden, model.groups) == (1024, 32)
  backbone = model.backbone_config()
  if kind == SWIN:
    assert np.isclose(backbone.drop_path, 0.3) and backbone.window == 12


@pytest.mark.parametrize('name', clipseg.PRESETS)
def test_every_published_clipseg_can_go_on(name: str) -> None:
  config = clipseg_finetune.get_config(name)
  directory = f'checkpoints/clipseg_{name}'
  assert config.init.clipseg == directory
  asked = ClipSegTraining(Settings.of(config)).model
  published = clipseg.PRESETS[name]
  check_agreement(asked, published, key='config', directory=pathlib.Path(directory))
  other = clipseg.PRESETS['rd16' if name != 'rd16' else 'rd64']
  with pytest.raises(ValueError, match='reduce_dim'):
    check_agreement(asked, other, key='config', directory=pathlib.Path(directory))
