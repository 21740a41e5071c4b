"""SIGTERM in one process: who hears it, and what it ends."""

import os
import signal

import pytest

from ovs_jax.core.preemption import Preemption, Stopped, apart, asked, pause


def notice() -> None:
  os.kill(os.getpid(), signal.SIGTERM)


def test_contexts_share_what_they_hear() -> None:
  before = signal.getsignal(signal.SIGTERM)
  with Preemption() as outer:
    with Preemption() as inner:
      assert not inner.reached() and not asked()
      notice()
      assert inner.reached() and asked()
    assert outer.reached()
    assert signal.getsignal(signal.SIGTERM) is not before
  assert signal.getsignal(signal.SIGTERM) is before
  assert not asked()  # a later run is not ended by what an earlier one was told


def test_work_ends_between_units() -> None:
  done = []
  with pytest.raises(Stopped, match='stopped: 2 of 9 are done'), apart('counting'):
    for i in range(9):
      pause(f'{i} of 9 are done')
      done.append(i)
      if i == 1:
        notice()
  assert done == [0, 1]


def test_work_that_is_done_is_not_stopped() -> None:
  with apart('the last unit'):
    pause('nothing is done')
    notice()


def test_what_follows_does_not_begin() -> None:
  begun = []
  with pytest.raises(Stopped, match='stopped before the second'), Preemption():
    with apart('the first'):
      notice()
    with apart('the second'):
      begun.append(2)
  assert not begun


def test_other_errors_are_as_they_were() -> None:
  with pytest.raises(ValueError, match='wrong'), apart('work'):
    raise ValueError('wrong')
  pause('nobody listens, and nobody is told')
