"""The configuration as the command line composes it."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from saliency_entropy.errors import UserError
from saliency_entropy.losses import LossSum
from saliency_entropy.run.folder import register_resolvers
from saliency_entropy.training import build_loss

CONF = Path(__file__).parents[1] / "conf"

# Method -> the weight of each term, from section 6.2 of the paper.
PAPER_WEIGHTS = {
    "cross_entropy": {"CrossEntropy": 1.0},
    "cyborg": {"CrossEntropy": 0.5, "HumanSaliency": 0.5},
    "hseb": {"CrossEntropy": 0.5, "EntropyMatch": 0.5},
    "fmmmse": {"CrossEntropy": 0.5, "Entropy": 0.5},
    "droid": {"CrossEntropy": 0.5, "LogEntropy": 0.5},
    "droid_cyborg": {"CrossEntropy": 0.5, "HumanSaliency": 0.5, "LogEntropy": 0.3},
}


@pytest.fixture(autouse=True)
def _hydra():
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.mark.parametrize("method", PAPER_WEIGHTS)
def test_the_methods_are_those_of_the_paper(method):
    cfg = compose("train", [f"method={method}"])
    assert cfg.method.name == method
    terms = build_loss(cfg).terms
    assert {type(term).__name__: term.weight for term in terms.values()} == PAPER_WEIGHTS[method]


def test_every_method_file_is_one_of_the_six_or_a_control():
    controls = {"cross_entropy_half"}
    assert {path.stem for path in (CONF / "method").glob("*.yaml")} == {*PAPER_WEIGHTS, *controls}


def test_half_the_cross_entropy_is_what_the_other_methods_give_it():
    terms = build_loss(compose("train", ["method=cross_entropy_half"])).terms
    assert {type(term).__name__: term.weight for term in terms.values()} == {"CrossEntropy": 0.5}


@pytest.mark.parametrize("method", PAPER_WEIGHTS)
def test_the_decoy_gives_human_saliency_another_weight_where_a_method_has_it(method):
    terms = build_loss(compose("train", ["experiment=demo", f"method={method}"])).terms
    weights = {type(term).__name__: term.weight for term in terms.values()}
    paper = PAPER_WEIGHTS[method]
    assert weights == paper | ({"HumanSaliency": 3.0} if "HumanSaliency" in paper else {})


def test_a_weight_is_changed_on_the_command_line():
    cfg = compose("train", ["method=droid_cyborg", "loss.terms.log_entropy.weight=0.1"])
    assert build_loss(cfg).terms["log_entropy"].weight == 0.1


def test_a_term_is_taken_away_and_another_added_on_the_command_line():
    cfg = compose(
        "train",
        ["method=droid", "~loss.terms.log_entropy", "+term@loss.terms=entropy", "loss.terms.entropy.weight=0.2"],
    )
    assert {name: term.weight for name, term in build_loss(cfg).terms.items()} == {"cross_entropy": 0.5, "entropy": 0.2}


def test_hseb_from_a_known_entropy_needs_no_maps():
    assert build_loss(compose("train", ["method=hseb"])).terms_needing_human_maps == ["entropy_match"]
    loss = build_loss(compose("train", ["method=hseb", "loss.terms.entropy_match.target=3.0"]))
    assert loss.terms["entropy_match"].target == 3.0
    assert loss.terms_needing_human_maps == []


def test_a_weight_for_a_term_that_the_method_lacks_is_refused():
    cfg = compose("train", ["method=droid", "+loss.terms.human_saliency.weight=0.3"])
    with pytest.raises(UserError, match=r"loss\.terms\.human_saliency .* method droid has no term of that name"):
        build_loss(cfg)


def test_a_term_without_a_weight_is_refused():
    cfg = compose("train", ["method=droid", "+term@loss.terms=entropy"])
    with pytest.raises(MissingMandatoryValue, match="weight"):
        build_loss(cfg)


def test_a_target_that_is_no_term_is_refused():
    cfg = compose("train", ["method=droid", "loss.terms.log_entropy._target_=torch.nn.Identity"])
    with pytest.raises(UserError, match=r"loss\.terms\.log_entropy is .* not a loss term"):
        build_loss(cfg)


def test_a_seventh_method_is_one_file(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "droid_hseb.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n"
        "  - /term@loss.terms: [cross_entropy, log_entropy, entropy_match]\n"
        "  - _self_\n"
        "method: {name: droid_hseb, title: DROID + HSEB}\n"
        "loss:\n"
        "  terms:\n"
        "    cross_entropy: {weight: 0.4}\n"
        "    log_entropy: {weight: 0.3}\n"
        "    entropy_match: {weight: 0.3, target: 2.5}\n"
    )
    cfg = compose("train", [f"hydra.searchpath=[file://{tmp_path}]", "method=droid_hseb"])
    loss = build_loss(cfg)
    assert isinstance(loss, LossSum)
    assert {name: term.weight for name, term in loss.terms.items()} == {
        "cross_entropy": 0.4,
        "log_entropy": 0.3,
        "entropy_match": 0.3,
    }


def test_the_protocol_of_the_paper():
    protocol = compose("train", ["protocol=paper"]).protocol
    assert (protocol.max_epochs, protocol.batch_size, protocol.scheduler) == (150, 20, None)
    optimizer = OmegaConf.to_container(protocol.optimizer)
    assert optimizer == {
        "_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.002, "momentum": 0.9, "weight_decay": 1e-6,
    }  # fmt: skip
    assert (protocol.class_index, protocol.features, protocol.double_forward) == ("predicted", "pooled", False)
    assert protocol.skip_last_batch_of_one is False


def test_the_protocol_of_the_author():
    cfg = compose("train", ["protocol=author", "method=droid", "backbone=densenet121"])
    assert build_loss(cfg).terms["log_entropy"].offset == 1.0
    assert (cfg.backbone.features, cfg.backbone.double_forward) == ("pre_activation", True)
    assert cfg.protocol.skip_last_batch_of_one is True
    assert (cfg.protocol.scheduler.step_size, cfg.protocol.scheduler.gamma) == (12, 0.1)


def test_droid_of_the_paper_has_no_offset():
    assert build_loss(compose("train", ["method=droid"])).terms["log_entropy"].offset == 0.0


def test_the_study_of_the_paper():
    cfg = compose("train", ["experiment=paper"], return_hydra_config=True)
    assert cfg.hydra.mode.name == "MULTIRUN"
    assert (cfg.backbone.name, cfg.trainer.max_epochs, cfg.study) == ("densenet121", 150, "paper")
    assert cfg.data.name == "und_cyborg"
    assert OmegaConf.is_missing(cfg.data, "root")  # it must not begin on other data
    assert cfg.hydra.sweeper.params == {"seed": "range(0,10)", "method": ",".join(PAPER_WEIGHTS)}


@pytest.mark.parametrize(
    ("experiment", "axis", "values", "methods"),
    [
        ("annotation", "data.human_maps.fraction", 5, 3),
        ("backbones", "backbone", 4, 6),
        ("cam", "protocol.class_index", 2, 6),
        ("dose", "loss.terms.entropy_match.target", 8, 1),
        ("protocols", "protocol", 2, 6),
    ],
)
def test_the_studies_with_an_axis(experiment, axis, values, methods):
    data = {"builtin": [], "faces": ["data.root=DIR"], "und_cyborg": ["data.root=DIR", "data.source.maps=maps"]}
    for name, needed in data.items():
        cfg = compose("train", [f"experiment={experiment}", f"data={name}", *needed], return_hydra_config=True)
        assert (cfg.hydra.mode.name, cfg.study, cfg.data.name) == ("MULTIRUN", experiment, name)
    params = {key: str(value).split(",") for key, value in cfg.hydra.sweeper.params.items() if key != "seed"}
    assert {key: len(own) for key, own in params.items()} == {axis: values, "method": methods}
    (first, *others), own = params["method"], params[axis]
    found = []
    for method, value in [*((first, value) for value in own), *((method, own[0]) for method in others)]:
        cfg = compose("train", [f"experiment={experiment}", f"method={method}", f"{axis}={value}"])
        build_loss(cfg)
        found.append(OmegaConf.to_container(cfg))
    assert all(found.count(one) == 1 for one in found)


@pytest.mark.parametrize("weight", [".nan", "true", "abc", "null", "-0.3", "-.inf"])
def test_a_weight_is_a_number_from_0_on(weight):
    cfg = compose("train", ["method=droid", f"loss.terms.log_entropy.weight={weight}"])
    with pytest.raises(InstantiationException, match="the weight of a LogEntropy term is") as error:
        build_loss(cfg)
    assert isinstance(error.value.__cause__, UserError)


@pytest.mark.parametrize("target", ["null", "true", "mean", ".inf"])
def test_a_target_is_a_word_or_a_number(target):
    cfg = compose("train", ["method=hseb", f"loss.terms.entropy_match.target={target}"])
    with pytest.raises(InstantiationException, match="the target of an entropy_match term is") as error:
        build_loss(cfg)
    assert isinstance(error.value.__cause__, UserError)


def test_the_optimizer_is_instantiated_with_the_parameters_it_is_given():
    import torch

    cfg = compose("train")
    optimizer = instantiate(cfg.protocol.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == 0.002
