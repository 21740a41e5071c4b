"""Masks without a proposer: superpixels, what is merged, and who names them."""

import dataclasses
import pathlib
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import CONFIG, STORED, draw_params

from configs import common
from ovs_jax import Segmenter
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.errors import UserError
from ovs_jax.data import load_dataset, pipeline
from ovs_jax.evaluate import runner, suite
from ovs_jax.inference import grid, one_pass
from ovs_jax.predict import main as predict
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

NAMES = ['sky', 'grass', 'red ball']


def sets(inside: np.ndarray) -> list[list[int]]:
  return [np.flatnonzero(row).tolist() for row in inside]


def test_what_is_alike_is_joined_first() -> None:
  """Four in a row: the parts, the outer pairs, and never all of them."""
  labels = np.repeat(np.arange(4), 5)[None].repeat(3, axis=0)
  found = grid.merge(labels, np.array([[0.0], [0.3], [5.0], [5.1]]))
  assert sets(found) == [[0], [1], [2], [3], [2, 3], [0, 1]]


def test_small_regions_are_joined_before_large_ones() -> None:
  """Ward's criterion: 0.5 * 1.0**2 is less than 100 / 101 * 0.9**2."""
  labels = np.array([[0, 1, *[2] * 100]])
  found = grid.merge(labels, np.array([[0.0], [1.0], [1.9]]))
  assert sets(found)[3:] == [[0, 1]]


def test_only_neighbours_are_joined() -> None:
  labels = np.array([[0, 1, 2]]).repeat(2, axis=0)
  found = grid.merge(labels, np.array([[0.0], [9.0], [0.1]]))
  assert sets(found)[3:] in ([[0, 1]], [[1, 2]])


def test_the_mean_of_a_merged_region_decides() -> None:
  """After 0 and 1 have met at 0.5 (4 pixels), 2 is nearer to them than to 3."""
  labels = np.array([[0, 0, 1, 1, 2, 3]])
  found = grid.merge(labels, np.array([[0.0], [1.0], [2.3], [4.83]]))
  # 4 / 5 * 1.8**2 = 2.6 < 1 / 2 * 2.53**2 = 3.2, and from 0.0 it would be 4.2
  assert sets(found)[4:] == [[0, 1], [0, 1, 2]]


def test_of_many_superpixels_the_last_regions_are_masks() -> None:
  rng = np.random.default_rng(0)
  labels = np.arange(100).reshape(10, 10).repeat(2, axis=0)
  found = grid.merge(labels, rng.normal(size=(100, 3)))
  assert len(found) == 48 + 46
  first, later = found[:48], found[48:]
  np.testing.assert_array_equal(first.sum(axis=0), 1)  # a partition
  for row in later:  # of which all later ones are unions
    assert all(not (row & one).any() or (row & one).sum() == one.sum() for one in first)


def test_one_colour_is_one_superpixel_or_several_but_never_half_of_one() -> None:
  picture = np.zeros((64, 96, 3), np.uint8)
  picture[:, 40:] = (200, 30, 30)
  features = np.zeros((4, 6, 5))
  features[..., 0] = 1
  labels, rows = grid.superpixels(picture, features)
  assert labels.shape == (64, 96) and len(rows) == labels.max() + 1 > 4
  for label in range(len(rows)):
    columns = np.nonzero(labels == label)[1]
    right = np.mean(columns >= 40)
    assert min(right, 1 - right) < 0.1


@pytest.fixture(scope='module')
def params() -> Any:
  return draw_params()


def picture(seed: int = 0, size: tuple[int, int] = (48, 72)) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def test_features_of_a_cell_are_what_clip_sees_there(params: Any) -> None:
  image = picture()
  found = grid.cell_features(CONFIG.alone[0], params['clip'], image)
  assert found.shape == (12, 18, CONFIG.clip.embed_dim)  # patches, at twice 48
  mask = np.zeros((1, 48, 72), np.float32)
  mask[0, 4:8, 68:72] = 1  # cell (1, 17)
  expected = one_pass.embed_masks(
    CONFIG.alone[0], params['clip'], jnp.asarray(image), jnp.asarray(mask)
  )[0]
  expected = expected / jnp.linalg.norm(expected)
  np.testing.assert_allclose(found[1, 17], expected, atol=2e-5)


def test_cells_of_many_patches_see_all_of_them(
  params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(grid, '_CELLS', 4)
  image = picture()
  found = grid.cell_features(CONFIG.alone[0], params['clip'], image)
  assert found.shape[:2] == (4, 6)
  mask = np.zeros((1, 48, 72), np.float32)
  mask[0, 12:24, 60:72] = 1  # cell (1, 5), 3 x 3 patches
  expected = one_pass.embed_masks(
    CONFIG.alone[0], params['clip'], jnp.asarray(image), jnp.asarray(mask)
  )[0]
  expected = expected / jnp.linalg.norm(expected)
  np.testing.assert_allclose(found[1, 5], expected, atol=2e-5)


@pytest.fixture(scope='module')
def places(tmp_path_factory: pytest.TempPathFactory, params: Any) -> dict[str, Any]:
  """An OVSeg, and its CLIP alone."""
  root = tmp_path_factory.mktemp('grid')
  test = {'shortest': 3 * 48, 'longest': 12 * 48}
  save_model(root / 'ovseg', params, {**STORED, 'templates': 'vild', 'test': test})
  clip = {'model': 'clip', 'clip': dataclasses.asdict(CONFIG.clip)}
  save_model(root / 'clip', params['clip'], clip)
  return {kind: root / kind for kind in ('ovseg', 'clip')}


def test_a_clip_segments_by_itself_as_that_of_an_ovseg_does(
  places: dict[str, Any],
) -> None:
  image = picture(1)
  alone = Segmenter.load(places['clip'], text_cache='off')
  other = Segmenter.load(places['ovseg'], propose='grid', text_cache='off')
  found, expected = (s.segment(image, NAMES) for s in (alone, other))
  assert found.labels.shape == (48, 72)
  assert (found.labels >= 0).all()  # superpixels cover everything
  np.testing.assert_array_equal(found.labels, expected.labels)
  np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-6)
  proposed = Segmenter.load(places['ovseg'], classifier='clip', text_cache='off')
  assert (proposed.segment(image, NAMES).labels != found.labels).any()


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'classifier': 'ensemble'}, 'named by CLIP alone'),
    ({'weight': 0.5}, 'named by CLIP alone'),
    ({'panoptic': True}, 'a panoptic result divides proposals'),
  ],
)
def test_what_a_proposer_knows_is_refused(
  places: dict[str, Any], given: dict[str, Any], message: str
) -> None:
  segmenter = Segmenter.load(places['clip'], text_cache='off')
  with pytest.raises(ValueError, match=message):
    segmenter.segment(picture(), NAMES, **given)
  with pytest.raises(ValueError, match='masks of a grid are of a whole picture'):
    segmenter.encode(picture(), window=32)
  with pytest.raises(ValueError, match="weight: not for a 'clip' checkpoint"):
    Segmenter.load(places['clip'], weight=0.5)
  if 'panoptic' not in given:
    with pytest.raises(ValueError, match=message):
      Segmenter.load(places['ovseg'], propose='grid', **given)


def test_without_the_package_it_says_what_to_install(
  params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setitem(sys.modules, 'skimage.color', None)
  with pytest.raises(UserError, match=r"pip install 'ovs-jax\[grid\]'"):
    grid.grid_masks(CONFIG, params, picture())


def config_of(checkpoint: pathlib.Path, data_dir: str, **changes: Any) -> Any:
  config = common.base('grid', 'benchmark')
  config.dataset.data_dir = data_dir
  config.eval.checkpoint = str(checkpoint)
  config.eval.update(propose='grid', **changes)
  config.suite.update(
    datasets=('scenes/smoke:val[:1]',),
    training='scenes',
    distractors=(),
    single_concepts=False,
    bootstrap=2,
    sheet=0,
    save_predictions=True,
  )
  return config


def test_an_evaluation_has_the_same_labels(
  places: dict[str, Any], data_dir: str, tmp_path: pathlib.Path
) -> None:
  config = Settings.of(config_of(places['ovseg'], data_dir))
  (summary,) = suite.benchmark(config, tmp_path).values()
  assert summary['headline'] == 'clip'
  text = (tmp_path / 'report.md').read_text()
  assert 'masks a grid, without the proposer' in text and 'lambda' not in text[:600]
  dataset = dataclasses.replace(config.dataset, name='scenes', variant='smoke')
  (example,) = pipeline.examples(load_dataset(dataset)[1], 'val[:1]')
  names = vocabulary.load('scenes').names
  (folder,) = tmp_path.glob('*/predictions')
  image_id = example['image_id'].decode()
  segmenter = Segmenter.load(places['ovseg'], propose='grid', text_cache='off')
  expected = segmenter.segment(example['image'], list(names)).labels
  found = np.asarray(Image.open(folder / f'{image_id}.png'))
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  ('section', 'changes', 'message'),
  [
    ('eval', {'proposer_side': 64}, 'or config.eval.proposer_side'),
    ('suite', {'masks': 'x'}, 'or config.suite.masks=x'),
    ('suite', {'search': (0.5,)}, 'CLIP alone, which names the masks of a grid'),
  ],
)
def test_what_does_not_go_with_a_grid(
  places: dict[str, Any],
  data_dir: str,
  tmp_path: pathlib.Path,
  section: str,
  changes: dict[str, Any],
  message: str,
) -> None:
  config = config_of(places['ovseg'], data_dir)
  config[section].update(changes)
  if 'search' in changes:
    config.suite.datasets = ('scenes/smoke:train[:1]',)
  with pytest.raises(ValueError, match=message):
    suite.benchmark(Settings.of(config), tmp_path)


def test_the_other_mode_says_where_to_go(
  places: dict[str, Any], data_dir: str, tmp_path: pathlib.Path
) -> None:
  config = config_of(places['ovseg'], data_dir)
  config.dataset.update(name='scenes', variant='smoke')
  with pytest.raises(ValueError, match='is of mode benchmark'):
    runner.evaluate(Settings.of(config), tmp_path)


def test_predict_takes_a_clip(
  places: dict[str, Any], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  Image.fromarray(picture()).save(tmp_path / 'photo.png')
  given = [f'--checkpoint={places["clip"]}', f'--image={tmp_path / "photo.png"}']
  given += ['--names=sky,grass', '--text-cache=off', f'--output={tmp_path / "out"}']
  assert predict(given) == 0
  assert (tmp_path / 'out/photo_labels.png').exists() or list(tmp_path.glob('out/*'))
  assert predict([*given, '--propose=grid']) == 2
  assert "--propose: not for a 'clip' checkpoint" in capsys.readouterr().err
  given[0] = f'--checkpoint={places["ovseg"]}'
  assert predict([*given, '--propose=grid', '--window=64']) == 2
  assert 'leave --window out' in capsys.readouterr().err


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (7, 3), (130, 20)])
def test_pictures_of_any_size_have_masks(params: Any, size: tuple[int, int]) -> None:
  found = grid.grid_masks(CONFIG, params, picture(size=size))
  assert found.shape[1:] == size and found.dtype == bool
  assert found.any(axis=0).all() and found.any(axis=(1, 2)).all()
