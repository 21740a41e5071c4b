"""Every full-size training can start on GPUs and TPUs: its step is traced for them."""

import importlib
import itertools
import pathlib
from typing import Any

import full_size
import jax
import pretended_gpu
import pytest

from ovs_jax.bench import drawn
from ovs_jax.core.flops import count_work

ROOT = pathlib.Path(__file__).parents[2]
CLIPS = ('mpt_vitl14', 'ft_vitl14', 'mpt_vitb16', 'ft_vitb16')
OTHERS = (
  'proposer_swin_b',
  'coseg_prefix_vitb16',
  'coseg_cross_vitb16',
  'clipseg_finetune',
)
# All that train networks of the published sizes, with their arguments.
TRAININGS = [
  *itertools.product(
    (*CLIPS, 'mpt_ft_vitl14', 'mpt_ft_vitb16', 'gt_classes_vitl14'),
    ('', 'script'),
  ),
  ('mpt_ft_vitl14', 'joint'),
  *((name, '') for name in (*OTHERS, 'proposer_r101c')),
]
KERNEL = '__cudnn$fmha'


def lowered(config: Any, machine: str, patch: pytest.MonkeyPatch) -> str:
  with jax.set_mesh(full_size.mesh()):
    program, *shapes = full_size.step(config)
    exported = full_size.export(program, *shapes, machine=machine, patch=patch)
  return exported.mlir_module()


def narrow(config: Any) -> Any:
  """The option that needs less memory, for recipes that compute in float32."""
  tower = config.proposer if config.recipe == 'proposer' else config.clip
  tower.update(dtype='bfloat16', remat=True)
  return config


def shallow(config: Any) -> Any:
  """Fewer layers of those that are not in a scan; widths and lengths stay."""
  config.proposer.layers = 1
  language = config.coseg.language
  language.encoder_layers = min(1, language.encoder_layers)
  language.decoder_layers = min(1, language.decoder_layers)
  return config


@pytest.mark.parametrize(
  ('name', 'machine'),
  [
    ('mpt_vitl14', 'H100'),
    ('ft_vitl14', 'H100'),
    ('ft_vitb16', 'A100'),
    ('mpt_vitl14', 'TPU'),
  ],
)
def test_adaptation_starts(
  name: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  text = lowered(drawn.configuration(name), machine, monkeypatch)
  assert (KERNEL in text) == (machine != 'TPU')


@pytest.mark.parametrize(
  ('name', 'fused'),
  [('proposer_swin_b', False), ('clipseg_finetune', True)],
)
def test_others_start_in_bfloat16(
  name: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = shallow(narrow(drawn.configuration(name)))
  assert (KERNEL in lowered(config, 'H100', monkeypatch)) == fused


def test_the_step_is_the_same_work_with_less_memory(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  pretended_gpu.pretend(monkeypatch, '9.0')
  works = []
  for remat in (True, False):
    config = drawn.configuration('mpt_ft_vitl14', 'joint')
    config.clip.remat = remat
    with jax.set_mesh(full_size.mesh()):
      works.append(count_work(*full_size.step(config)))
  assert works[0] == works[1]
  # Float32 are the projection of the class tokens, with both its gradients, and the
  # logits of the batch, with that of the crops; the texts are frozen.
  rows, clip = config.train.batch_size, config.clip
  projection = 2 * rows * clip.vision_width * clip.embed_dim
  logits = 2 * rows * rows * clip.embed_dim
  assert works[0]['float32'] == 3 * projection + 2 * logits
  assert works[0]['bfloat16'] > 1000 * works[0]['float32']


@pytest.mark.slow
@pytest.mark.parametrize('machine', full_size.MACHINES)
@pytest.mark.parametrize(('name', 'argument'), TRAININGS)
def test_every_training_starts(
  name: str, argument: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = drawn.configuration(name, argument)
  wide = config.recipe != 'clip_regions'  # computes in float32, which cuDNN does not
  found = KERNEL in lowered(config, machine, monkeypatch)
  assert found == (machine != 'TPU' and not wide)
  if wide:
    found = KERNEL in lowered(narrow(config), machine, monkeypatch)
    # The proposer drops attention weights and has biases, which cuDNN does not take.
    assert found == (machine != 'TPU' and config.recipe != 'proposer')


@pytest.mark.slow
def test_none_is_forgotten() -> None:
  found = set()
  for path in (ROOT / 'configs').glob('*.py'):
    module = importlib.import_module(f'configs.{path.stem}')
    for argument in ('', 'script', 'joint') if hasattr(module, 'get_config') else ():
      try:
        config = module.get_config(argument)
      except ValueError:  # it has no such argument
        continue
      width = config[config.recipe if config.recipe == 'proposer' else 'clip'].embed_dim
      if config.mode == 'train' and width >= 512:
        found.add((path.stem, argument))
  assert found == set(TRAININGS)
