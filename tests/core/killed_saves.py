"""Saves that end with the process, for `test_killed_saves.py`.

    python tests/core/killed_saves.py KIND DIRECTORY POINT [POINT ...]

KIND is `run` or `model`. For each POINT, in a process of its own, the value 1 is saved
under DIRECTORY/POINT, and then the value 2, in whose midst the process is killed:
`change_N` at the N-th file or directory that Python creates, renames or removes, and
`size_N` when a file grows beyond N bytes. `write_N` is for a DIRECTORY that is an
address: prints `armed`, the point and the process, and waits for a line, for others to
kill it at its N-th request. Prints how each ended.
"""

import os
import pathlib
import resource
import signal
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[2])]

import numpy as np  # noqa: E402

from ovs_jax.core import checkpoint, files, run_checkpoints  # noqa: E402

_CHANGES = ('os.mkdir', 'os.rename', 'os.remove', 'os.rmdir', 'shutil.rmtree')
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def params(value: int) -> dict[str, np.ndarray]:
  """Numbers that cannot be compressed, about 400 kB."""
  return {'w': np.random.default_rng(value).normal(size=100_000).astype(np.float32)}


def save(kind: str, directory: files.Place, value: int) -> None:
  """Saves `params(value)` as a step of a run, or in the model's place."""
  config = {'model': 'clip', 'value': value}
  if kind == 'model':
    checkpoint.save_model(directory / 'model', params(value), config)
    return
  saved = run_checkpoints.RunCheckpoints(directory, keep=2, config=config)
  saved.save(value, params(value), {'step': np.asarray(value)})
  saved.close()


def arm(point: str) -> None:
  """Makes this process end at the point."""
  kind, _, number = point.partition('_')
  if kind == 'write':
    print('armed', point, os.getpid(), flush=True)
    sys.stdin.readline()
    return
  if kind == 'size':
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), int(number)))
    return
  left = [int(number)]

  def watch(event: str, given: tuple) -> None:
    if event in _CHANGES or (event == 'open' and given[2] & _WRITING):
      left[0] -= 1
      if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(watch)


def main(kind: str, directory: str, *points: str) -> None:
  """Runs all points, one after the other."""
  for point in points:
    child = os.fork()
    if not child:
      path = files.place(directory) / point
      save(kind, path, 1)
      arm(point)
      save(kind, path, 2)
      os._exit(0)
    print(point, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
