"""What a data set is, and its batches on several devices."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Dataset:
  train_iter: object = None
  valid_iter: object = None
  test_iter: object = None
  meta_data: dict = dataclasses.field(default_factory=dict)


def shard(tree, n_devices=None):
  return jax.tree.map(lambda x: x.reshape((n_devices, -1) + x.shape[1:]), tree)
