"""What a run keeps: all parameters or the mask prompts alone, and its best step.

What checkpoints hold, and what a step scores, the recipe says (`stored`, `evaluate`).
Scores go to `evaluations.jsonl`; the parameters of the step with the highest first
score are in `best`, beside the latest `config.train.keep` in `checkpoints`. Both are
replaced as a whole: a killed save leaves the one before.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp

from ovs_jax.core import hosts
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, strict_json, write_text
from ovs_jax.core.run_checkpoints import RunCheckpoints
from ovs_jax.core.tree import difference, flatten, unflatten
from ovs_jax.core.types import Constants, Params
from ovs_jax.train.recipes.recipe import Recipe
from ovs_jax.train.state import TrainState, split_params

_LOG = 'evaluations.jsonl'


class Keeping:
  """The part of a run's parameters that is stored, and when they were best."""

  def __init__(
    self,
    recipe: Recipe,
    constants: Constants,
    workdir: Place,
    *,
    steps: int,
    patience: int = 0,
  ) -> None:
    """Evaluates every `recipe.evaluate_every` steps, and after the last of `steps`.

    Args:
      recipe: says what checkpoints hold, and how good a step is.
      constants: of the recipe.
      workdir: of the run.
      steps: in all.
      patience: evaluations without a better one after which to end; 0: never.
    """
    self._patience = patience
    self._recipe, self._constants = recipe, constants
    self._every, self._steps = recipe.evaluate_every, steps
    self._workdir = workdir
    self._lines: list[dict[str, Any]] = []

  def whole(self, part: Params, params: Params) -> Params:
    """Returns `params` with the stored part in place."""
    return unflatten({**flatten(params), **flatten(part)})

  def save(self, saved: RunCheckpoints, step: int, state: TrainState) -> None:
    """Starts writing a step; see `RunCheckpoints.save`."""
    raw, notes = None, {}
    if state.ema is not None:
      raw = split_params(state.params, set(state.ema))[0]
    if state.skipped is not None:
      notes['skipped'] = [int(count) for count in state.skipped]
    model = self._recipe.stored(state.model())
    saved.save(step, model, state.optimizer, raw=raw, notes=notes)

  def restore(
    self, saved: RunCheckpoints, state: TrainState, trainable: set[str]
  ) -> TrainState:
    """Reads the newest step into a state; returns this one where there is none.

    Averages, and counts of skipped steps, that it was saved without begin there.

    Raises:
      ValueError: it is damaged, or of another model.
    """
    latest = saved.latest()
    if latest is None:
      return state
    expected = self._recipe.stored(state.params)
    now, _ = split_params(state.params, trainable)
    part, optimizer, raw = saved.restore(latest, expected, state.optimizer, now)
    problem = difference(expected, part, what=f'checkpoint of step {latest}')
    if problem:
      raise UserError(problem)
    params = self.whole(part, state.params)
    ema, _ = split_params(params, trainable)
    if raw is None:
      ema = jax.tree.map(jnp.copy, ema)  # a step gives away what it gets
    else:
      params = unflatten({**flatten(params), **raw})
    counts = saved.notes(latest).get('skipped', (0, 0))
    step, skipped = jax.device_put(
      (jnp.int32(latest), jnp.array(counts, jnp.int32)), state.step.sharding
    )
    return TrainState(
      step,
      params,
      optimizer,
      None if state.ema is None else ema,
      None if state.skipped is None else skipped,
    )

  def start(self, step: int, params: Params) -> bool:
    """Drops evaluations after `step`, and evaluates before the first one.

    Returns:
      Whether nothing is left to do; see `at_rest`.
    """
    path = self._workdir / _LOG
    if path.exists():
      lines = [json.loads(line) for line in path.read_text('utf-8').splitlines()]
      self._lines = [line for line in lines if line['step'] <= step]
    hosts.barrier('evaluations read')  # before one of them writes
    if step == 0 and not self._lines:
      self.evaluate(0, params)
    return self.at_rest()

  def at_rest(self) -> bool:
    """Whether the last `patience` evaluations have brought nothing better."""
    scores = [next(x for k, x in line.items() if k != 'step') for line in self._lines]
    since = len(scores) - 1 - scores.index(max(scores)) if scores else 0
    return bool(self._patience) and since >= self._patience

  def due(self, step: int) -> bool:
    """Whether it is time to evaluate."""
    return bool(self._every) and (step % self._every == 0 or step == self._steps)

  def evaluate(self, step: int, params: Params) -> None:
    """Evaluates, if it is time to, and keeps the parameters that are the best yet."""
    if not self.due(step):
      return
    scores = self._recipe.evaluate(params, self._constants)
    first = next(iter(scores))
    before = [line[first] for line in self._lines]
    self._lines.append({'step': step, **scores})
    best = not before or scores[first] > max(before)
    values = hosts.whole(self._recipe.stored(params)) if best else None
    if not hosts.primary():
      return
    if best:
      description = {**self._recipe.model_config, 'evaluation': self._lines[-1]}
      save_model(self._workdir / 'best', values, description)
    text = ''.join(f'{strict_json(line)}\n' for line in self._lines)
    write_text(self._workdir / _LOG, text)
