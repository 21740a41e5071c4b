"""What mode `benchmark` evaluates: an OVSeg, CLIPSeg or CoSeg, or saved label maps."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ovs_jax.core.checkpoint import load_config
from ovs_jax.core.errors import UserError
from ovs_jax.core.workers import Workers
from ovs_jax.evaluate import chosen_labels, predictions, search
from ovs_jax.evaluate.asked import BY_CLIP, NO_CHANGES
from ovs_jax.evaluate.judges import Judge, ModelJudge, Plan
from ovs_jax.evaluate.network import Changes, Network, Setting
from ovs_jax.evaluate.saved_judge import SavedJudge
from ovs_jax.evaluate.sources import Source
from ovs_jax.evaluate.system_judge import Merging, SystemJudge
from ovs_jax.formats.given import open_masks
from ovs_jax.inference.load import load_system
from ovs_jax.inference.system import MaskSystem
from ovs_jax.settings import Settings, Suite, Systems


@dataclasses.dataclass(frozen=True)
class Subject:
  """What is evaluated on all data sets in the same way.

  Attributes:
    title: the checkpoint or directory.
    settings: that the report states; None for label maps.
    training_names: `name` and `sha256` of the class list of training, if it is known.
    models: directories of its checkpoints.
    judge: makes what counts on a data set.
  """

  title: str
  settings: dict[str, Any] | None
  training_names: dict[str, str] | None
  models: tuple[str, ...]
  judge: Callable[[Source], Judge]


def load_subject(config: Settings, workers: Workers) -> Subject:
  """Loads what a configuration names.

  Raises:
    FileNotFoundError, ValueError: there is none, or settings do not go with it.
  """
  if config.suite.predictions:
    _refuse_masks(config, 'saved label maps')
    return _saved(config)
  stored = load_config(config.eval.checkpoint)
  if (kind := stored.get('model')) in ('clipseg', 'coseg'):
    _refuse_masks(config, f'a {kind!r} model')
    return _system(config, stored, workers)
  return _network(config, workers)


def _refuse_masks(config: Settings, what: str) -> None:
  if config.suite.masks:
    raise UserError(
      f'config.suite.masks are named by the CLIP of an OVSeg, and {what} would not '
      'look at them; leave them out'
    )


def _saved(config: Settings) -> Subject:
  root = config.suite.predictions

  def judge(source: Source) -> Judge:
    directory = predictions.find_directory(root, source.target.name)
    _refuse_search(config, f'what saved {directory}')
    checked = predictions.check_names(directory, source.names.names)
    return SavedJudge(directory, source.names, names_checked=checked)

  return Subject(str(root), None, None, (), judge)


def _network(config: Settings, workers: Workers) -> Subject:
  suite, checkpoint = config.suite, config.eval.checkpoint
  if config.eval.refine and suite.calibration:
    raise UserError(
      'config.eval.refine changes labels, and config.suite.calibration would count the '
      'confidence of those before; set suite.calibration=False'
    )
  if config.eval.propose == 'grid' and (suite.masks or config.eval.proposer_side):
    given = f'suite.masks={suite.masks}' if suite.masks else 'eval.proposer_side'
    raise UserError(
      "config.eval.propose='grid' makes masks without a proposer and any files; leave "
      f'it out, or config.{given}'
    )
  network = Network(checkpoint, changes=Changes.of(config), workers=workers)
  masks = open_masks(suite.masks) if suite.masks else None

  def judge(source: Source) -> Judge:
    if masks is not None or network.grid:  # naming them otherwise needs a proposer
      return ModelJudge(network, source.names, _plan(suite), masks=masks)
    further = [Setting(m.classifier, m.weight) for m in config.eval.methods]
    further += search.settings_of(suite, network.setting, len(network.mix.widths))
    tuned = dict(suite.tuned).get(source.target.name)
    further += [] if tuned is None else [Setting('ensemble', tuned)]
    return ModelJudge(network, source.names, _plan(suite, tuple(further)))

  models = (checkpoint, config.init.prompts, *config.test.clips)
  settings, trained = network.describe(), network.training_names
  if network.grid:
    _refuse_search(config, 'CLIP alone, which names the masks of a grid,')
  if masks is not None:
    _refuse_search(config, f'CLIP alone, which names the masks of {suite.masks},')
    settings |= {'masks': suite.masks, 'classifier': BY_CLIP.classifier}
    del settings['lambda']
  return Subject(str(checkpoint), settings, trained, models, judge)


def _plan(suite: Suite, settings: tuple[Setting, ...] = ()) -> Plan:
  return Plan(
    settings=settings,
    distractors=tuple(sorted(suite.distractors)),
    distractor_images=suite.distractor_images,
    near=suite.near,
    single_concepts=suite.single_concepts,
    calibration=suite.calibration,
    recall=suite.recall,
  )


def _system(config: Settings, stored: Any, workers: Workers) -> Subject:
  checkpoint, settings = config.eval.checkpoint, config.systems
  what = f'the {stored["model"]!r} model {checkpoint}'
  _refuse_search(config, what)
  changes, own = (dataclasses.asdict(x) for x in (Changes.of(config), NO_CHANGES))
  sections = {'prompts': 'init', 'clips': 'test', 'clip_weights': 'test'}
  asked = [
    f'config.{sections.get(key, "eval")}.{key}'
    for key, value in changes.items()
    if value != own[key] and key != 'no_score'  # rules of merging decide that here
  ]
  if asked:
    raise UserError(
      f'{what} has nothing that {", ".join(asked)} would change; leave it out'
    )
  prompted = stored['model'] == 'clipseg'
  given = _given_labels(config, prompted, what)
  system = system_of(settings, checkpoint, kind=stored['model'], every=bool(given))
  if prompted and not settings.labels and config.suite.distractors:
    raise UserError(
      f'{what} would make a mask of each of {max(config.suite.distractors):,} '
      'irrelevant names; let CLIP choose with config.systems.labels, such as 20, or '
      'give --config.suite.distractors="()"'
    )
  if len(settings.protocols) > 1:
    raise UserError(
      f'config.systems.protocols {settings.protocols}: a benchmark has one; choose, or '
      'evaluate both in mode evaluate_systems'
    )
  (protocol,) = settings.protocols
  merging = merging_of(settings, side=settings.side if protocol == 'paper' else 0)
  told: dict[str, Any] = {
    'model': stored['model'],
    'protocol': protocol,
    'rule': 'A',
    'threshold': merging.threshold,
    **_told_of_system(settings, prompted, what),
  }
  chooser = settings.label_clip if settings.labels and not given else ''
  models = (checkpoint, chooser) if prompted else (checkpoint,)

  def judge(source: Source) -> Judge:
    names, folder = source.names, source.target.folder
    chosen = chosen_labels.find(given, folder, names.names) if given else None
    plan = _plan(config.suite)
    return SystemJudge(system, names, plan, merging, workers=workers, chosen=chosen)

  trained = stored.get('training_names')
  return Subject(str(checkpoint), told, trained, models, judge)


def _told_of_system(settings: Systems, prompted: bool, what: str) -> dict[str, Any]:
  """Returns what the report says of the settings of a CLIPSeg, or of a CoSeg."""
  if not prompted:
    return {'view': settings.view} if settings.view != 'squash' else {}
  if settings.view != 'squash':
    raise UserError(
      f'config.systems.view is what a CoSeg sees, and {what} has a size of its own for '
      'every picture; leave it out'
    )
  told = {'prompt': settings.prompt, 'labels_per_image': settings.labels or 'all'}
  if settings.labels_from:
    told['labels_per_image'] = f'of {settings.labels_from}'
  elif settings.labels:
    told['choice'] = settings.select
    told['chosen_by'] = settings.label_clip or 'its own CLIP'
  return told


def _given_labels(config: Settings, prompted: bool, what: str) -> str:
  """Returns the directory of labels that were chosen before; '' without."""
  given = config.systems.labels_from
  if given and not prompted:
    raise UserError(
      f'{what} chooses labels by itself; leave config.systems.labels_from out'
    )
  if given and config.suite.distractors:
    raise UserError(
      f'config.suite.distractors {config.suite.distractors}: no labels were chosen '
      f'among those in {given}; give --config.suite.distractors="()"'
    )
  return given


def _refuse_search(config: Settings, what: str) -> None:
  if config.suite.searches:
    raise UserError(
      'config.suite.search and search_clips weigh the classifiers of an OVSeg, and '
      f'{what} has none; leave them out'
    )


def system_of(
  settings: Systems, directory: str, *, kind: str, every: bool = False
) -> MaskSystem:
  """Loads a system with the settings of `config.systems`.

  Args:
    settings: `config.systems`.
    directory: of its checkpoint.
    kind: of its checkpoint, `clipseg` or `coseg`.
    every: whether a CLIPSeg is asked for every name, whatever the settings say.

  Raises:
    FileNotFoundError, ValueError: see `inference.load.load_system`.
  """
  options: dict[str, Any] = {'view': settings.view} if kind == 'coseg' else {}
  if kind == 'clipseg':
    options = {'templates': (settings.prompt,), 'select': (settings.select,)}
    if not every:
      options['labels'] = settings.labels
      options['label_clip'] = settings.label_clip or None
  return load_system(directory, kinds=(kind,), **options)


def merging_of(settings: Systems, *, side: int = 0) -> Merging:
  """Returns the rules of `config.systems`; see `Merging` for `side`."""
  return Merging(
    settings.rules, settings.threshold, settings.tau, settings.bounds, side
  )
