"""`ovs-jax adapt` with a CLIPSeg: from photographs to a decoder that knows them."""

import json
import pathlib

import drawn_photos
import pytest
import tiny_prompted

from ovs_jax.adapt import plan
from ovs_jax.adapt.__main__ import main
from ovs_jax.adapt.run import choose
from ovs_jax.core.files import read_json
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.models.stored import load

STAGES = ('before', 'chosen_before', 'phrases', 'chosen', 'after')


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Returns a folder in which a CLIPSeg has been adapted."""
  root = tmp_path_factory.mktemp('own')
  drawn_photos.write(root / 'photos', 15, side=32, alike=True)
  tiny_prompted.save(root / 'checkpoints')
  assert main(words(root)) == 0
  return root


def words(root: pathlib.Path, **more: str) -> list[str]:
  given = {
    'data': root / 'photos',
    'checkpoint': root / 'checkpoints/clipseg',
    'output': root / 'mine',
    'minutes': '0.01',
    'data_dir': root / 'data',
    **more,
  }
  return [f'--{key}={value}' for key, value in given.items()]


def test_all_stages_have_run(place: pathlib.Path) -> None:
  run = place / 'mine'
  for stage in STAGES:
    assert (run / stage / 'done.json').exists(), stage
  assert not list(run.glob('probe_*'))
  note = read_json(run / 'adapt.json')
  assert note['chosen'] and note['photos']['phrases'] == 20
  assert note['photos']['train'] == f'train[{count(place)}:]'
  text = (run / 'adapt.py').read_text()
  assert 'from configs import photos_clipseg' in text
  assert "CLIPSeg's decoder: 20 steps at most" in (run / 'report.md').read_text()


def count(place: pathlib.Path) -> int:
  """Photos of train that choose: a fifth, and two at least."""
  choose = read_json(place / 'mine/adapt.json')['photos']['choose']
  return int(choose.removeprefix('train[:').removesuffix(']'))


def test_steps_are_scored_as_a_report_would(place: pathlib.Path) -> None:
  """Before the first step, on the same photos and by the same rule."""
  lines = (place / 'mine/phrases/evaluations.jsonl').read_text().splitlines()
  first, *others = map(json.loads, lines)
  (summary,) = read_json(place / 'mine/chosen_before/done.json')['result'].values()
  assert summary['headline'] == 'A' and summary['images'] == count(place)
  expected = summary['methods']['A']['miou_predicted_too']
  assert first['step'] == 0 and first['miou'] == pytest.approx(expected, abs=1e-3)
  best = max([first, *others], key=lambda line: line['miou'])
  (summary,) = read_json(place / 'mine/chosen/done.json')['result'].values()
  expected = summary['methods']['A']['miou_predicted_too']
  assert best['miou'] == pytest.approx(expected, abs=1e-3)


def test_the_report_says_which_model_it_is(place: pathlib.Path) -> None:
  report = read_json(place / 'mine/report.json')
  trained = place / 'mine/phrases/best'
  own = report['settings']['adapted']
  assert report['model'] == str(trained if own else place / 'checkpoints/clipseg')
  assert report['rows'][0]['title'] == 'all classes'
  assert {row['title'] for row in report['rows']} >= set(drawn_photos.NAMES)
  assert load(trained).kind == 'clipseg'
  assert Segmenter.load(trained).system.kind == 'clipseg'


def test_the_same_command_does_nothing_again(
  place: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  assert main(words(place)) == 0
  assert capsys.readouterr().out.count('finished earlier, skipped') == len(STAGES)


def test_what_is_no_better_is_not_taken() -> None:
  def stage(score: float, always: float) -> dict[str, object]:
    methods = {'A': score, 'A, threshold 0': always}
    named = {k: {'miou_predicted_too': x} for k, x in methods.items()}
    return {'result': {'x': {'headline': 'A', 'methods': named}}}

  before = stage(30.0, 90.0)
  found = choose({'chosen_before': before, 'chosen': stage(30.0, 95.0)})
  assert found == {'adapted': False}
  found = choose({'chosen_before': before, 'chosen': stage(30.1, 0.0)})
  assert found == {'adapted': True}


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'side': '64'}, 'a CLIPSeg has a size of its own; leave --side=64 out'),
    ({'checkpoint': 'coseg'}, "a 'ovseg' or 'clipseg' model was expected"),
  ],
)
def test_what_cannot_be_is_said_in_one_line(
  place: pathlib.Path,
  given: dict[str, str],
  message: str,
  capsys: pytest.CaptureFixture[str],
) -> None:
  more = {
    k: f'{place}/checkpoints/{x}' if x == 'coseg' else x for k, x in given.items()
  }
  assert main(words(place, output=str(place / 'other'), **more)) == 2
  assert message in capsys.readouterr().err


def test_captions_alone_teach_it_nothing() -> None:
  photos = plan.Photos('photos', {'train': 20}, (), True, 0, 0, False)
  with pytest.raises(ValueError, match='has no masks, from which a CLIPSeg learns'):
    plan.parts(photos, 'clipseg')
