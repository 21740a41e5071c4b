"""The command that builds data sets: everything that is wrong, in one list."""

import dataclasses
import os
import pathlib
import re
import signal
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny_layouts

from ovs_jax.data import (
  benchmarks,
  build,
  layouts,
  load_dataset,
  prepare,
  scenes,
  sources,
)
from ovs_jax.data.sources import Problem, SourceError
from ovs_jax.settings import Dataset

VOC = 'VOCdevkit/VOC2012'


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
  tiny_layouts.voc(tmp_path / 'source')
  return tmp_path / 'source'


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
  """Pretends that VOC publishes two images."""
  layout = layouts.LAYOUTS['voc_20']
  splits = {'val': dataclasses.replace(layout.splits['val'], count=2)}
  small = dataclasses.replace(layout, splits=splits)
  monkeypatch.setattr(benchmarks.Voc20, 'layout', small)


def spoil(source: pathlib.Path) -> list[Problem]:
  """Damages files in every way; returns what must be said."""
  top = source / VOC
  for i in range(3, 8):
    tiny_layouts.photo(top / f'JPEGImages/2007_{i}.jpg')
    label = top / f'SegmentationClassAug/2007_{i}.png'
    tiny_layouts.grey(label, tiny_layouts.values([0, 1]), palette=True)
  names = [f'2007_{i}\n' for i in range(1, 9)]
  (top / 'ImageSets/Segmentation/val.txt').write_text(''.join(names))
  (top / 'JPEGImages/2007_1.jpg').unlink()
  cut = top / 'JPEGImages/2007_3.jpg'
  tiny_layouts.photo(cut, size=(64, 64))
  cut.write_bytes(cut.read_bytes()[:-1000])
  (top / 'SegmentationClassAug/2007_4.png').write_bytes(b'')
  tiny_layouts.photo(top / 'JPEGImages/2007_5.jpg', size=(5, 9))
  wrong = np.full((4, 8), 77, np.uint8)
  tiny_layouts.grey(top / 'SegmentationClassAug/2007_6.png', wrong)
  tiny_layouts.grey(
    top / 'SegmentationClassAug/2007_7.png', tiny_layouts.values([21, 254, 3])
  )
  images, labels = f'{VOC}/JPEGImages', f'{VOC}/SegmentationClassAug'
  return [
    Problem('missing', f'{images}/2007_1.jpg'),
    Problem('missing', f'{images}/2007_8.jpg'),
    Problem('missing', f'{labels}/2007_8.png'),
    Problem('unknown label value', f'{labels}/2007_6.png holds 77'),
    Problem('unknown label value', f'{labels}/2007_7.png holds 21, 254'),
    Problem('unreadable', f'{images}/2007_3.jpg (image file is truncated)'),
    Problem('unreadable', f'{labels}/2007_4.png (the file is empty)'),
    Problem('wrong count', 'val has 8 images, the published one 1,449'),
    Problem('wrong size', f'{labels}/2007_5.png is 8x6, its image 9x5'),
    Problem('wrong size', f'{labels}/2007_6.png is 8x4, its image 8x6'),
  ]


def cleaned(problems: tuple[Problem, ...]) -> list[Problem]:
  """Drops the number of bytes that Pillow adds to its reason."""
  return [
    Problem(p.kind, re.sub(r' \(\d+ bytes not processed\)', '', p.what))
    for p in problems
  ]


def test_all_that_is_wrong_is_in_one_list(
  source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  expected = spoil(source)
  with pytest.raises(SourceError) as caught:
    prepare.prepare('voc_20', source, tmp_path / 'data')
  assert cleaned(caught.value.problems) == expected
  message = str(caught.value)
  assert '10 problems (3 missing, 2 unknown label value, 2 unreadable' in message
  assert all(problem.what in message for problem in caught.value.problems)
  folder = tmp_path / 'data/voc_20/default'
  report = folder / build.PROBLEMS
  assert report.read_text() == caught.value.listing()
  left = {path.name for path in folder.iterdir()}
  assert left == {build.PROBLEMS, '.prepare.lock'}


def test_long_lists_are_cut_with_their_total() -> None:
  problems = [Problem('missing', f'{i:03}.jpg') for i in range(100)]
  error = SourceError('x cannot be built', [*problems, Problem('wrong size', 'y')])
  lines = str(error).splitlines()
  assert lines[0] == 'x cannot be built: 101 problems (100 missing, 1 wrong size)'
  assert lines[1:3] == ['  missing: 000.jpg', '  missing: 001.jpg']
  assert lines[-2:] == [
    '  missing: ... and 92 more, 100 in total',
    '  wrong size: y',
  ]
  assert error.listing().count('\n') == 101


def test_a_whole_data_set(
  source: pathlib.Path,
  tmp_path: pathlib.Path,
  two: None,
  capsys: pytest.CaptureFixture[str],
) -> None:
  """Built after a kill and after a failure; found when asked for again."""
  data = tmp_path / 'data'
  for name in ('incomplete.ABC_1.0.0', '1.0.0'):  # what a killed run leaves
    stale = data / 'voc_20/default' / name
    stale.mkdir(parents=True)
    (stale / 'half').write_text('x')
  label = source / VOC / 'SegmentationClassAug/2007_2.png'
  content = label.read_bytes()
  label.unlink()
  arguments = ['--dataset=voc_20', f'--source={source}', f'--data_dir={data}']
  assert prepare.main(arguments) == 2
  said = ''.join(capsys.readouterr())
  assert f'missing: {VOC}/SegmentationClassAug/2007_2.png' in said
  assert 'problems.txt' in said
  label.write_bytes(content)
  assert prepare.main(arguments) == 0
  said = ''.join(capsys.readouterr())
  assert 'voc_20: val 2 images, 20 classes' in said
  assert f'--config.dataset.data_dir={data}' in said
  assert {p.name for p in (data / 'voc_20/default').iterdir()} == {
    '1.0.0',
    '.prepare.lock',
  }
  label.unlink()  # nothing is read a second time
  assert prepare.main(arguments) == 0
  _, builder = load_dataset(Dataset('voc_20', data_dir=str(data)))
  assert builder.info.splits['val'].num_examples == 2
  assert builder.info.metadata['partial'] is False


def test_a_notice_ends_the_command_and_the_next_one_works(
  source: pathlib.Path,
  two: None,
  tmp_path: pathlib.Path,
  capsys: pytest.CaptureFixture[str],
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  command = ['--dataset=voc_20', f'--source={source}', f'--data_dir={tmp_path}/data']
  advance = build.advance

  def notice(*given: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    advance(*given)

  monkeypatch.setattr(build, 'advance', notice)
  assert prepare.main(command) == 75
  said = (
    'stopped: voc_20 was not finished, and keeps what is written; run the same command'
  )
  assert said in capsys.readouterr().err
  monkeypatch.setattr(build, 'advance', advance)
  assert prepare.main(command) == 0


def test_partial_takes_what_is_there(
  source: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (source / VOC / 'JPEGImages/2007_1.jpg').unlink()
  data = tmp_path / 'data'
  arguments = ['--dataset=voc_21', f'--source={source}', f'--data_dir={data}']
  assert prepare.main([*arguments, '--allow_partial']) == 0
  said = ''.join(capsys.readouterr())
  assert 'voc_21: val 1 images' in said
  assert '--config.dataset.variant=partial' in said
  with pytest.raises(FileNotFoundError, match='voc_21/default is not in'):
    benchmarks.load('voc_21', data, 'default')


def test_a_missing_list_is_named(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
  (source / 'coco').mkdir()
  (source / 'coco/annotations').mkdir()
  tiny_layouts.coco(tmp_path / 'other')
  kept = 'coco/annotations/captions_val2017.json'
  (source / kept).write_bytes((tmp_path / 'other' / kept).read_bytes())
  builder = benchmarks.make('coco_captions_2017', tmp_path / 'data', 'default')
  listed = builder.pairs(source)
  assert {name: len(pairs) for name, pairs in listed.items()} == {'train': 0, 'val': 2}
  assert builder.problems == [
    Problem('wrong count', 'train has 0 images, the published one 118,287'),
    Problem('missing', 'coco/annotations/captions_train2017.json'),
    Problem('wrong count', 'val has 2 images, the published one 5,000'),
  ]


@pytest.mark.parametrize('partial', [[], ['--allow_partial']])
def test_an_empty_source(
  tmp_path: pathlib.Path, partial: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
  arguments = ['--dataset=ade20k_847', f'--source={tmp_path}', *partial]
  assert prepare.main([*arguments, f'--data_dir={tmp_path}']) == 2
  said = ''.join(capsys.readouterr())
  assert f'{tmp_path} has nothing of ADE20K_2021_17_01/images' in said


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--dataset=voc_12', '--source=.'], "unknown data set 'voc_12'.*Did you mean"),
    (['--dataset=voc_20', '--source=nowhere'], 'source directory .*nowhere not found'),
    (['--dataset=voc_20', '--source=.', '--variant=x'], 'unknown variant of voc_20'),
    (['--dataset=folder', '--source=.', '--allow_partial'], 'a folder has no variants'),
  ],
)
def test_mistakes(
  arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
  assert prepare.main(arguments) == 2
  assert re.search(message, ''.join(capsys.readouterr()))


def test_the_list_names_sources_and_licences() -> None:
  text = prepare.listing()
  for name, layout in layouts.LAYOUTS.items():
    assert f'{name}: {layout.title}' in text
    assert layout.where in text and layout.licence in text
  assert 'train 118,287, val 5,000' in text
  assert 'variants  default, original, partial, partial_original' in text


def test_threads_keep_the_order() -> None:
  assert list(sources.ordered_map(lambda x: x * x, range(50))) == [
    x * x for x in range(50)
  ]


def test_what_is_prepared_twice_is_the_same(
  source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  """In another process, too: the fields of all records are in one order."""
  tiny_layouts.coco(source)
  prepare.prepare('coco_captions_2017', source, tmp_path, 'partial')
  prepare.prepare('coco_stuff_171', source, tmp_path, 'partial')
  scenes.prepare(tmp_path, scenes.ScenesConfig(name='x', clip=2, train=2, val=2))
  paths = sorted(tmp_path.rglob('*.tfrecord-*'))
  records = [r.numpy() for r in tf.data.TFRecordDataset([str(p) for p in paths])]
  assert len(paths) == 7 and len(records) == 13
  for record in records:
    example = tf.train.Example.FromString(record)
    assert example.SerializeToString(deterministic=True) == record
