"""Trains a recipe with Scenic's trainer; the package's docstring has the command.

The counterpart of `scenic.main`, whose models and trainers need more than is there.
"""

import sys
from typing import Any

import jax
from flax import jax_utils
from flax.training import checkpoints

from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.files import Place, place
from ovs_jax.integrations.scenic import model_class, register
from ovs_jax.integrations.scenic.checkout import load
from ovs_jax.integrations.scenic.model import Held, model_params


def main(rng: Any, config: Any, workdir: str, writer: Any) -> None:
  """Trains, or goes on where the checkpoint in `workdir` is; writes <workdir>/model.

  Args:
    rng: of what is random in steps; parameters and batches follow from the seed.
    config: Scenic's keys around those of a recipe, from `config.wrap`.
    workdir: of Scenic's checkpoints, and of the model that our commands take.
    writer: of clu.
  """
  register()
  utils = load('scenic.train_lib.train_utils')
  latest = checkpoints.latest_checkpoint(workdir) if config.checkpoint else None
  start = int(utils.checkpoint_path_step(latest)) if latest else 0
  if start >= config.num_training_steps:
    print(f'{workdir} is trained to its end, step {start}')
    return
  dataset = utils.get_dataset(config, rng, start=start)
  trainer = load('scenic.train_lib.classification_trainer')
  state, _, _ = trainer.train(
    rng=rng,
    config=config,
    model_cls=model_class(),
    dataset=dataset,
    workdir=workdir,
    writer=writer,
  )
  export(dataset.meta_data['recipe'], state, place(workdir) / 'model')


def export(held: Held, state: Any, directory: Place) -> None:
  """Writes what the recipe's checkpoints hold, for our other commands."""
  if jax.process_index():
    return
  params = model_params(held.recipe, jax_utils.unreplicate(state))
  kept = jax.device_get(held.recipe.stored(params))
  save_model(directory, kept, held.recipe.model_config)


if __name__ == '__main__':
  try:
    app = load('scenic.app')
  except ImportError as missing:
    sys.exit(f'error: {missing}')
  app.run(main)
