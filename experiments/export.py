"""Export a detector to ONNX, torch.export or safetensors, with a model card.

    python experiments/export.py checkpoint=runs/demo/droid_cyborg/seed0/checkpoints/best.ckpt
    python experiments/export.py checkpoint=FILE output=DIR formats=[onnx] images=FOLDER license=cc-by-nc-4.0

Each file is compared with the checkpoint on images before it is written. examples/run_onnx.py runs model.onnx without
PyTorch.
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("export")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.use.export import export

    export(cfg)


if __name__ == "__main__":
    main()
