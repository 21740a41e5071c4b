"""Configurations that make an OVSeg at full size: of what, and what they ask for."""

import importlib
import pathlib

import pytest

from configs import adaptation, ft_vitl14, mine_coco_captions
from ovs_jax.settings import Settings
from ovs_jax.train.needs import check_needs

CLIPS = {'vitl14': 'checkpoints/clip_vit_l14', 'vitb16': 'checkpoints/clip_vit_b16'}
PROPOSERS = {'vitl14': 'runs/proposer_swin_b', 'vitb16': 'runs/proposer_r101c'}


@pytest.mark.parametrize('size', ['vitl14', 'vitb16'])
@pytest.mark.parametrize(
  ('argument', 'tower', 'prompts'),
  [
    ('', 'ft', 'mpt_ft'),
    ('mpt_ft', 'ft', 'mpt_ft'),
    ('ft', 'ft', ''),
    ('mpt', '', 'mpt'),
    ('frozen', '', ''),
  ],
)
def test_an_ovseg_is_made_of_what_the_trainings_leave(
  size: str,
  argument: str,
  tower: str,
  prompts: str,
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  config = importlib.import_module(f'configs.ovseg_{size}').get_config(argument)
  assert config.mode == 'assemble'
  assert config.name == f'ovseg_{size}_{argument}'.rstrip('_')
  assert config.init.proposer == PROPOSERS[size]
  assert config.init.clip == (f'runs/{tower}_{size}' if tower else CLIPS[size])
  assert config.init.prompts == (f'runs/{prompts}_{size}' if prompts else '')
  assert config.test.prompt_depth == -1  # whatever the CLIP has then
  monkeypatch.chdir(tmp_path)
  with pytest.raises(FileNotFoundError) as caught:
    check_needs(Settings.of(config))
  named = [config.init.clip, config.init.proposer, config.init.prompts]
  for place in filter(None, named):
    assert place in str(caught.value)
  for run in filter(None, (tower, prompts)):
    command = f'launch/run.sh --config=configs/{run}_{size}.py'
    assert command in str(caught.value)
    module = importlib.import_module(f'configs.{run}_{size}')
    assert f'runs/{module.get_config().name}' in named  # where that command writes


@pytest.mark.parametrize('case', [*adaptation.PAIRS])
def test_pairs_of_every_case_lie_where_mining_leaves_them(case: str) -> None:
  config = mine_coco_captions.get_config(case)
  stage = '/mine' if config.mode == 'pipeline' else ''
  assert adaptation.PAIRS[case] == f'runs/{config.name}{stage}/pairs'
  training = ft_vitl14.get_config(case)
  assert training.init.pairs == adaptation.PAIRS[case]
  assert training.name == f'ft_vitl14_{case}'.rstrip('_')
  (command,) = (command for key, _, command in training.needs if key == 'init.pairs')
  suffix = f':{case}' if case else ''
  assert command == f'launch/run.sh --config=configs/mine_coco_captions.py{suffix}'
