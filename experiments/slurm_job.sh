#!/usr/bin/env bash
# A study on Slurm without submitit. Where hydra/launcher=slurm cannot be used, an array with a task for each run:
#
#     sbatch --array=0-59%8 --gpus-per-node=1 experiments/slurm_job.sh experiment=paper data=faces data.root=DIR
#
# Task i trains method i mod 6 with seed i div 6; METHODS="droid hseb" names other methods, and the array needs one task
# for each method and seed. VARIANTS="backbone=tiny backbone=resnet50,protocol=author" trains each of these as well, as a
# sweep over their keys does: one task for each method, variant and seed. Without --array, one job trains the whole sweep, for runs so short that jobs of their own
# would mostly be starting; as many runs at a time as the job has GPUs, or else cores, or as RUNS says:
#
#     sbatch --cpus-per-task=16 experiments/slurm_job.sh experiment=demo
#
# A job that is preempted or reaches its time limit is queued again, and its run goes on after the last whole epoch; the
# same command again trains what is missing. PYTHON names an interpreter other than the one in .venv.
#SBATCH --job-name=saliency_entropy
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

cores=${SLURM_CPUS_PER_TASK:-1}
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  read -ra methods <<<"${METHODS:-cross_entropy cyborg hseb fmmmse droid droid_cyborg}"
  index=$SLURM_ARRAY_TASK_ID
  # Not SLURM_JOB_ID: the last task has that of the whole array, which would be queued again.
  job=${SLURM_ARRAY_JOB_ID}_$index
  read -ra variants <<<"${VARIANTS:-}"
  per_seed=$((${#methods[@]} * (${#variants[@]} > 0 ? ${#variants[@]} : 1)))
  what=(hydra.mode=RUN "threads=$cores" "method=${methods[index % ${#methods[@]}]}" "seed=$((index / per_seed))")
  if [ "${#variants[@]}" -gt 0 ]; then
    IFS=, read -ra values <<<"${variants[index % per_seed / ${#methods[@]}]}"
    for value in "${values[@]}"; do  # its key is an axis, as one that is swept
      what+=("$value" "+hydra.sweeper.params={${value%%=*}: swept}")
    done
  fi
else
  job=${SLURM_JOB_ID:?give this file to sbatch: sbatch experiments/slurm_job.sh experiment=...}
  runs=${RUNS:-${SLURM_GPUS_ON_NODE:-$cores}}
  what=("hydra.launcher.n_jobs=$runs" "threads=$((runs < cores ? cores / runs : 1))")
fi

# USR1 comes before the time limit. Slurm then ends this job as it ends one that is preempted, and starts it again.
signals=0
trap 'signals=$((signals + 1))
  scontrol requeue "$job" || echo "not queued again: Slurm refuses it" >&2' USR1

# Slurm runs a copy of this file; its jobs begin in the folder that sbatch was called in.
"${PYTHON:-.venv/bin/python}" experiments/train.py "$@" "${what[@]}" &
training=$!
trap 'signals=$((signals + 1)); kill -TERM "$training" 2>/dev/null || true' TERM

before=-1
while [ "$before" != "$signals" ]; do  # a signal ends the waiting, not the training
  before=$signals code=0
  wait "$training" || code=$?
done
exit "$code"
