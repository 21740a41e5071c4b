"""How good mined pairs are, where the truth is known: on the embedded world `scenes`.

    python -m ovs_jax.mining.quality --checkpoint=runs/quickstart/ovseg_frozen

A pair is right if its noun names the class that covers most of its mask. Precision is
the share of right pairs; recall the share of what the captions name and the image shows
that has a right pair. Captions are made worse by giving some images another's.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.files import DATA_DIR
from ovs_jax.core.types import Float, Num
from ovs_jax.data import load_dataset, pipeline
from ovs_jax.mining import lexicon
from ovs_jax.mining.candidates import Candidates
from ovs_jax.mining.chunks import Pair
from ovs_jax.mining.miner import Miner
from ovs_jax.settings import Dataset, Mining, Region, Settings
from ovs_jax.text import vocabulary

_CHUNK = 16
_OVERLAP = 0.5  # IoU with its class that the oracle asks of a mask


class OracleMiner(Miner):
  """Matches nouns to masks by the truth: what is lost with it, CLIP cannot find."""

  def similarities(
    self, example: dict[str, Any], nouns: Sequence[str], one: Candidates
  ) -> Float[np.ndarray, 'k q']:
    """The IoU of every mask with the true mask of every noun."""
    classes = class_of_names()
    masks = [one.mask(q) for q in range(len(one.areas))]
    scores = np.zeros((len(nouns), len(masks)))
    for i, noun in enumerate(nouns):
      truth = example['label'] == classes.get(noun, -1)
      for q, mask in enumerate(masks):
        scores[i, q] = (mask & truth).sum() / max((mask | truth).sum(), 1)
    return scores

  def _embed(self, nouns: set[str]) -> None:
    """Embeds nothing: the truth needs no embeddings of nouns."""

  def _embed_masks(
    self, place: int, image: Any, masks: Any
  ) -> Float[np.ndarray, 'q d']:
    """Returns zeros: the truth needs no embeddings of masks either."""
    del place, image
    return np.zeros((len(masks), 1), np.float32)


def class_of_names() -> dict[str, int]:
  """Returns the train id of every name and synonym in `scenes`, in the singular."""
  names = vocabulary.load('scenes')
  found = {}
  for k, (name, others) in enumerate(zip(names.names, names.synonyms, strict=True)):
    for words in (name, *others):
      *first, last = words.split()
      found[' '.join([*first, lexicon.singular(last)])] = k
  return found


def exchange_captions(
  captions: Mapping[str, Sequence[str]], share: float, rng: np.random.Generator
) -> dict[str, Sequence[str]]:
  """Gives that share of the images the captions of another one of them."""
  names = sorted(captions)
  chosen = rng.permutation(names)[: round(share * len(names))]
  others = np.roll(chosen, 1)
  return {**captions, **{a: captions[b] for a, b in zip(chosen, others, strict=True)}}


def measure(
  found: Sequence[Pair],
  labels: Mapping[str, Num[np.ndarray, '_ _']],
  mentioned: Mapping[str, set[int]],
  *,
  min_area: int,
) -> dict[str, float | int]:
  """Returns `pairs`, `precision` and `recall`.

  Args:
    found: pairs with `noun`, `image_id`, `box` and `mask`.
    labels: true train ids, by image.
    mentioned: classes that the image's captions name.
    min_area: pixels that a class must show to be missed.
  """
  classes = class_of_names()
  right: set[tuple[str, int]] = set()
  correct = 0
  for pair in found:
    x0, y0, x1, y1 = pair['box']
    inside = labels[pair['image_id']][y0:y1, x0:x1][pair['mask'][..., 0] > 0]
    counts = np.bincount(inside.astype(np.int64), minlength=1)
    if counts.argmax() == classes.get(pair['noun'], -1):
      correct += 1
      right.add((pair['image_id'], int(counts.argmax())))
  wanted = {
    (name, k)
    for name, ids in mentioned.items()
    for k in ids
    if (labels[name] == k).sum() >= min_area
  }
  return {
    'pairs': len(found),
    'precision': correct / max(len(found), 1),
    'recall': len(right & wanted) / max(len(wanted), 1),
  }


def mentions(captions: Sequence[str]) -> set[int]:
  """Returns the classes that captions name, by looking for their names alone."""
  text = ' | '.join(captions).lower()
  words = [lexicon.singular(word) for word in lexicon.tokens(text)]
  line = f' {" ".join(words)} '
  return {k for name, k in class_of_names().items() if f' {name} ' in line}


def evaluate(
  config: Settings, *, oracle: bool, noise: float, limit: int
) -> dict[str, float | int]:
  """Mines some images of `config` and measures the pairs.

  Args:
    config: of a mining job on `scenes`.
    oracle: whether the truth matches nouns to masks, and not CLIP.
    noise: share of the images that get captions of another.
    limit: of images; 0: all.
  """
  _, builder = load_dataset(config.dataset)
  examples = list(_examples(builder, config.mining.split, limit))
  names = [example['image_id'].decode() for example in examples]
  captions = {
    name: [c.decode() for c in example['captions']][: config.mining.captions]
    for name, example in zip(names, examples, strict=True)
  }
  given = exchange_captions(captions, noise, np.random.default_rng(config.seed))
  miner = (OracleMiner if oracle else Miner)(config, given)
  found: list[Pair] = []
  for start in range(0, len(examples), _CHUNK):
    found += miner.pairs(examples[start : start + _CHUNK])[0]
  labels = {n: example['label'] for n, example in zip(names, examples, strict=True)}
  mentioned = {name: mentions(given[name]) for name in names}
  return measure(found, labels, mentioned, min_area=config.mining.min_area)


def _examples(builder: Any, split: str, limit: int) -> Iterator[dict[str, Any]]:
  for i, example in enumerate(pipeline.examples(builder, split)):
    if limit and i >= limit:
      return
    yield example


def main(argv: Sequence[str] | None = None) -> int:
  """Prints a table of matchers, masks and noise; returns 0, or 2 after a mistake."""
  parser = argparse.ArgumentParser(
    prog='python -m ovs_jax.mining.quality', description=__doc__.split('\n')[0]
  )
  add = parser.add_argument
  add('--checkpoint', required=True, metavar='DIR', help='OVSeg with its own CLIP')
  add('--data_dir', default=DATA_DIR, help='where the scenes are')
  add('--variant', default='default', help='of the scenes')
  add('--split', default='val', help='val has all true masks (default: %(default)s)')
  add('--noise', default='0,0.1,0.25,0.5', help='shares of exchanged captions')
  add('--min_score', type=float, default=0.6, help='of CLIP (default: %(default)s)')
  add('--images', type=int, default=0, help='limit; 0: all')
  arguments = parser.parse_args(argv)
  try:
    print('| matcher | masks | exchanged captions | pairs | precision | recall |')
    print('|---|---|---|---|---|---|', flush=True)
    for oracle in (True, False):
      for masks in ('truth', 'proposals'):
        for noise in (float(x) for x in arguments.noise.split(',')):
          config = _config(arguments, masks, oracle)
          row = evaluate(config, oracle=oracle, noise=noise, limit=arguments.images)
          print(
            f'| {"oracle" if oracle else "CLIP"} | {masks} | {noise:.0%} | '
            f'{row["pairs"]} | {row["precision"]:.3f} | {row["recall"]:.3f} |',
            flush=True,
          )
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return 0


def _config(arguments: argparse.Namespace, masks: str, oracle: bool) -> Settings:
  """The mining job of the scenes, with these masks."""
  return settings(
    arguments.checkpoint,
    arguments.data_dir,
    arguments.variant,
    split=arguments.split,
    masks=masks,
    min_score=_OVERLAP if oracle else arguments.min_score,
  )


def settings(checkpoint: str, data_dir: str, variant: str, **mining: Any) -> Settings:
  """Returns a mining job on the scenes; five captions.

  Args:
    checkpoint: of the OVSeg.
    data_dir: where the scenes are.
    variant: of them.
    mining: other keys of `config.mining`.
  """
  return Settings(
    'quality',
    'mine',
    dataset=Dataset('scenes', variant, data_dir),
    region=Region(threshold=0.6),
    mining=Mining(
      **{
        'checkpoint': checkpoint,
        'split': 'val',
        'masks': 'truth',
        'captions': 5,
        'backend': 'lexicon',
        'adjectives': 'colour',
        'min_area': 40,
        'min_score': _OVERLAP,
        **mining,
      }
    ),
  )


if __name__ == '__main__':
  sys.exit(main())
