"""Paint human maps in the browser: which regions of a face decide between real and synthetic.

    python experiments/annotate.py data.root=DIR
    python experiments/annotate.py data=folder data.root=TREE splits=[train] share=0.25
    python experiments/annotate.py data=builtin port=8000

Any group of conf/data but shards may be annotated, by several people at once. Each answers real or synthetic, then
paints; every stroke is kept at once. Writes output/manifest.csv, which training takes with its maps, and answers.csv
and agreement.csv. Ctrl-C ends it, and the same command goes on.
"""

from omegaconf import DictConfig

from saliency_entropy.run.command import hydra_command


@hydra_command("annotate")
def main(cfg: DictConfig) -> None:
    from saliency_entropy.annotate.command import annotate

    annotate(cfg)


if __name__ == "__main__":
    main()
