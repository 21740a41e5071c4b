"""The page about photographs of one's own: every block, on drawn ones."""

import importlib
import json
import os
import pathlib
import re
import shlex
import shutil
from collections.abc import Iterator
from typing import Any

import drawn_photos
import numpy as np
import pytest
import tiny_ovseg
from PIL import Image

from ovs_jax import arguments, predict
from ovs_jax import main as job
from ovs_jax.__main__ import COMMANDS
from ovs_jax.adapt import run as adapting
from ovs_jax.core.checkpoint import load_config, save_model
from ovs_jax.core.files import atomic_path, read_json, write_json
from ovs_jax.core.limits import plain
from ovs_jax.data import load_names
from ovs_jax.evaluate.scores import scores_of
from ovs_jax.evaluate.sources import Target
from ovs_jax.evaluate.tally import Tally
from ovs_jax.inference.assemble import assemble
from ovs_jax.models.stored import load
from ovs_jax.predict_options import parser
from ovs_jax.settings import Dataset, Settings
from ovs_jax.train.pipeline import run_pipeline
from ovs_jax.train.recipes.recipe import described

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'your_own_data.md'
SHARED = pathlib.Path(os.environ.get('OVS_SHARED', ROOT.parent / 'shared'))
RUNS = ('mine', 'again')
STAGES = ('before', 'chosen_before', 'pairs', 'labelled', 'masks', 'prompts')
STAGES += ('candidate', 'chosen', 'ovseg', 'after')


def blocks() -> list[str]:
  """The commands of the page, in order."""
  found = re.findall(r'```sh\n(.*?)```', PAGE.read_text(encoding='utf-8'), re.DOTALL)
  return [line for block in found for line in block.strip().splitlines()]


def typed(line: str) -> tuple[str, list[str]]:
  """The command's name and its arguments, for photographs that are few and small."""
  python, option, module, name, *rest = shlex.split(line)
  assert (python, option, module) == ('.venv/bin/python', '-m', 'ovs_jax')
  rest = [re.sub(r'--minutes=\d+', '--minutes=0.01', x) for x in rest]
  return name, rest


def execute(line: str, data_dir: str) -> None:
  """Runs a command in this process: starting another one takes seconds."""
  name, rest = typed(line)
  if name == 'train':
    options = dict(x.removeprefix('--').split('=', 1) for x in rest)
    arguments.with_packaged([])
    spec = importlib.util.spec_from_file_location('adapted', options['config'])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = Settings.of(module.get_config())
    job.run(config.mode, config, pathlib.Path(options['workdir']).absolute())
    return
  module, before, _ = COMMANDS[name]
  module = 'ovs_jax.adapt.__main__' if name == 'adapt' else module
  if name in ('prepare', 'adapt', 'evaluate'):
    rest.append(f'--data_dir={data_dir}')
  command = importlib.import_module(module)
  main = command.evaluate if name == 'evaluate' else command.main
  assert main([*before, *rest]) in (0, None), line


def stand_in(mode: str, stage: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  """Leaves the files that a job leaves, without its networks."""
  workdir.mkdir(parents=True, exist_ok=True)
  write_json(workdir / 'config.json', stage.to_json())
  if mode == 'pipeline':
    return run_pipeline(stage, workdir, stand_in)
  if mode == 'assemble':
    return assemble(stage, workdir)
  if mode == 'benchmark':
    return counted(stage, workdir)
  if mode == 'train':
    trained(stage, workdir)
  return {}


def counted(stage: Settings, workdir: pathlib.Path) -> dict[str, Any]:
  target = Target.parse(stage.suite.datasets[0])
  names = load_names(Dataset(target.name, target.variant, stage.dataset.data_dir))
  tally = Tally(len(names))
  truth = np.arange(64, dtype=np.int32).reshape(8, 8) % len(names)
  better = 1 if '{run}' not in stage.eval.checkpoint and workdir.name != 'after' else 4
  for i in range(3):
    label = np.where(np.arange(8)[:, None] < better + i, truth, 0)
    tally.add(f'{i}', label, truth)
  folder = workdir / target.folder
  folder.mkdir()
  with atomic_path(folder / 'counts.npz') as temporary:
    images = np.array(sorted(tally.images))
    np.savez(temporary, images=images, counts=tally.table())
  Image.new('RGB', (4, 4)).save(folder / 'sheet.png')
  scores = scores_of(tally, {}, replicates=0)
  methods = {'proposer': scores, 'ensemble_0.35': {**scores, 'miou_predicted_too': 1.0}}
  return {str(target): {'headline': 'proposer', 'methods': methods}}


def trained(stage: Settings, workdir: pathlib.Path) -> None:
  """As good as what it began with; a step takes a tenth of a second."""
  c = stage.train
  lines = [
    {'step': i, 'images_per_second': 10.0 * c.batch_size} for i in range(1, c.steps + 1)
  ]
  (workdir / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  found = load(stage.init.clip)
  config = found.config
  kind = 'proposer' if stage.recipe == 'proposer' else 'clip'
  part = getattr(config, kind)
  chosen = stage.train.choose or stage.adapt.evaluate_every
  place = workdir / ('best' if chosen else f'checkpoints/{c.steps}')
  save_model(place, found.params[kind], described(kind, **{kind: plain(part)}))


@pytest.fixture(
  scope='module', params=['stand-ins', pytest.param('real', marks=pytest.mark.slow)]
)
def place(
  request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[pathlib.Path]:
  """Returns a folder in which all commands of the page have run."""
  root = tmp_path_factory.mktemp('own')
  drawn_photos.write(root / 'photos', 15, side=32, alike=True)
  tiny_ovseg.save_smallest(root / 'checkpoints/ovseg')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(root)
    if request.param == 'stand-ins':
      patch.setattr(job, 'run', stand_in)
      patch.setattr(predict, 'main', lambda argv: parser().parse_args(argv) and 0)
    for line in blocks():
      execute(line, str(root / 'data'))
    yield root


def test_every_stage_has_run_and_runs_again(place: pathlib.Path) -> None:
  for run in RUNS:
    for stage in STAGES:
      assert (place / 'runs' / run / stage / 'done.json').exists(), (run, stage)
  files = [place / 'runs' / run / 'prompts/evaluations.jsonl' for run in RUNS]
  if files[0].exists():  # of real trainings
    assert files[0].read_text() == files[1].read_text()
  assert not list((place / 'runs/mine').glob('probe_*'))


def test_the_report_compares_what_was_counted(place: pathlib.Path) -> None:
  run = place / 'runs/mine'
  found = read_json(run / 'report.json')
  text = (run / 'report.md').read_text()
  titles = [row['title'] for row in found['rows']]
  # A list of the package calls the sky and the grass stuff.
  assert titles == ['all classes', 'stuff', *drawn_photos.NAMES]
  for part, stage in (('before', 'before'), ('after', 'after')):
    (summary,) = read_json(run / stage / 'done.json')['result'].values()
    scores = summary['methods'][summary['headline']]
    assert found['rows'][0][part][0] == pytest.approx(scores['miou_predicted_too'])
  for row in found['rows']:
    value = row['after'][0] - row['before'][0]
    assert row['gain'][0] == pytest.approx(value, abs=1e-6)
  assert 'best, median and worst' in text and 'sheet.png' in text
  for link in re.findall(r'!\[.*?\]\((.*?)\)', text):
    Image.open(run / link).load()


def test_val_is_seen_by_nothing(place: pathlib.Path) -> None:
  run = place / 'runs/mine'
  for stage in ('pairs', 'labelled', 'masks', 'chosen', 'chosen_before'):
    stored = read_json(run / stage / 'config.json')
    used = [stored['train']['split'], stored['train']['choose']]
    used += [stored['mining']['split'], *stored['suite']['datasets']]
    kinds = {'pairs': used[2:3], 'labelled': used[2:3], 'masks': used[:2]}
    for split in kinds.get(stage, used[3:]):
      assert split.rpartition(':t')[2].startswith(('train[', 'rain[')), (stage, split)
  settings = read_json(run / 'adapt.json')['photos']
  assert settings['train'] == 'train[2:]' and settings['choose'] == 'train[:2]'


def test_the_same_command_does_nothing_again(
  place: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  line = next(x for x in blocks() if ' adapt ' in x)
  model = place / 'runs/mine/ovseg/model'
  before = {p: p.stat().st_mtime_ns for p in model.rglob('*') if p.is_file()}
  execute(line, str(place / 'data'))
  assert {p: p.stat().st_mtime_ns for p in before} == before
  assert capsys.readouterr().out.count('finished earlier, skipped') >= len(STAGES)
  name, rest = typed(line)
  rest = [x.replace('0.01', '3') for x in rest] + [f'--data_dir={place / "data"}']
  command = importlib.import_module('ovs_jax.adapt.__main__')
  assert name == 'adapt' and command.main(rest) == 2
  assert 'was begun with another minutes' in capsys.readouterr().err


def test_parts_put_together(place: pathlib.Path) -> None:
  stored = load_config(place / 'runs/other')
  assert stored['weight'] == 0.3 and stored['region']['threshold'] == 0.1
  assert stored['test'] == {'shortest': 40, 'longest': 96}


def test_captions_alone_are_mined(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  drawn_photos.write(tmp_path / 'photos', 12, side=32, alike=True)
  shutil.rmtree(tmp_path / 'photos' / 'masks')
  (tmp_path / 'photos' / 'names.txt').unlink()
  captions = ['a red ball on the grass', 'the sky above a blue box']
  lines = [
    json.dumps({'image': path.name, 'captions': captions})
    for path in sorted((tmp_path / 'photos' / 'images').iterdir())
  ]
  (tmp_path / 'photos' / 'captions.jsonl').write_text('\n'.join(lines))
  tiny_ovseg.save_smallest(tmp_path / 'ovseg')
  ran: list[str] = []

  def run(mode: str, stage: Settings, workdir: pathlib.Path) -> dict[str, Any]:
    ran.append(mode)
    return stand_in(mode, stage, workdir)

  monkeypatch.setattr(job, 'run', run)
  command = importlib.import_module('ovs_jax.adapt.__main__')
  out = tmp_path / 'out'
  words = [f'--data={tmp_path}/photos', f'--checkpoint={tmp_path}/ovseg']
  words += [f'--output={out}', '--minutes=0.01', f'--data_dir={tmp_path}/data']
  assert command.main(words) == 0
  assert 'benchmark' not in ran
  for stage in ('pairs', 'prompts', 'ovseg'):
    assert (out / stage / 'done.json').exists(), stage
  assert not (out / 'masks').exists() and not (out / 'labelled').exists()
  mining = read_json(out / 'pairs' / 'config.json')['mining']
  assert (mining['masks'], mining['nouns']) == ('proposals', 'captions')
  text = (out / 'report.md').read_text()
  assert 'no photos with masks to report on: nothing was measured' in text
  assert 'steps, the last of which is kept' in text


def test_better_parts_are_taken_and_worse_ones_are_not() -> None:
  def stage(**scores: float) -> dict[str, Any]:
    methods = {k: {'miou_predicted_too': x} for k, x in scores.items()}
    summary = {'headline': 'ensemble_0.70', 'methods': methods}
    return {'result': {'folder/x:train[:2]': summary}}

  before = stage(proposer=10.0, ensemble_0=30.0, oracle_masks=90.0)
  chosen = adapting.choose({'chosen_before': before, 'chosen': stage(clip=31.0)})
  assert chosen == {'adapted': True, 'classifier': 'clip'}
  chosen = adapting.choose(
    {'chosen_before': before, 'chosen': stage(**{'ensemble_0.35': 30.0})}
  )
  assert chosen == {'adapted': False, 'classifier': 'ensemble', 'weight': 0.0}
