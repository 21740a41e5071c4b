"""The mining job: captions + proposals + CLIP -> mask-noun pairs.

Images are worked off in chunks. Each finished chunk is one file; a killed job goes on
with the first chunk that is missing, and the data set is written when all are there.
"""

import collections
import functools
import itertools
import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.files import atomic_path, check_writable
from ovs_jax.core.runlog import progress
from ovs_jax.core.types import Array, Float, Params, UInt8
from ovs_jax.data import load_dataset, pairs, pipeline
from ovs_jax.mining.assign import assign, cosine
from ovs_jax.mining.nouns import NounExtractor, load_extractor
from ovs_jax.models import clip, ovseg
from ovs_jax.text.templates import fill
from ovs_jax.text.tokenizer import tokenize


def mine(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
  """Mines `config.mining.split` of the data set into `workdir/pairs`.

  Returns:
    The datasheet: counts, the most frequent nouns, settings and noun backend.

  Raises:
    FileNotFoundError, ValueError: no checkpoint, or of another model; or no pairs.
    OSError: `workdir` cannot be written.
  """
  began = time.time()
  workdir = check_writable(workdir, megabytes=config.mining.disk_megabytes)
  _, builder = load_dataset(config.dataset)
  params, stored = load_model(config.mining.checkpoint, kind='ovseg')
  miner = Miner(config, ovseg.OvSegConfig.from_dict(stored), params)
  total = builder.info.splits[config.mining.split].num_examples
  chunk = config.mining.chunk
  count = -(-total // chunk)
  folder = workdir / 'chunks'
  folder.mkdir(exist_ok=True)
  source = pipeline.examples(builder, config.mining.split)
  for i in progress(range(count), total=count, title=f'{config.name}: mine'):
    examples = list(itertools.islice(source, chunk))
    path = folder / f'{i:06d}.npz'
    if not path.exists():
      _write_chunk(path, miner.pairs(examples))
  sheet = {
    **_summary(_read_chunks(folder, count)),
    'images': total,
    'captions_per_image': config.mining.captions,
    'min_area': config.mining.min_area,
    'min_score': config.mining.min_score,
    'nouns': {'backend': miner.extractor.name, 'version': miner.extractor.version},
    'template': config.text.train_template,
    'source': f'{builder.info.full_name}:{config.mining.split}',
  }
  if not sheet['pairs']:
    raise ValueError(
      f'no pairs in {total} images: no noun was found, or no proposal is as large as '
      f'config.mining.min_area ({config.mining.min_area}) and as like a noun as '
      f'config.mining.min_score ({config.mining.min_score}). Train the proposer longer '
      f'or change the settings, and delete {folder}'
    )
  pairs.write(workdir / 'pairs', _read_chunks(folder, count), sheet)
  return {**sheet, 'seconds': round(time.time() - began, 1)}


class Miner:
  """Finds the pairs of a few images at a time."""

  def __init__(self, config: Any, model: ovseg.OvSegConfig, params: Params) -> None:
    """Takes an OVSeg whose CLIP is not adapted yet."""
    self.config = config.mining
    self.template = config.text.train_template
    self.model = model
    self.params = jax.tree.map(jnp.asarray, params)
    self.extractor: NounExtractor = load_extractor(
      self.config.backend, self.config.pipeline, adjectives=self.config.adjectives
    )
    self._embedded: dict[str, Float[np.ndarray, 'd']] = {}

  def pairs(self, examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns one pair for each (image, noun) of the examples."""
    images = np.stack([example['image'] for example in examples])
    encoded = _encode(self.model, self.params, jnp.asarray(images))
    nouns = [self._nouns(example) for example in examples]
    self._embed({noun for found in nouns for noun, _ in found})
    found: list[dict[str, Any]] = []
    for i, example in enumerate(examples):
      if not nouns[i]:
        continue
      masks, regions, boxes, valid = (
        np.asarray(x[i])
        for x in (encoded.masks, encoded.regions, encoded.boxes, encoded.valid)
      )
      binary = masks > self.model.region.threshold
      usable = valid & (binary.sum(axis=(1, 2)) >= self.config.min_area)
      text = np.stack([self._embedded[noun] for noun, _ in nouns[i]])
      scores = cosine(regions, text)
      for k, q in enumerate(assign(scores, usable)):
        if q is not None and scores[k, q] >= self.config.min_score:
          noun, caption = nouns[i][k]
          pair = _cut(example, binary[q], boxes[q])
          pair |= {'noun': noun, 'caption': caption, 'proposal': q}
          found.append({**pair, 'score': np.float32(scores[k, q])})
    return found

  def _nouns(self, example: dict[str, Any]) -> list[tuple[str, int]]:
    """The nouns of an image's captions, each with the first caption that has it."""
    captions = [c.decode('utf-8') for c in example['captions']]
    captions = captions[: self.config.captions]
    first: dict[str, int] = {}
    for index, nouns in enumerate(self.extractor.extract(captions)):
      for noun in nouns:
        first.setdefault(noun, index)
    return list(first.items())

  def _embed(self, nouns: set[str]) -> None:
    """Embeds the nouns that are new."""
    new = sorted(nouns - set(self._embedded))
    if new:
      prompts = fill(self.template, new)
      rows = clip.encode_prompts(
        self.model.clip, self.params['clip'], prompts, tokenize
      )
      self._embedded.update(zip(new, rows, strict=True))


@functools.partial(jax.jit, static_argnums=0)
def _encode(
  model: ovseg.OvSegConfig, params: Params, images: UInt8[Array, 'b h w 3']
) -> ovseg.Encoded:
  return jax.lax.map(lambda image: ovseg.encode_image(model, params, image), images)


def _cut(example: dict[str, Any], mask: np.ndarray, box: np.ndarray) -> dict[str, Any]:
  x0, y0, x1, y1 = (int(v) for v in box)
  return {
    'image': example['image'][y0:y1, x0:x1],
    'mask': (mask[y0:y1, x0:x1, None] * 255).astype(np.uint8),
    'image_id': example['image_id'].decode('utf-8'),
    'box': np.asarray(box, np.int32),
  }


def _write_chunk(path: pathlib.Path, found: Sequence[dict[str, Any]]) -> None:
  arrays: dict[str, np.ndarray] = {}
  table = []
  for i, pair in enumerate(found):
    arrays[f'image_{i}'], arrays[f'mask_{i}'] = pair['image'], pair['mask']
    table.append(
      {
        'noun': pair['noun'],
        'image_id': pair['image_id'],
        'caption': pair['caption'],
        'proposal': pair['proposal'],
        'box': pair['box'].tolist(),
        'score': float(pair['score']),
      }
    )
  with atomic_path(path) as temporary:
    np.savez(temporary, table=np.array(json.dumps(table)), **arrays)


def _read_chunks(folder: pathlib.Path, count: int) -> Iterator[dict[str, Any]]:
  for i in range(count):
    with np.load(folder / f'{i:06d}.npz') as chunk:
      for k, row in enumerate(json.loads(str(chunk['table']))):
        row['box'] = np.asarray(row['box'], np.int32)
        yield {**row, 'image': chunk[f'image_{k}'], 'mask': chunk[f'mask_{k}']}


def _summary(found: Iterator[dict[str, Any]]) -> dict[str, Any]:
  nouns: collections.Counter[str] = collections.Counter()
  images, areas = set(), []
  for pair in found:
    nouns[pair['noun']] += 1
    images.add(pair['image_id'])
    areas.append(int((pair['mask'] > 0).sum()))
  return {
    'pairs': sum(nouns.values()),
    'unique_nouns': len(nouns),
    'images_with_pairs': len(images),
    'median_area': float(np.median(areas)) if areas else 0.0,
    'top_nouns': dict(sorted(nouns.items(), key=lambda x: (-x[1], x[0]))[:50]),
  }
