#!/usr/bin/env bash
# A study as a plain Slurm job array, without submitit, where hydra/launcher=slurm cannot be used:
#
#     sbatch --array=0-59%8 --gpus-per-node=1 experiments/slurm_array.sh experiment=paper data=faces data.root=DIR
#
# Task i trains method i mod 6 with seed i div 6; METHODS="droid hseb" names others, and the array has one task for each
# method and seed. What is preempted or comes to its time limit is queued again and goes on after its last whole epoch;
# the same line again trains what is missing. PYTHON names another interpreter than the one in .venv.
#SBATCH --job-name=saliency_entropy
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

read -ra methods <<<"${METHODS:-cross_entropy cyborg hseb fmmmse droid droid_cyborg}"
index=${SLURM_ARRAY_TASK_ID:?give the tasks: sbatch --array=0-59 experiments/slurm_array.sh ...}

# Slurm runs a copy of this file; its jobs begin in the folder that sbatch was called in.
"${PYTHON:-.venv/bin/python}" experiments/train.py "$@" hydra.mode=RUN "threads=${SLURM_CPUS_PER_TASK:-1}" \
  "method=${methods[index % ${#methods[@]}]}" "seed=$((index / ${#methods[@]}))" &
training=$!

# USR1 comes before the time limit. Slurm then ends this job as it ends one that is preempted, and starts it again. Not
# SLURM_JOB_ID: that of the last task is the array's, all of which would be queued again.
trap 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_$index" || echo "not queued again: Slurm refuses it" >&2' USR1
trap 'kill -TERM "$training"' TERM
code=0
wait "$training" || code=$?
while kill -0 "$training" 2>/dev/null; do  # a signal ends the waiting, not the training
  code=0
  wait "$training" || code=$?
done
exit "$code"
