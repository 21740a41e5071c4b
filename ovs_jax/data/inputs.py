"""One message with all that a job needs and does not find, and how to make it."""

from collections.abc import Callable, Sequence
from typing import Any

from ovs_jax.core.files import Place, check_writable, place
from ovs_jax.settings import Settings

_PUBLISHED = {
  'clip': 'python -m ovs_jax.convert --download=ViT-B/16 --output={path}',
  'clipseg': (
    'python -m ovs_jax.convert --download=clipseg-rd64-refined --output={path}'
  ),
  'coseg': (
    'launch/run.sh --config=configs/coseg_prefix_vitb16.py --workdir={path} (or '
    'coseg_cross_vitb16.py)'
  ),
}
_SCENES = 'launch/run.sh --config=configs/scenes.py:{stage} --workdir={path}'
_STAGES = {'clip': 'clip', 'clipseg': 'clipseg', 'coseg': 'coseg_prefix'}


def check_inputs(
  wanted: Sequence[tuple[str, str, str]],
  load_dataset: Callable[[], Any],
  *,
  embedded: bool,
) -> Any:
  """Prepares the data set, after looking whether all checkpoints are there.

  Args:
    wanted: of each checkpoint the key of the configuration, its kind (clip, clipseg or
      coseg) and its directory; '' is not wanted.
    load_dataset: prepares or finds the data.
    embedded: whether the models are those of the embedded world.

  Returns:
    What `load_dataset` returned.

  Raises:
    FileNotFoundError: with everything that is missing, and the commands that make it.
  """
  problems = []
  for key, kind, path in wanted:
    if path and not place(path).is_dir():
      stage = _STAGES[kind]
      command = _SCENES if embedded else _PUBLISHED[kind]
      command = command.format(stage=stage, path=path)
      problems.append(f'{key}: there is no {path}; make it with: {command}')
  found = None
  # The embedded world takes a minute to draw: only when the rest is there.
  if not (embedded and problems):
    try:
      found = load_dataset()
    except FileNotFoundError as error:
      problems.append(f'data: {error}')
  if problems:
    raise FileNotFoundError(f'{len(problems)} missing inputs. ' + '. '.join(problems))
  return found


def prepare(config: Settings, workdir: Place) -> dict[str, int]:
  """Mode `prepare`: draws the configured data set, or looks for its files.

  Returns:
    How many examples each split has.
  """
  from ovs_jax.data import load_dataset

  check_writable(workdir, megabytes=10)
  _, builder = load_dataset(config.dataset)
  return {k: int(split.num_examples) for k, split in builder.info.splits.items()}
