"""One command, many data sets: scores that can be compared, and how they came about.

Every data set is evaluated in one frozen setting, the checkpoint's own. Finished data
sets are not evaluated again. On several hosts each takes its share of the images.
"""

import json
import time
from typing import Any

import jax

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Place,
  check_writable,
  fingerprint,
  read_mapping,
  write_json,
)
from ovs_jax.core.workers import Workers
from ovs_jax.data.pipeline import Arrays
from ovs_jax.evaluate import chosen_labels, predictions, suite_files
from ovs_jax.evaluate.counted import Counted
from ovs_jax.evaluate.judges import Judge
from ovs_jax.evaluate.saved_judge import SavedJudge
from ovs_jax.evaluate.sources import (
  Sample,
  Source,
  Target,
  batches,
  load_sources,
  sample_of,
  samples,
)
from ovs_jax.evaluate.subjects import Subject, load_subject
from ovs_jax.evaluate.summary import Training, summarise
from ovs_jax.evaluate.tally import Tally, gather
from ovs_jax.evaluate.training_names import check_training, training_list
from ovs_jax.settings import Settings, Suite, bound

_DONE = 'done.json'
_NONE = b'-'


def benchmark(config: Settings, workdir: Place) -> dict[str, Any]:
  """Evaluates on all of `config.suite.datasets` and writes the report.

  Returns:
    The summary of each data set; see `evaluate.summary`.

  Raises:
    FileNotFoundError: data sets, the checkpoint or label maps are missing.
    ValueError: settings that cannot be, or label maps that cannot be scored.
    OSError: `workdir` cannot be written.
  """
  targets = [Target.parse(text) for text in config.suite.datasets]
  check_search(config.suite, targets)
  workdir = check_writable(workdir, megabytes=50)
  found = load_sources(config, targets)
  with Workers() as workers:
    subject = load_subject(config, workers)
    note = None
    if subject.settings is not None:
      lists = [source.names for source in found]
      note = check_training(config, subject.training_names, lists)
    summaries: dict[str, Any] = {}
    for number, source in enumerate(found, start=1):
      title = f'[{number}/{len(found)}] {source.target}'
      summaries[str(source.target)] = _evaluate(
        config, source, subject, workdir, title, workers
      )
  if jax.process_index() == 0:
    what = {
      'checkpoint': subject.title,
      'settings': subject.settings or {},
      'training_note': note,
      'searched': config.suite.searches,
      'searched_on_test': config.suite.searches and any(t.is_test for t in targets),
    }
    print(suite_files.write_report(workdir, what, summaries), flush=True)
  return summaries


def check_search(suite: Suite, targets: list[Target]) -> None:
  """Refuses to choose settings on the data that they are then judged by.

  Raises:
    ValueError: `suite.search` or `search_clips` names settings, and a split is a test
      split.
  """
  test = [str(t) for t in targets if t.is_test]
  if suite.searches and test and not suite.i_know:
    key = 'search' if suite.search else 'search_clips'
    raise UserError(
      f'config.suite.{key} would choose settings on test splits ({", ".join(test)}); '
      'scores chosen that way say little about other images. Search on a training '
      'split (NAME:train), or add --i-know, which the report will state'
    )


def _evaluate(
  config: Settings,
  source: Source,
  subject: Subject,
  workdir: Place,
  title: str,
  workers: Workers,
) -> dict[str, Any]:
  """Returns the summary of a data set, from an earlier run if there is one."""
  directory = workdir / source.target.folder
  identity = fingerprint(
    [bound(config.to_json()), str(source.target), source.names.sha256, subject.settings]
  )
  earlier = _finished(directory, identity)
  if earlier is not None:
    print(f'{title}: finished earlier, skipped', flush=True)
    return earlier
  began = time.time()
  judge = subject.judge(source)
  counted = Counted(directory, models=subject.models)
  tallies, sums = count_all(
    config, judge, source, counted, title=title, workers=workers
  )
  training = _training(config, source, judge)
  summary = summarise(
    config.suite,
    source.target.name,
    source.names,
    judge.headline,
    (tallies, sums),
    training,
  )
  summary['dataset'] = str(source.target)
  unproven = isinstance(judge, SavedJudge) and not judge.names_checked
  summary['names_checked'] = not unproven
  summary['seconds'] = round(time.time() - began, 1)
  if jax.process_index() == 0:
    suite_files.write_tables(directory, source.names, summary, tallies, sums)
    chosen = suite_files.choose(tallies[judge.headline], config.suite.sheet)
    shown = _find(source, {image_id for _, image_id, _ in chosen})
    # By a thread of theirs: elsewhere JAX would trace the same programs again.
    found = workers.map(
      lambda place, i: judge.predict(shown[i], place=place), [i for _, i, _ in chosen]
    )
    drawn = [(x[0], *seen) for x, seen in zip(chosen, found, strict=True)]
    suite_files.write_sheet(directory, drawn, source.names)
    summary['sheet'] = f'{directory.name}/sheet.png' if drawn else ''
    write_json(directory / _DONE, {'identity': identity, 'summary': summary})
  counted.clear()
  return summary


def count_all(
  config: Settings,
  judge: Judge,
  source: Source,
  counted: Counted,
  *,
  title: str,
  workers: Workers,
) -> tuple[dict[str, Tally], Arrays]:
  """Counts what is left of a data set, and returns what all hosts have counted.

  Args:
    config: `eval.save_every`, and `suite.save_predictions` for the label maps, which
      come into the folder `predictions`.
    judge: what counts.
    source: the data set.
    counted: see `count_images`.
    title: of the progress bar.
    workers: that share the images.

  Raises:
    Stopped: see `count_images`.
    ValueError: label maps cannot be scored, or images were left out.
  """
  keep = counted.directory / 'predictions' if config.suite.save_predictions else None
  every = config.eval.save_every
  count_images(
    judge, source, counted, title=title, keep=keep, every=every, workers=workers
  )
  notes = _check_problems(judge, source)
  if jax.process_index() == 0 and (chosen := notes.get(chosen_labels.NOTES)):
    chosen_labels.write(counted.directory / chosen_labels.FILE, chosen)
  tallies, sums = counted.merged()
  images = len(tallies[judge.headline].images)
  if images != source.images:
    raise UserError(
      f'{images} images of {source.target} were counted, it has {source.images}; '
      'start all hosts of the job with the same configuration'
    )
  return tallies, sums


def count_images(
  judge: Judge,
  source: Source,
  counted: Counted,
  *,
  title: str,
  every: int,
  workers: Workers,
  keep: Place | None = None,
) -> None:
  """Lets the judge count this host's share of the images, each once.

  Args:
    judge: what counts.
    source: the data set, of which the first `source.images` count.
    counted: what an earlier start has counted of it, and then all of it.
    title: of the progress bar.
    every: images after which the sums are kept.
    workers: that share the images.
    keep: directory for the label maps; None keeps none.

  Raises:
    Stopped: SIGTERM came; the sums are kept.
  """
  index, count = counted.index, counted.count
  counted.fill(judge.tallies, judge.sums, judge.problems)

  def work(place: int, given: tuple[int, Arrays]) -> None:
    step, batch = given
    position = step * count + index
    if not batch['example_valid'][0] or position >= source.images:
      return
    sample = sample_of(batch, position)
    found = judge.count(sample, place=place)
    for folder, labels in found.items() if keep is not None else ():
      predictions.save_map(keep / folder, sample.image_id, labels, source.names.names)

  own = batches(source, index, count, counted.steps)
  counted.run(
    work,
    enumerate(own, start=counted.steps),
    lambda _: None,
    total=-(-source.images // count),
    every=every,
    workers=workers,
    title=title,
  )


def _find(source: Source, wanted: set[str]) -> dict[str, Sample]:
  """The images of these ids; reads the data set until it has them."""
  found: dict[str, Sample] = {}
  for sample in samples(source):
    if len(found) == len(wanted):
      break
    if sample.image_id in wanted:
      found[sample.image_id] = sample
  return found


def _check_problems(judge: Judge, source: Source) -> dict[str, list[str]]:
  """Raises on every host what any of them met; returns their notes."""
  merged: dict[str, list[str]] = {}
  for part in gather(json.dumps(dict(judge.problems)).encode()):
    for kind, found in json.loads(part).items():
      merged.setdefault(kind, []).extend(found)
  if isinstance(judge, SavedJudge):
    predictions.check_problems(judge.directory, len(source.names), merged)
  return merged


def _finished(directory: Place, identity: str) -> dict[str, Any] | None:
  """The summary that an earlier run left, on whichever host.

  Raises:
    ValueError: it was made of another class list or configuration.
  """
  path = directory / _DONE
  own = _NONE
  if path.is_file():
    own = json.dumps(read_mapping(path, identity=str, summary=dict)).encode()
  for part in gather(own):
    if part != _NONE:
      done = json.loads(part)
      if done['identity'] != identity:
        raise UserError(
          f'{directory} was made with another configuration or class list; give '
          'another --workdir=, or delete that directory to evaluate again'
        )
      return done['summary']
  return None


def _training(config: Settings, source: Source, judge: Judge) -> Training:
  """The names that training had masks of, and their embeddings."""
  own = [n for n, s in zip(source.names.names, source.names.splits, strict=True) if s]
  if own:
    pairs = zip(source.names.names, source.names.splits, strict=True)
    names = tuple(name for name, split in pairs if split == 'seen')
    title = source.names.name
  else:
    names = training_list(config.suite.training).names
    title = config.suite.training
  return Training(title, names, judge.embed(names), judge.embed(source.names.names))
