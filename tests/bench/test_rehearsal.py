"""The rehearsal: published files and weights, drawn, through every kind of stage."""

import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import zipfile

import pytest
from ml_collections import ConfigDict

from configs import rehearsal
from ovs_jax.bench import rehearsal_report
from ovs_jax.core.files import read_json
from ovs_jax.settings import Settings

ROOT = pathlib.Path(__file__).parents[2]
ONE = '--xla_force_host_platform_device_count=1'


def start(directory: pathlib.Path) -> str:
  """Runs the command as people do, on one device, and returns what it says."""
  words = ['--config=configs/rehearsal.py:test', f'--workdir={directory}']
  done = subprocess.run(
    [sys.executable, '-m', 'ovs_jax.main', *words],
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} {ONE}'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  directory = tmp_path_factory.mktemp('rehearsal')
  modes = re.findall(r'^\[.*\] \w+ \((\w+)\)$', start(directory), re.MULTILINE)
  assert set(modes) == {'rehearse', 'train', 'mine', 'assemble', 'benchmark', 'table'}
  return directory


def test_published_files_are_converted(finished: pathlib.Path) -> None:
  large = finished / 'weights_vitl14' / 'published'
  for name in ('ViT-L-14.pt', 'swin_base_patch4_window12_384_22k.pth'):
    assert zipfile.is_zipfile(large / name)
  with open(finished / 'weights_vitb16' / 'published' / 'R-103.pkl', 'rb') as file:
    assert 'res2.0.conv1.weight' in pickle.load(file)['model']
  found = {}
  for size in ('vitl14', 'vitb16'):
    done = read_json(finished / f'weights_{size}' / 'done.json')['result']
    found[size] = {x['layout'] for x in done['checkpoints'].values()}
  assert found == {
    'vitl14': {'openai', 'swin', 'ovseg'},
    'vitb16': {'openai', 'resnet', 'ovseg'},
  }


def test_it_ends_with_the_tables(finished: pathlib.Path) -> None:
  table = read_json(finished / 'paper_table1' / 'report.json')
  assert len(table['rows']) == 1
  for row in table['rows']:
    assert all(0 <= x <= 100 for x in row['measured'])
  text = (finished / 'report' / 'report.md').read_text()
  assert text.count('OVSeg, Table 1') == 1
  assert '| `train.steps` | `120000` | `2` | proposer_swin_b |' in text


def test_the_report_names_every_change(finished: pathlib.Path) -> None:
  """What it lists, applied to the full-size stages, gives the stages that were run."""
  report = read_json(finished / 'report' / 'report.json')
  here = read_json(finished / 'config.json')['stages']
  again = {
    name: rehearsal_report._plain(Settings.of(stage).to_dict())
    for name, stage in rehearsal_report.stages_of(('paper_table1',)).items()
    if name in here
  }
  for change in report['changes']:
    for name in change['stages']:
      *sections, key = change['key'].split('.')
      section = again[name]
      for part in sections:
        section = section[part]
      assert section[key] == change['full']
      section[key] = change['here']
  for name, stage in again.items():
    expected = rehearsal_report._at_home(here[name])
    assert {**rehearsal_report._at_home(stage), 'needs': 0} == {**expected, 'needs': 0}


def test_a_second_run_skips_everything(finished: pathlib.Path) -> None:
  order = rehearsal.get_config('test').order
  assert start(finished).count('finished earlier, skipped') == len(order)


# What the default variant may change; sizes of networks are not among it.
_MAY = re.compile(
  r'(dataset\.(data_dir|variant)|mining\.(caption_file|chunk|disk_megabytes)'
  r'|optimizer\.warmup|proposer\.num_queries|suite\.(bootstrap|datasets|sheet'
  r'|distractors)|table\.(columns|rows)|text\.templates'
  r'|train\.(batch_size|disk_megabytes|epochs|keep|log_every|max_targets'
  r'|save_every|steps))'
)


def test_at_full_size_no_network_is_changed() -> None:
  config = Settings.of(rehearsal.get_config())
  full = rehearsal_report.stages_of(rehearsal.TABLES)
  here = rehearsal_report._plain(config.to_dict())['stages']
  found = rehearsal_report.changes(full, here)
  assert [c['key'] for c in found['changes'] if not _MAY.fullmatch(c['key'])] == []
  assert set(full) | {'files', 'weights_vitl14', 'weights_vitb16', 'report'} == {
    *config.order
  }
  assert set(rehearsal.TABLES) <= set(config.order)


def test_changes_are_what_differs() -> None:
  full = ConfigDict(rehearsal_report.stages_of(('paper_table1',))['ft_vitl14'])
  here = rehearsal_report._plain(Settings.of(full).to_dict())
  assert rehearsal_report.changes({'ft': full}, {'ft': here})['changes'] == []
  here['train']['steps'], here['place'] = 7, f'{{run}}/{here["place"]}'
  found = rehearsal_report.changes({'ft': full}, {'ft': json.loads(json.dumps(here))})
  assert found['moved'] == {'place': 1}
  assert found['changes'] == [
    {'key': 'train.steps', 'full': 0, 'here': 7, 'stages': ['ft']}
  ]


def test_the_small_tables_have_every_case_of_the_larger_model() -> None:
  small = Settings.of(rehearsal.get_config('tables'))
  left = set(rehearsal.get_config().order) - set(small.order)
  assert left and all('vitb16' in name or 'r101c' in name for name in left)
  rows = [len(small.stages[name].table.rows) for name in rehearsal.TABLES]
  assert rows == [1, 5, 4]
