"""Mining of pairs beside the networks alone, on photographs of noise.

Weights are drawn, and the mask threshold is 0, so that every proposal is a whole
picture: all crops go through CLIP, and what is cut out and stored is as large as can
be. The package decodes, resizes, reads captions, embeds nouns, matches, and encodes
pairs; the networks alone have their resized pictures, and leave their results where
they are.
"""

import dataclasses
import functools
import io
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from PIL import Image

from ovs_jax.bench import ovseg_inference
from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.types import Params, UInt8
from ovs_jax.mining import chunks
from ovs_jax.mining.candidates import propose_masks
from ovs_jax.mining.miner import Miner, finish
from ovs_jax.models import ovseg
from ovs_jax.models.stored import load
from ovs_jax.settings import Mining, Settings

_LONGEST = 4  # times the shorter side
_STORED: dict[str, Any] = {
  'model': 'ovseg',
  'test': {'shortest': 320, 'longest': 1280},
  'templates': 'single',
  'classifier': 'ensemble',
  'weight': 0.7,
}
_CAPTIONS = (
  'a dog sits on the grass beside a red car',
  'two people and a cat look at the television',
  'a bowl of fruit on a wooden table near the window',
)


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    preset: of CLIP: tiny, b32, b16, l14 or l14_336.
    proposer: tiny, r101c_b16 or swin_b_l14; its embeddings are made to fit.
    shortest: the photographs' shorter side for the networks.
    height: of the photographs.
    width: of the photographs.
    queries: proposals.
    images: photographs that are mined.
    chunk: of them are under way together.
  """

  preset: str = 'b16'
  proposer: str = 'r101c_b16'
  shortest: int = 320
  height: int = 480
  width: int = 640
  queries: int = 20
  images: int = 8
  chunk: int = 4


def build(options: Options) -> Workload:
  """The package, and the networks alone."""
  config = ovseg_inference.configuration(
    ovseg_inference.Options(
      preset=options.preset,
      proposer=options.proposer,
      queries=options.queries,
      depth=0,
    )
  )
  config = dataclasses.replace(
    config, region=dataclasses.replace(config.region, threshold=0.0)
  )
  records = [_record(i, options) for i in range(options.images)]
  facts: dict[str, Any] = {'proposals': options.queries, 'pairs': 0}
  with tempfile.TemporaryDirectory(prefix='ovs_jax_mining_') as folder:
    save_model(folder, ovseg_inference.draw(config), {**_STORED, **config.to_dict()})
    settings = Settings(
      'mining',
      'mine',
      mining=Mining(
        checkpoint=folder,
        backend='lexicon',
        shortest=options.shortest,
        longest=_LONGEST * options.shortest,
        chunk=options.chunk,
      ),
    )
    miner, params = Miner(settings), load(folder, kinds=('ovseg',)).params
  variants = [
    Variant('package', _package(miner, records, facts)),
    Variant('networks alone', _alone(params, config, records, options)),
  ]
  return Workload('photographs', options.images, variants, facts)


def _record(number: int, options: Options) -> dict[str, Any]:
  """A photograph as JPEG, with a caption."""
  rng = np.random.default_rng(number)
  coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
  size = options.width, options.height
  file = io.BytesIO()
  Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, 'JPEG')
  return {
    'image_id': f'{number:012d}'.encode(),
    'image': file.getvalue(),
    'captions': [_CAPTIONS[number % len(_CAPTIONS)].encode()],
  }


def _decoded(record: dict[str, Any]) -> dict[str, Any]:
  with Image.open(io.BytesIO(record['image'])) as image:
    return {**record, 'image': np.asarray(image.convert('RGB'))}


def _package(
  miner: Miner, records: list[dict[str, Any]], facts: dict[str, Any]
) -> Callable[[], int]:
  """Returns what mines all, a chunk while the one before is waited for."""
  c = miner.config
  store = functools.partial(
    chunks.store, shortest=c.crop_shortest, crop_format=c.crop_format
  )

  def mined() -> Iterator[int]:
    running = []
    for first in range(0, len(records), c.chunk):
      part = records[first : first + c.chunk]
      running.append(miner.start(part, before=_decoded, after=store))
      if len(running) > 1:
        yield len(finish(running.pop(0))[0])
    yield len(finish(running.pop())[0])

  def run() -> int:
    facts['pairs'] = sum(mined())
    return facts['pairs']

  return run


def _alone(
  params: Params,
  config: ovseg.OvSegConfig,
  records: list[dict[str, Any]],
  options: Options,
) -> Callable[[], list[Any]]:
  """Returns what runs the networks on all resized photographs, one after the other."""
  params = jax.device_put(params)
  sides = {'shortest': options.shortest, 'longest': _LONGEST * options.shortest}
  small: list[UInt8[np.ndarray, '_ _ 3']] = [
    resize_shortest(_decoded(record)['image'], **sides) for record in records
  ]
  given = [(ovseg.pad_to_bucket(x), np.array(x.shape[:2], np.int32)) for x in small]

  def run() -> list[Any]:
    return [
      jax.block_until_ready(propose_masks(config, params, image, size))[1]
      for image, size in given
    ]

  return run
