"""The folders of a study's variants: their names, and what is kept in them."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from saliency_entropy.errors import UserError
from saliency_entropy.run.variants import read_variant, short_keys, variant_folders, variant_name, write_variant

FRACTION = "data.human_maps.fraction"


def test_the_name_has_the_last_part_of_each_key_whatever_their_order() -> None:
    assert variant_name({FRACTION: 0.25, "backbone": "resnet50"}) == "backbone=resnet50,fraction=0.25"
    assert variant_name({"backbone": "resnet50", FRACTION: 0.25}) == "backbone=resnet50,fraction=0.25"


def test_keys_that_end_alike_keep_as_much_as_tells_them_apart() -> None:
    keys = ["loss.terms.a.weight", "loss.terms.b.weight", "x/y", "data.seed"]
    assert short_keys(keys) == {
        "data.seed": "data.seed",  # not the seed of the run
        "loss.terms.a.weight": "a.weight",
        "loss.terms.b.weight": "b.weight",
        "x/y": "y",
    }
    assert short_keys(["p.optimizer._target_"]) == {"p.optimizer._target_": "optimizer._target_"}  # no folder for _


@pytest.mark.parametrize(("value", "name"), [
    (1e-1, "k=0.1"), (1.0, "k=1"), (1, "k=1"), (1e-5, "k=1e-05"), (-2, "k=-2"),
    (True, "k=true"), (None, "k=null"), ("16-mixed", "k=16-mixed"), ("difference", "k=difference"),
])  # fmt: skip
def test_simple_values_stand_as_they_are(value: Any, name: str) -> None:
    assert variant_name({"k": value}) == name


@pytest.mark.parametrize(
    "value",
    ["../../etc", "a\nb", "$(rm -rf ~)", "a;b", "a,b=c", "", "ümlaut", "ResNet", [0.1, 0.2], {"a": 1},
     "x" * 300, "0.1", "true", "a@b", float("nan")],
)  # fmt: skip
def test_every_other_value_is_a_safe_name_with_a_checksum(value: Any) -> None:
    name = variant_name({"data.k": value})
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=,+@-]*@[0-9a-f]{8}", name)
    assert len(name) <= 120


def test_no_two_values_share_a_name_even_where_a_disk_does_not_tell_upper_from_lower_case() -> None:
    values = [
        0.1, "0.1", True, "true", 1, "1", None, "null", "None", "a", "A", "a b", "a-b", "a/b", "a,b", "a,k=b", [1, 2],
        "[1, 2]", [1, 12], [11, 2], ["1", 2], {"a": 1}, {"a": 2}, "x" * 200, "x" * 201, "nan", float("nan"), "1e3",
        1000, "", " ", "-", "@",
    ]  # fmt: skip
    names = [variant_name({"k": value}).lower() for value in values]
    assert sorted(names) == sorted(set(names))


def test_keys_do_not_mix_with_values() -> None:
    variants = [{"k": "a", "l": "b"}, {"k": "a,l=b"}, {"k": "a"}, {"K": "a"}, {"_k": "a"}]
    for one, other in itertools.combinations(variants, 2):
        assert variant_name(one).lower() != variant_name(other).lower()


def test_a_folder_keeps_the_values_with_their_types(tmp_path: Path) -> None:
    values = {"backbone": "resnet50", FRACTION: 0.25, "data.k": [1, "a"]}
    assert read_variant(tmp_path) is None
    write_variant(tmp_path / "v", values)
    write_variant(tmp_path / "v", values)
    assert read_variant(tmp_path / "v") == values
    assert list(json.loads((tmp_path / "v" / "variant.json").read_text())) == sorted(values)


def test_variants_are_listed_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    assert variant_folders(tmp_path / "none") == []
    for value in (1, 0.5, 0.05, 10):
        write_variant(tmp_path / variant_name({FRACTION: value}), {FRACTION: value})
    (tmp_path / "droid" / "seed0").mkdir(parents=True)
    listed = [folder.name for folder in variant_folders(tmp_path)]
    assert listed == ["fraction=0.05", "fraction=0.5", "fraction=1", "fraction=10"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", "[" * 100_000])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "variant.json").write_text(content)
    with pytest.raises(UserError, match=r"variant\.json .*delete it, and give the command"):
        read_variant(tmp_path)
