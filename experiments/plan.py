"""Show what the command train would do with the same arguments, without training anything.

    python experiments/plan.py experiment=paper data=und_cyborg data.root=DIR data.source.maps=FOLDER
    python experiments/plan.py experiment=paper data=faces data.root=DIR hydra/launcher=slurm
    python experiments/plan.py -m method=droid,hseb seed=0,1,2 study=mine

Shows which runs would be started, go on, are in Slurm's queue already, would be skipped or refused; how long they will
take, by the finished runs and epochs of the study; the disk that they need, and what is free; the Slurm script that
would be submitted; and all that would fail, because of the data, the environment or the disk. It ends with 1 if
something would. Nothing is written, except that the built-in faces are drawn.
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command, insert_overrides

# Hydra composes the command as it does for training, and calls its callbacks before it makes a folder or launches a
# run: there the plan is made, and the command ends.
PLAN = (
    "~hydra.callbacks.check_folder",
    "~hydra.callbacks.sweep_progress",
    "hydra.job.name=train",  # a job script may have it
    "+hydra.callbacks.plan._target_=saliency_entropy.sweep.plan.command.Plan",
)


@hydra_command("train")
def main(cfg: DictConfig) -> None:
    raise AssertionError("a plan trains nothing")


if __name__ == "__main__":
    insert_overrides(*PLAN)
    main()
