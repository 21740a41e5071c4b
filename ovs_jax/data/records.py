"""Examples one at a time, where one that cannot be read must not stop the others."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ovs_jax.core.types import Int
from ovs_jax.data import pipeline
from ovs_jax.data.shards import Shards
from ovs_jax.data.transforms import chain, decode


@dataclasses.dataclass(frozen=True)
class Broken:
  """An example whose image or label cannot be decoded.

  Attributes:
    image_id: of the example.
    problem: what the decoder says.
  """

  image_id: str
  problem: str


def encoded_examples(
  shards: Shards, positions: Int[np.ndarray, 'n']
) -> Iterator[dict[str, Any]]:
  """Yields the examples at these positions; images are bytes."""
  yield from pipeline.iterate(shards.dataset(positions), shards)


def decode_example(shards: Shards, record: dict[str, Any]) -> dict[str, Any] | Broken:
  """Returns an example of `encoded_examples` with its images as arrays."""
  apply = chain([pipeline.decoder(shards.features), decode])
  images = {
    name: tf.constant(record[name])
    for name in ('image', 'label', 'mask')
    if name in record
  }
  try:
    decoded = apply({**record, **images})
  except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
    first = (error.message.splitlines() or ['cannot be decoded'])[0][:200]
    return Broken(record['image_id'].decode('utf-8'), first)
  return {**decoded, **{name: decoded[name].numpy() for name in images}}
