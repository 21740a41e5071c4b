"""The report of a replication whose counts are made up, and its stages."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from configs import common, replicate
from ovs_jax.core.files import write_json
from ovs_jax.evaluate import replication
from ovs_jax.evaluate.claims import CLAIMS
from ovs_jax.evaluate.network import Setting
from ovs_jax.evaluate.resampling import Gain, Quantity
from ovs_jax.settings import Settings

CLASSES = 72


def quantities(cell: Any) -> list[Quantity]:
  if isinstance(cell, Gain):
    return quantities(cell.lower) + quantities(cell.higher)
  return [cell]


def needed() -> dict[str, list[str]]:
  """Every method that a claim needs, by stage, in an order that is always the same."""
  cells = [c for claim in CLAIMS for row in claim.rows for c in row.cells]
  cells += [x for claim in CLAIMS for r in claim.relations for x in (r.lower, r.higher)]
  found: dict[str, set[str]] = {}
  for cell in cells:
    for quantity in quantities(cell):
      found.setdefault(quantity.stage, set()).add(quantity.method)
  return {stage: sorted(methods) for stage, methods in sorted(found.items())}


def write(place: pathlib.Path, level: dict[str, int]) -> None:
  """Counts of 30 images that show three to eight classes, of 100 pixels each."""
  rng = np.random.default_rng(0)
  for stage, methods in needed().items():
    arrays = {}
    for method in methods:
      counts = np.zeros((30, 3, CLASSES), np.int32)
      for i, image in enumerate(counts):
        shown = rng.permutation(CLASSES)[: 3 + i % 6]
        image[1:, shown] = 100
        image[0, shown] = level.get(stage, 50) + rng.integers(-2, 3, len(shown))
      arrays[method] = counts
    (place / stage).mkdir(parents=True)
    np.savez(place / stage / 'counts.npz', **arrays)
    gflops = {'proposer': 1.25, 'clip': 0.5}
    write_json(place / stage / 'scores.json', {'gflops': gflops})


@pytest.fixture
def config(tmp_path: pathlib.Path) -> Any:
  config = common.base('report', 'replicate')
  config.report.update(run=str(tmp_path), resamples=100)
  return config


def test_every_claim_can_be_judged(config: Any, tmp_path: pathlib.Path) -> None:
  level = {'evaluate_frozen': 30, 'evaluate_mpt': 60, 'evaluate_ft': 60}
  write(tmp_path / 'seed_0', level)
  found = replication.replicate(Settings.of(config), tmp_path / 'report')
  assert set(found) == {claim.key for claim in CLAIMS}
  steps = {r['title'].split(':')[0]: r['verdict'] for r in found['b']}
  assert steps['frozen < MPT'] == steps['frozen < FT'] == 'holds'
  assert steps['MPT < FT'] == 'undecided'
  assert steps['FT < FT, then MPT'] == 'does not hold'
  stored = json.loads((tmp_path / 'report.json').read_text())
  cells = stored['claims'][1]['rows'][0]['cells']
  assert cells[3]['value'] == pytest.approx(30, abs=1)  # an accuracy
  assert cells[1]['value'] == pytest.approx(100 * 30 / 170, abs=1)  # an IoU
  text = (tmp_path / 'report.md').read_text()
  for claim in CLAIMS:
    assert f'## ({claim.key}) {claim.title}' in text
    assert (tmp_path / f'claim_{claim.key}.png').stat().st_size > 1000
    for row in claim.rows:
      assert f'| {row.title} |' in text
  assert '1.25 + 0.50' in text and 'Not run.' not in text


def test_seeds_are_summed_up(config: Any, tmp_path: pathlib.Path) -> None:
  config.report.seeds = ('seed_0', 'seed_1')
  write(tmp_path / 'seed_0', {'evaluate_frozen': 30})
  write(tmp_path / 'seed_1', {'evaluate_frozen': 40})
  replication.replicate(Settings.of(config), tmp_path / 'report')
  stored = json.loads((tmp_path / 'report.json').read_text())
  cell = stored['claims'][1]['rows'][0]['cells'][3]
  assert cell['seeds'] == pytest.approx([30, 40], abs=1)
  assert cell['value'] == pytest.approx(35, abs=1)
  assert 'seeds 30' in (tmp_path / 'report.md').read_text()


def test_claims_without_their_stages_are_said_to_be_not_run(
  config: Any, tmp_path: pathlib.Path
) -> None:
  write(tmp_path / 'seed_0', {})
  for stage in (tmp_path / 'seed_0').glob('evaluate_coseg'):
    (stage / 'counts.npz').unlink()
  found = replication.replicate(Settings.of(config), tmp_path / 'report')
  assert {r['verdict'] for r in found['g']} == {'not run'}
  assert 'Not run.' in (tmp_path / 'report.md').read_text()


def test_nothing_to_report_is_an_error(config: Any, tmp_path: pathlib.Path) -> None:
  with pytest.raises(FileNotFoundError, match=r'configs/replicate\.py'):
    replication.replicate(Settings.of(config), tmp_path / 'report')


@pytest.mark.parametrize(('arg', 'seeds'), [('', 1), ('three', 3)])
def test_the_stages_make_what_the_claims_need(arg: str, seeds: int) -> None:
  config = replicate.get_config(arg)
  stages = dict(config.stages.items())
  assert sum(name.endswith('/clip') for name in stages) == seeds
  for number in range(seeds):
    for stage, methods in needed().items():
      made = stages[f'seed_{number}/{stage}']
      assert made.seed == number
      if made.mode == 'evaluate':
        assert set(methods) <= names_of(made), stage
      else:
        given = {k for k, v in made.systems.coseg.items() if v}
        given |= {'no_training'} if made.systems.clipseg else set()
        assert {m.split('/')[0] for m in methods} <= given
  # What a stage reads, an earlier one of its seed makes.
  made: list[str] = []
  for name in config.order:
    seed = name.split('/')[0]
    for text in strings(stages[name].to_dict()):
      if '{run}/' in text and name != 'report' and not text.endswith('/activations'):
        parts = text.removeprefix('{run}/').split('/')
        assert parts[0] == seed and '/'.join(parts[:2]) in made, (name, text)
    made.append(name)


def names_of(stage: Any) -> set[str]:
  """The counts that an evaluation keeps."""
  found = {Setting(m.classifier, m.weight).name for m in stage.eval.methods}
  found |= {f'distractors_{n}' for n in stage.eval.distractors}
  return found | {'oracle_masks', 'oracle_classes', 'crop_true_mask', 'crop_proposal'}


def strings(tree: dict[str, Any]) -> list[str]:
  found = []
  for value in tree.values():
    if isinstance(value, dict):
      found += strings(value)
    elif isinstance(value, str):
      found.append(value)
  return found
