"""The mining job on the smoke scenes, with a model whose answers cost nothing."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_ovseg
from PIL import Image

from configs import scenes
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.files import atomic_path, read_json, write_json
from ovs_jax.core.types import VOID
from ovs_jax.data import pairs, pipeline
from ovs_jax.mining import candidates, chunks, joining, miner, run
from ovs_jax.settings import Settings

QUERIES = 4


class Killed(Exception):
  """Stands for the end of a process."""


def propose(config: Any, params: Any, image: Any, size: Any) -> Any:
  """Proposes boxes that depend on the picture; the last one is empty."""
  del config, params, size
  h, w = image.shape[:2]
  rng = np.random.default_rng(int(np.asarray(image).reshape(-1)[::97].sum()))
  masks = np.zeros((QUERIES, h, w), bool)
  boxes = np.zeros((QUERIES, 4), np.int32)
  regions = rng.normal(size=(QUERIES, 64)).astype(np.float32)
  for q in range(QUERIES - 1):
    x0, y0 = rng.integers(0, w // 2, 2)
    x1, y1 = x0 + rng.integers(9, w // 2), y0 + rng.integers(9, h // 2)
    masks[q, y0:y1, x0:x1] = True
    boxes[q] = x0, y0, x1, y1
  return jnp.asarray(masks), masks.sum(axis=(1, 2)), boxes, regions


def embed(config: Any, params: Any, prompts: Sequence[Sequence[str]]) -> np.ndarray:
  """Gives every sentence a direction of its own."""
  del config, params
  rows = [
    np.random.default_rng(list(p[0].encode())).normal(size=64).astype(np.float32)
    for p in prompts
  ]
  return np.stack([row / np.linalg.norm(row) for row in rows])


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
  """Returns an OVSeg directory; its parameters are never used."""
  path = tmp_path_factory.mktemp('model') / 'ovseg'
  save_model(path, tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  return str(path)


@pytest.fixture
def config(data_dir: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
  """Returns a mining configuration with four chunks of eight images."""
  monkeypatch.setattr(candidates, 'propose_masks', propose)
  monkeypatch.setattr(miner.clip, 'encode_prompts', embed)
  config = scenes.mine(checkpoint)
  config.dataset.update(variant='smoke', data_dir=data_dir)
  config.mining.update(split='train', chunk=8, backend='lexicon', min_score=-1.0)
  return config


def read(directory: pathlib.Path) -> list[dict[str, Any]]:
  return list(pipeline.examples(pairs.load(directory / 'pairs'), 'train'))


def test_a_killed_job_goes_on(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  whole = run.mine(Settings.of(config), tmp_path / 'whole')
  calls: list[int] = []

  def count(*args: Any) -> Any:
    calls.append(1)
    if len(calls) == 12:
      raise Killed
    return propose(*args)

  monkeypatch.setattr(candidates, 'propose_masks', count)
  with pytest.raises(Killed):
    run.mine(Settings.of(config), tmp_path / 'resumed')
  assert not (tmp_path / 'resumed' / 'pairs').exists()
  sheet = run.mine(Settings.of(config), tmp_path / 'resumed')
  assert 32 < len(calls) <= 32 + 16  # what was under way is done again, no more
  assert {**sheet, 'seconds': 0} == {**whole, 'seconds': 0}
  expected, got = read(tmp_path / 'whole'), read(tmp_path / 'resumed')
  assert len(got) == sheet['pairs'] > 0
  for one, other in zip(expected, got, strict=True):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
  keys = [(pair['image_id'], pair['noun']) for pair in got]
  assert len(keys) == len(set(keys))


def test_pairs_are_what_the_picture_shows(config: Any, tmp_path: pathlib.Path) -> None:
  sheet = run.mine(Settings.of(config), tmp_path)
  builder = run.load_dataset(Settings.of(config).dataset)[1]
  images = {e['image_id']: e for e in pipeline.examples(builder, 'train')}
  for pair in read(tmp_path):
    source = images[pair['image_id']]
    x0, y0, x1, y1 = pair['box']
    np.testing.assert_array_equal(pair['image'], source['image'][y0:y1, x0:x1])
    assert (pair['mask'] == VOID).all()  # the proposals are full boxes
    assert pair['proposal'] < QUERIES - 1  # never the empty one
    head = pair['noun'].decode().split()[-1]
    assert head[:-1] in source['captions'][pair['caption']].decode().lower()
    assert -1 <= pair['score'] <= 1
  assert sheet['images'] == 32
  assert sheet['images_with_pairs'] <= 32
  assert sum(sheet['top_nouns'].values()) <= sheet['pairs']


def test_the_datasheet_records_the_backend(config: Any, tmp_path: pathlib.Path) -> None:
  returned = run.mine(Settings.of(config), tmp_path)
  sheet = pairs.datasheet(tmp_path / 'pairs')
  assert sheet['nouns']['backend'] == 'lexicon' and sheet['nouns']['version']
  assert sheet['template'] == config.text.train_template
  assert sheet['source'].startswith('scenes/smoke') and sheet['source'].endswith(
    'train'
  )
  assert {k: v for k, v in returned.items() if k != 'seconds'} == json.loads(
    json.dumps(sheet)
  )
  assert sheet['settings']['masks'] == 'proposals' and sheet['settings']['chunk'] == 8
  assert len(sheet['source_sha256']) == len(sheet['checkpoint']['sha256']) == 64
  assert sum(sheet['nouns_by_count'].values()) == sheet['unique_nouns']
  assert sum(sheet['images_by_pairs'].values()) == sheet['images_with_pairs']
  assert sheet['left_out']['broken_images'] == 0
  with Image.open(tmp_path / 'summary.png') as picture:
    assert picture.size == (6 * 144, 4 * 160)
  text = (tmp_path / 'summary.md').read_text()
  assert f'{sheet["pairs"]} pairs of' in text and 'summary.png' in text
  assert not (tmp_path / 'chunks').exists()
  # A finished job is not done again.
  again = run.mine(Settings.of(config), tmp_path)
  assert {**again, 'seconds': 0} == {**returned, 'seconds': 0}


def test_a_noun_counts_once_per_image(config: Any) -> None:
  captions = [b'a red ball on the grass', b'grass and a red ball', b'a blue box']
  for count, found in ((2, ()), (3, (('blue box', 2),))):
    config.mining.captions = count
    nouns, notes = miner.Miner(Settings.of(config))._caption_nouns(
      {'captions': captions}
    )
    assert nouns == [('red ball', 0), ('grass', 0), *found]
    assert notes.captions == count


def test_chunks_of_other_settings_are_not_mixed_in(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  with monkeypatch.context() as patch:
    patch.setattr(run, '_finish', lambda *_: None)
    with pytest.raises(FileNotFoundError, match='datasheet.json'):
      run.mine(Settings.of(config), tmp_path)
  note = tmp_path / 'chunks' / 'made_with.json'
  made_with = read_json(note)
  config.mining.chunk = 16
  with pytest.raises(ValueError, match=r'mined with chunk 8 \(now 16\); delete'):
    run.mine(Settings.of(config), tmp_path)
  config.mining.chunk = 8
  write_json(note, {**made_with, 'model': ['elsewhere', 1]})
  with pytest.raises(ValueError, match=r"mined with model \['elsewhere', 1\] \(now"):
    run.mine(Settings.of(config), tmp_path)
  write_json(note, made_with)
  config.mining.update(max_per_noun=3, disk_megabytes=1)  # of no chunk
  assert 0 < max(run.mine(Settings.of(config), tmp_path)['top_nouns'].values()) <= 3


def test_chunks_of_an_earlier_version_are_refused(
  config: Any, tmp_path: pathlib.Path
) -> None:
  (tmp_path / 'chunks').mkdir()
  (tmp_path / 'chunks' / '000000.npz').write_bytes(b'')
  with pytest.raises(
    ValueError, match='chunks in .* are of an earlier version; delete that'
  ):
    run.mine(Settings.of(config), tmp_path)


def test_small_proposals_are_not_used(config: Any, tmp_path: pathlib.Path) -> None:
  config.mining.min_area = 128 * 128
  with pytest.raises(ValueError, match=r'no pairs in 32 images: 32 of them.*\(16384\)'):
    run.mine(Settings.of(config), tmp_path)


def test_pairs_below_the_score_are_left_out(
  config: Any, tmp_path: pathlib.Path
) -> None:
  run.mine(Settings.of(config), tmp_path / 'all')
  scores = sorted(float(pair['score']) for pair in read(tmp_path / 'all'))
  bound = scores[len(scores) // 2]
  config.mining.min_score = bound
  sheet = run.mine(Settings.of(config), tmp_path / 'best')
  kept = sorted(float(pair['score']) for pair in read(tmp_path / 'best'))
  assert kept == [score for score in scores if score >= bound]
  assert sheet['min_score'] == bound
  assert 0 < len(kept) < len(scores)


def test_a_chunk_is_written_whole(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def full(path: pathlib.Path, records: Any) -> None:
    with atomic_path(path) as temporary:
      temporary.write_bytes(next(iter(records)))
      raise OSError(28, 'No space left on device')

  monkeypatch.setattr(chunks, 'write_records', full)
  with pytest.raises(OSError, match='No space left'):
    run.mine(Settings.of(config), tmp_path)
  assert [x.name for x in (tmp_path / 'chunks').iterdir()] == ['made_with.json']


def test_a_job_killed_before_its_summary_writes_it(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def killed(*args: Any, **options: Any) -> None:
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(joining, 'clean_up', killed)
    with pytest.raises(Killed):
      run.mine(Settings.of(config), tmp_path)
  assert (tmp_path / 'chunks').exists() and not (tmp_path / 'summary.md').exists()
  sheet = run.mine(Settings.of(config), tmp_path)
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == ['pairs', 'summary.md', 'summary.png']
  assert f'{sheet["pairs"]} pairs' in (tmp_path / 'summary.md').read_text()


def test_crops_are_stored_as_asked(config: Any, tmp_path: pathlib.Path) -> None:
  run.mine(Settings.of(config), tmp_path / 'whole')
  config.mining.update(crop_shortest=20, crop_format='jpeg')
  run.mine(Settings.of(config), tmp_path / 'small')
  builder = pairs.load(tmp_path / 'small' / 'pairs')
  assert builder.info.features['image'].encoding_format == 'jpeg'
  shrunk = 0
  for one, other in zip(
    read(tmp_path / 'whole'), read(tmp_path / 'small'), strict=True
  ):
    short, stored = min(one['mask'].shape), other['mask'].shape
    assert other['image'].shape[:2] == stored and min(stored) == min(short, 20)
    assert set(np.unique(other['mask'])) <= {0, 255}
    np.testing.assert_array_equal(one['box'], other['box'])
    shrunk += short > 20
    if short <= 20:
      np.testing.assert_array_equal(one['mask'], other['mask'])
  assert shrunk > 10
  config.mining.crop_format = 'jpg'
  with pytest.raises(ValueError, match="Did you mean 'jpeg'"):
    run.mine(Settings.of(config), tmp_path / 'other')


def test_hosts_share_the_chunks(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  run.mine(Settings.of(config), tmp_path / 'alone')
  seen: list[int] = []
  place = {'host': 0}

  def count(*args: Any) -> Any:
    seen.append(place['host'])
    return propose(*args)

  monkeypatch.setattr(candidates, 'propose_masks', count)
  monkeypatch.setattr(run, '_place', lambda: (place['host'], 3))
  for host in (2, 1):
    place['host'] = host
    with pytest.raises(FileNotFoundError, match='datasheet.json'):  # of the first host
      run.mine(Settings.of(config), tmp_path / 'together')
  place['host'] = 0
  run.mine(Settings.of(config), tmp_path / 'together')
  assert [seen.count(host) for host in (2, 1, 0)] == [8, 8, 16]
  for one, other in zip(
    read(tmp_path / 'alone'), read(tmp_path / 'together'), strict=True
  ):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


def test_a_broken_image_is_left_out_and_listed(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  original = run.encoded_examples

  def damaged(shards: Any, positions: Any) -> Any:
    for i, record in zip(positions, original(shards, positions), strict=True):
      if i == 3:
        record = {**record, 'image': record['image'][:200]}
      yield record

  monkeypatch.setattr(run, 'encoded_examples', damaged)
  sheet = run.mine(Settings.of(config), tmp_path)
  assert sheet['images'] == 32
  assert sheet['left_out']['broken_images'] == 1
  (name, why) = sheet['left_out']['broken'][0]
  assert why and name not in {pair['image_id'].decode() for pair in read(tmp_path)}
  assert f'- {name}: {why}' in (tmp_path / 'summary.md').read_text()


def test_true_masks_with_their_classes_need_no_model(
  config: Any, tmp_path: pathlib.Path
) -> None:
  config.mining.update(masks='truth', nouns='classes', checkpoint='', min_area=1)
  sheet = run.mine(Settings.of(config), tmp_path)
  images = {
    e['image_id']: e
    for e in pipeline.examples(
      run.load_dataset(Settings.of(config).dataset)[1], 'train'
    )
  }
  names = miner.load_names(Settings.of(config).dataset).names
  wanted = sum(len(set(np.unique(e['label'])) - {VOID}) for e in images.values())
  assert sheet['pairs'] == wanted > 32
  assert sheet['nouns']['backend'] == 'classes' and sheet['checkpoint'] is None
  for pair in read(tmp_path):
    x0, y0, x1, y1 = pair['box']
    label = images[pair['image_id']]['label']
    k = names.index(pair['noun'].decode())
    np.testing.assert_array_equal(pair['mask'] > 0, (label == k)[y0:y1, x0:x1])
    assert (label == k).sum() == (pair['mask'] > 0).sum()


def test_captions_can_come_from_a_file(config: Any, tmp_path: pathlib.Path) -> None:
  file = tmp_path / 'captions.json'
  images = [{'id': 7, 'file_name': 'dir/train_00000.png'}]
  rows = [{'image_id': 7, 'caption': ' a  green dragon '}]
  file.write_text(json.dumps({'images': images, 'annotations': rows}))
  assert run.read_captions(str(file)) == {'train_00000': ['a green dragon']}
  rows.append({'image_id': 8, 'caption': 'nowhere'})
  file.write_text(json.dumps({'images': images, 'annotations': rows}))
  with pytest.raises(ValueError, match='1 captions without images.* of image 8'):
    run.read_captions(str(file))
  file.write_text('[]')
  with pytest.raises(ValueError, match='no file of COCO captions'):
    run.read_captions(str(file))
  with pytest.raises(FileNotFoundError, match='config.mining.caption_file names'):
    run.read_captions(str(tmp_path / 'no.json'))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'masks': 'true'}, "Did you mean 'truth'"),
    ({'nouns': 'class'}, "Did you mean 'classes'"),
    ({'score': 'softmax'}, "one of 'cosine', 'proposals', 'nouns'"),
    ({'captions': 0}, 'captions is 0, expected an integer, at least 1'),
  ],
)
def test_wrong_settings(
  config: Any, tmp_path: pathlib.Path, settings: dict[str, Any], message: str
) -> None:
  config.mining.update(settings)
  with pytest.raises(ValueError, match=message):
    run.mine(Settings.of(config), tmp_path)


def test_captions_without_nouns_stop_early(
  config: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config.mining.update(captions=5, chunk=16)
  silent = miner.load_extractor('lexicon')
  monkeypatch.setattr(silent, 'extract', lambda captions: [[] for _ in captions])
  monkeypatch.setattr(miner, 'load_extractor', lambda *a, **k: silent)
  with pytest.raises(ValueError, match="'lexicon' finds no noun in .* captions"):
    run.mine(Settings.of(config), tmp_path)
