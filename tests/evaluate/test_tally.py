"""Counts of images, on one host and on several."""

import numpy as np
import pytest

from ovs_jax.evaluate import tally as module
from ovs_jax.evaluate.tally import Tally

CLASSES = 5


def maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """A prediction and a label map of a size of its own."""
  rng = np.random.default_rng(seed)
  shape = (10 + seed, 20 - seed)
  return rng.integers(-1, CLASSES, shape), rng.integers(0, CLASSES + 2, shape)


def counted(seeds: range) -> Tally:
  tally = Tally(CLASSES)
  for seed in seeds:
    tally.add(f'image {seed}', *maps(seed))
  return tally


def equal(a: Tally, b: Tally) -> None:
  for name, x in a.arrays().items():
    np.testing.assert_array_equal(x, b.arrays()[name], err_msg=name)


@pytest.mark.parametrize('hosts', [1, 2, 3])
def test_shares_of_hosts_add_up_to_one_process(hosts: int) -> None:
  shares = [counted(range(i, 7, hosts)) for i in range(hosts)]
  parts = [module.pack({'a': t}, {'s': np.array([i, 1])}) for i, t in enumerate(shares)]
  tallies, sums = module.unpack(parts)
  equal(tallies['a'], counted(range(7)))
  assert sums['s'].tolist() == [sum(range(hosts)), hosts]


def test_a_host_without_images() -> None:
  parts = [module.pack({'a': t}, {}) for t in (counted(range(2)), Tally(CLASSES))]
  equal(module.unpack(parts)[0]['a'], counted(range(2)))
  empty = module.unpack(parts[1:])[0]['a']
  assert empty.images == {} and empty.matrix.sum() == 0


def test_an_image_is_counted_once() -> None:
  tally = counted(range(2))
  with pytest.raises(ValueError, match="image 'image 1' comes twice"):
    tally.add('image 1', *maps(1))
  with pytest.raises(ValueError, match='comes twice'):
    tally.merge(counted(range(1, 3)))
  with pytest.raises(ValueError, match='comes twice'):
    module.unpack([module.pack({'a': counted(range(2))}, {})] * 2)


def test_sizes_must_agree() -> None:
  with pytest.raises(ValueError, match='for x is 4 x 3 pixels, its label map 3 x 4'):
    Tally(2).add('x', np.zeros((3, 4), int), np.zeros((4, 3), int))


def test_rows_of_an_image() -> None:
  tally = Tally(3)
  label = np.array([[0, 0, 1, 255]])
  tally.add('x', np.array([[0, 2, -1, 1]]), label, boundary=False)
  # class, right, predicted, true: void pixels count in none of them.
  assert tally.images['x'].tolist() == [[0, 1, 1, 2], [1, 0, 0, 1], [2, 0, 1, 0]]
  assert not tally.bands.any()


def test_names_that_begin_alike_are_kept_apart() -> None:
  one, two = counted(range(1)), counted(range(1, 4))
  named = {'clip': one, 'clip_2': two, 'a/b/A, 3': two, 'b/A, 3': one, 'A, 3': two}
  sums = {'a/b/errors': np.array([1]), 'errors': np.array([2])}
  tallies, found = module.unpack([module.pack(named, sums)])
  assert list(tallies) == list(named) and found == sums
  for name, tally in named.items():
    equal(tallies[name], tally)


def test_gathering_keeps_bytes_of_different_lengths() -> None:
  parts = [b'abc', b'-', b'longer \x00 one\x00']

  def allgather(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.int32:
      return np.array([[len(p)] for p in parts], np.int32)
    width = max(len(p) for p in parts)
    assert array.shape == (width,)
    return np.stack([np.frombuffer(p.ljust(width, b'\x00'), np.uint8) for p in parts])

  got = module.gather(parts[0], process_count=3, allgather=allgather)
  assert got == parts
  assert module.gather(b'alone', process_count=1) == [b'alone']
