"""The manifest: what is kept, and that every mistake in it is named with its row and a remedy."""

import os
import re
import resource
import time
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from saliency_entropy.data.group_names import near_misses
from saliency_entropy.data.images import load_image
from saliency_entropy.data.listed_files import check_files, file_problems, refuse_broken
from saliency_entropy.data.manifest import read_manifest
from saliency_entropy.data.table import Manifest, complete, table_problems
from saliency_entropy.errors import UserError

GOOD = "path,label,split\na.png,real,train\nb.png,synthetic,test\n"


def written(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "manifest.csv"
    path.write_text(text, encoding=encoding)
    return path


def refusal(root: Path, text: str) -> str:
    """The one sentence with which a manifest is refused."""
    with pytest.raises(UserError) as caught:
        read_manifest(written(root, text))
    message = str(caught.value)
    assert "\n" not in message
    assert str(root) in message
    return message


def image(path: Path, seed: int = 0, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return path


def test_columns_order_and_text_are_kept(tmp_path: Path) -> None:
    text = "split,novelty,path,label,generator\ntest,=cmd(),b.png,synthetic,NA\ntrain,007,a.png,real,\n"
    manifest = read_manifest(written(tmp_path, text))
    assert list(manifest.table) == ["path", "label", "split", "generator", "source", "human_map", "novelty"]
    assert manifest.table.to_numpy().tolist() == [
        ["b.png", "synthetic", "test", "NA", "", "", "=cmd()"],
        ["a.png", "real", "train", "", "", "", "007"],
    ]
    assert manifest.table.index.tolist() == [0, 1]
    assert manifest.root == tmp_path
    assert manifest.origin == str(tmp_path / "manifest.csv")
    assert manifest.split("train").index.tolist() == [1]
    assert manifest.where(1) == "row 3"


def test_blanks_around_names_of_groups_are_left_out(tmp_path: Path) -> None:
    rows = ["path,label,split,generator,source,compare_with,light", "a.png,real,test,, ffhq ,,day "]
    rows += ["b.png,synthetic,test,StyleGAN2\u00a0,,ffhq + celeba,none", "c.png,synthetic,train, a + b,,,night"]
    table = read_manifest(written(tmp_path, "\n".join(rows))).table
    assert table["generator"].tolist() == ["", "StyleGAN2", "a+b"]
    assert table["source"].tolist() == ["ffhq", "", ""]
    assert table["compare_with"].tolist() == ["", "ffhq+celeba", ""]
    assert table["light"].tolist() == ["day", "none", "night"]  # none is a value here


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", " unknown ", "?"])
def test_words_for_not_known_are_no_names(tmp_path: Path, word: str) -> None:
    rows = [
        "path,label,split,generator,source,compare_with",
        f"a.png,real,test,,{word},",
        f"b.png,synthetic,test,{word},,{word}",
    ]
    table = read_manifest(written(tmp_path, "\n".join(rows))).table
    assert (table[["generator", "source", "compare_with"]] == "").all(axis=None)


@pytest.mark.parametrize(
    ("column", "names", "said"),
    [
        ("generator", ("StyleGAN2", "stylegan2", "style-gan_2"), "'StyleGAN2' and 'style-gan_2' and 'stylegan2'"),
        ("generator", ("sd 1.5", "progan+SD-1.5"), "'SD-1.5' and 'sd 1.5'"),
        ("generator", ("\u00e9", "e\u0301"), "'e\u0301' and '\u00e9'"),
        ("source", ("FFHQ", "ffhq"), "'FFHQ' and 'ffhq'"),
        ("light", ("Day", "day"), "'Day' and 'day'"),
    ],
)
def test_names_in_several_spellings(tmp_path: Path, column: str, names: tuple[str, ...], said: str) -> None:
    rows = [f"{number}.png,real,test,{name}" for number, name in enumerate(names)]
    message = refusal(tmp_path, "\n".join([f"path,label,split,{column}", *rows]))
    assert f"column {column}" in message
    assert f"would count as different: {said}; write each name in one way" in message


def test_sources_are_compared_with_what_they_are_called(tmp_path: Path) -> None:
    text = "path,label,split,source,compare_with\na.png,real,test,FFHQ,\nb.png,synthetic,test,,ffhq+celeba\n"
    assert "column source and compare_with holds" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "values",
    [
        ("-1.5", "15"),
        ("1e3", "1.e3"),
        ("-", "_"),
        ("-30deg", "30deg"),
        ("f1.4", "f14"),
        (*tuple(f"p{n}" for n in range(30)), "P1"),
    ],
)
def test_values_that_only_look_like_one_name(tmp_path: Path, values: tuple[str, ...]) -> None:
    rows = [f"{number}.png,real,test,{value}" for number, value in enumerate(values)]
    table = read_manifest(written(tmp_path, "\n".join(["path,label,split,pose", *rows]))).table
    assert tuple(table["pose"]) == values


@pytest.mark.parametrize("names", [("v1.0", "v10"), ("SD-1.10", "SD-11.0"), ("stylegan2", "stylegan2-ada")])
def test_names_of_generators_with_other_numbers_or_parts_are_others(tmp_path: Path, names: tuple[str, ...]) -> None:
    rows = [f"{number}.png,synthetic,test,{name}" for number, name in enumerate(names)]
    table = read_manifest(written(tmp_path, "\n".join(["path,label,split,generator", *rows]))).table
    assert tuple(table["generator"]) == names


def test_cells_that_a_spreadsheet_would_calculate_are_names(tmp_path: Path) -> None:
    text = "path,label,split,human_map\n=1+1.png,real,train,=HYPERLINK(0)\n@a.png,real,val,-1\n"
    table = read_manifest(written(tmp_path, text)).table
    assert table["path"].tolist() == ["=1+1.png", "@a.png"]
    assert table["human_map"].tolist() == ["=HYPERLINK(0)", "-1"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_line_ends_and_quotes(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    rows = [
        ["path", "label ", ' "notes"', " split", "human_map"],
        [' "a, b; c".png ', '" real "', '"d""e"', "train ", '"m/1.png; m/2.png"'],
        ['"x;y,z.png"', " synthetic", "", "\u00a0test", ""],
    ]
    text = end.join(separator.join(row) for row in rows).replace(' "a, b; c".png ', '" a, b; c.png "') + end
    (tmp_path / "manifest.csv").write_bytes(text.encode(encoding))
    table = read_manifest(tmp_path / "manifest.csv").table
    assert list(table) == ["path", "label", "split", "generator", "source", "human_map", '"notes"']
    assert table.to_numpy().tolist() == [
        [" a, b; c.png ", "real", "train", "", "", "m/1.png;m/2.png", 'd"e'],
        ["x;y,z.png", "synthetic", "test", "", "", "", ""],
    ]


def test_the_first_row_decides_on_the_separator(tmp_path: Path) -> None:
    text = '"path;x",path,label,split\na;b;c;d;e,a.png,real,train\n'
    assert read_manifest(written(tmp_path, text)).table["path;x"].tolist() == ["a;b;c;d;e"]


def test_excel_csv(tmp_path: Path) -> None:
    text = GOOD.replace("\n", "\r\n") + "\r\n,,\r\n"  # a byte order mark, Windows line ends, blank lines at the end
    assert read_manifest(written(tmp_path, text, "utf-8-sig")).table["path"].tolist() == ["a.png", "b.png"]


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=; "])
def test_a_line_that_names_the_separator(tmp_path: Path, line: str) -> None:
    text = line + "\r\nnote,x;path;label;split\r\n1,5;a.png;real;train\r\n"
    manifest = read_manifest(written(tmp_path, text, "utf-8-sig"))
    assert (manifest.table["path"].tolist(), manifest.table["note,x"].tolist()) == (["a.png"], ["1,5"])
    assert manifest.where(0) == "row 2"  # as Excel shows it, which does not show that line
    message = refusal(tmp_path, text + "2;b.png;real;train;5\r\n")
    assert "row 3 has 5 fields, but the first row has 4" in message


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_in_another_unicode_form_than_on_the_disk(tmp_path: Path, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    on_disk, in_table = (unicodedata.normalize(each, "Zoë/Å ö.png") for each in (other, form))
    assert on_disk != in_table
    made = image(tmp_path / on_disk)
    manifest = read_manifest(written(tmp_path, f"path,label,split,human_map\n{in_table},real,train,{in_table}\n"))
    assert file_problems(manifest) == []
    assert manifest.table["path"].tolist() == [in_table]
    assert manifest.file(in_table) == made
    assert manifest.map_files(in_table) == [made]
    missing = read_manifest(written(tmp_path, f"path,label,split\n{in_table}x,real,train\n"))
    assert file_problems(missing) == [(0, "path", f"'{in_table}x', does not exist")]
    twice = f"path,label,split\n{in_table},real,train\n{on_disk},real,test\n"
    assert "must be listed once" in refusal(tmp_path, twice)


def test_a_link_in_another_unicode_form_may_not_lead_out(tmp_path: Path) -> None:
    image(tmp_path / "other" / "a.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / unicodedata.normalize("NFD", "é")).symlink_to(tmp_path / "other")
    manifest = read_manifest(written(tmp_path / "root", "path,label,split\né/a.png,real,train\n"))
    assert file_problems(manifest) == [(0, "path", "'é/a.png', lies outside the data root")]


def test_blanks_at_an_end_of_a_name_are_shown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"data.root='{tmp_path} ' does not exist"):
        read_manifest(written(tmp_path, GOOD), root=f"{tmp_path} ")
    with pytest.raises(UserError, match=f"'{tmp_path}/m.csv ' does not exist"):
        read_manifest(f"{tmp_path}/m.csv ")
    with pytest.raises(UserError, match=f"'{tmp_path}/a.png ' does not exist"):
        load_image(tmp_path / "a.png ", 8)


def test_quoted_and_foreign_names(tmp_path: Path) -> None:
    text = 'path,label,split\n"a, ""b"".png",real,train\n顔/é.png,real,val\n'
    assert read_manifest(written(tmp_path, text)).table["path"].tolist() == ['a, "b".png', "顔/é.png"]


def test_a_parquet_file_of_too_many_rows(tmp_path: Path) -> None:
    # A few MB: all rows are the same. Read, they would take some 100 GB.
    rows = pa.table({name: pa.repeat(pa.scalar(value), 1_000_000).dictionary_encode()
                     for name, value in (("path", "a.png"), ("label", "real"), ("split", "train"))})  # fmt: skip
    with pq.ParquetWriter(tmp_path / "m.parquet", rows.schema) as file:
        for _ in range(21):
            file.write_table(rows)
    assert (tmp_path / "m.parquet").stat().st_size < 1_000_000
    with pytest.raises(UserError, match=r"m\.parquet has 21,000,000 rows, more than 20,000,000; keep only those"):
        read_manifest(tmp_path / "m.parquet")


def test_parquet_keeps_the_types_of_further_columns(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "path": ["a.png", "b.png"],
            "label": pd.Categorical(["real", "synthetic"]),
            "split": "train",
            "generator": [None, "progan"],
            "age": [3, 5],
        },
        index=[7, 9],
    )
    table.to_parquet(tmp_path / "m.parquet")
    manifest = read_manifest(tmp_path / "m.parquet", tmp_path)
    assert manifest.table["generator"].tolist() == ["", "progan"]
    assert manifest.table["age"].tolist() == [3, 5]
    assert manifest.table.index.tolist() == [0, 1]


def test_missing_root_and_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.root=\S+/none does not exist; set data\.root to the folder"):
        read_manifest(tmp_path / "none" / "manifest.csv", tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^data\.root=\S+/file is not a folder"):
        read_manifest(tmp_path / "manifest.csv", tmp_path / "file")
    with pytest.raises(UserError, match=r"manifest\.csv does not exist; a data set needs a manifest there"):
        read_manifest(tmp_path / "manifest.csv", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "manifest.csv is empty"),
        (b"\xff\xfe\x00", "manifest.csv is not UTF-8 text: row 1 has '\\xff\\xfe\\x00'; save it as CSV UTF-8"),
        (b"path,label,split\nM\xc3\xbc.png,real,val\nM\xfc.png,real,val\n\xe9,real,val",
         "is not UTF-8 text: row 3 has 'M\\xfc.png,real,val'; row 4 has '\\xe9,real,val'; save it"),
        (b"path,label,split\na.png,real,train,extra\nb.png,real,train\n\nc.png,real,val,m,m\n",
         "cannot be read as a table: row 2 has 4 fields; row 5 has 5 fields, but the first row has 3; put cells that "
         "hold ',' in double quotes"),
        (b'path,label,split\n"a.png,real,train\n', "cannot be read as a table: Error tokenizing data. C error: EOF"),
        (b"\npath,label,split\na.png,real,train\n", "begins with a blank row; remove it"),
        (b"path,label,label,split\na.png,real,real,train\n", "two columns named 'label'; rename one"),
        (b"path,label,split\n", "lists no image; add a row for each"),
    ],
)  # fmt: skip
def test_files_that_are_no_table(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)):
        read_manifest(tmp_path / "manifest.csv")


def test_of_a_large_table_longer_rows_come_before_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    """The parser, which reads in pieces, ends at the first."""
    content = b"path,label,split\na.png,real,train,extra\n" + b"b.png,real,train\n" * 50_000 + b"\xff,real,val\n"
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(UserError, match="row 2 has 4 fields, but the first row has 3"):
        read_manifest(tmp_path / "manifest.csv")


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match=r"m\.parquet cannot be read as a table"):
        read_manifest(tmp_path / "m.parquet")


def test_missing_columns_are_named_with_those_found(tmp_path: Path) -> None:
    message = refusal(tmp_path, "file,label\na.png,real\n")
    assert "has no column path and no column split; its columns are 'file', 'label'; name the columns" in message


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",real,train", "column path must name a file: row 4 has ''; fill it in"),
        ("c.png,fake,train", "column label must be real or synthetic: row 4 has 'fake' (did you mean synthetic?); "
         "correct it"),
        ("c.png,Real,train", "row 4 has 'Real'"),
        ("c.png,real", "column split must be train, val or test: row 4 has ''"),
        ("c.png,real,validation", "row 4 has 'validation'"),
        ("/etc/c.png,real,train", "column path must be relative to the data root, written with / and without ..: "
         "row 4 has '/etc/c.png'; write / for \\, move the files"),
        ("../c.png,real,train", "row 4 has '../c.png'"),
        ("x/../../c.png,real,train", "row 4 has 'x/../../c.png'"),
        ("x/..,real,train", "row 4 has 'x/..'"),
        ("C:/c.png,real,train", "row 4 has 'C:/c.png'"),
        ("x\\c.png,real,train", "row 4 has 'x\\\\c.png'"),
        ("a.png,real,train", "column path must be listed once: row 2 has 'a.png'; row 4 has 'a.png'; remove"),
        ("./a.png,real,test", "column path must be listed once: row 2 has 'a.png'; row 4 has './a.png'"),
        ("a.png,synthetic,train", "column path must not be listed both as real and as synthetic: row 2 has 'a.png'; "
         "row 4 has 'a.png'; keep the row that is right"),
    ],
)  # fmt: skip
def test_wrong_rows(tmp_path: Path, row: str, message: str) -> None:
    assert message in refusal(tmp_path, f"{GOOD}{row}\n")


@pytest.mark.parametrize(
    ("row", "meant"),
    [
        ("c.png,Real,val", "'Real' (did you mean real?)"),
        ("c.png,sythetic,val", "'sythetic' (did you mean synthetic?)"),
        ("c.png,0_real,val", "'0_real' (did you mean real?)"),
        ("c.png,real,trian", "'trian' (did you mean train?)"),
        ("c.png,real,TESTING", "'TESTING' (did you mean test?)"),
        ("c.png,real,valid", "'valid' (did you mean val?)"),
        ("c.png,1,val", "'1'; correct it"),
        ("c.png,real,holdout", "'holdout'; correct it"),
    ],
)
def test_a_misspelt_word_is_suggested(tmp_path: Path, row: str, meant: str) -> None:
    assert f"row 4 has {meant}" in refusal(tmp_path, f"{GOOD}{row}\n")


def test_all_kinds_of_fault_at_once(tmp_path: Path) -> None:
    rows = [
        "/c.png,real,train,maps/../../c.png",
        ",fake,trian,",
        "d.png,real,train,m.png; /m.png",
        "d.png,synthetic,train,C:/m.png",
        "e.png,real,train,m.png;n.png;./m.png",
        "e.png,real,train,",
        ",,,",
        '"f\ng.png",real,train,m\x00.png',
    ]
    path = written(tmp_path, "path,label,split,human_map,cam_entropy\n" + ",1\n".join(rows) + ",1\n")
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    out = "must be relative to the data root, written with / and without .."
    mend = "write / for \\, move the files under the data root, or set data.root to a folder above them"
    plain = "must be free of line breaks and other control characters"
    rename = "rename what it names; where it holds further rows, the quote before them is not closed"
    assert str(caught.value).splitlines() == [
        f"{path} has column cam_entropy, which the score tables would overwrite; rename it",
        f"{path}: column label must be real or synthetic: row 3 has 'fake' (did you mean synthetic?); correct it",
        f"{path}: column split must be train, val or test: row 3 has 'trian' (did you mean train?); correct it",
        f"{path}: column path must name a file: row 3 has ''; row 8 has ''; fill it in, or remove the row",
        f"{path}: column path {out}: row 2 has '/c.png'; {mend}",
        f"{path}: column path must not be listed both as real and as synthetic: row 4 has 'd.png'; row 5 has 'd.png'; "
        "keep the row that is right",
        f"{path}: column path must be listed once: row 6 has 'e.png'; row 7 has 'e.png'; remove the repeated rows",
        f"{path}: column human_map {out}: row 2 has 'maps/../../c.png'; row 4 has '/m.png'; row 5 has "
        f"'C:/m.png'; {mend}",
        f"{path}: column human_map must name each map of an image once: row 6 has 'm.png'; row 6 has './m.png'; remove "
        "the repetition",
        f"{path}: column path {plain}: row 9 has 'f\\ng.png'; {rename}",
        f"{path}: column human_map {plain}: row 9 has 'm\\x00.png'; {rename}",
    ]


def test_the_faults_of_a_table_in_memory(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["a.png", "..", None], "label": [0, "real", "real"], "age": [1, 2, 3]})
    problems = table_problems(Manifest(table, tmp_path, "here"))
    assert problems == [
        "here has no column split; its columns are 'path', 'label', 'age'; name the columns in its first row, path, "
        "label, split at least",
        "here: column label must be real or synthetic: row 2 has '0'; correct it",
        "here: column path must name a file: row 4 has ''; fill it in, or remove the row",
        "here: column path must be relative to the data root, written with / and without ..: row 3 has '..'; write "
        "/ for \\, move the "
        "files under the data root, or set data.root to a folder above them",
    ]
    assert table_problems(Manifest(table.iloc[:1].assign(label="real", split="val"), tmp_path, "here")) == []


@pytest.mark.parametrize("sign", ["\x00", "\n", "\r", "\t", "\x1b", "\x7f", "\x85", "\u2028"])
def test_control_characters_in_a_name(tmp_path: Path, sign: str) -> None:
    table = pd.DataFrame({"path": [f"a{sign}b.png"], "label": "real", "split": "train"})
    table.to_parquet(tmp_path / "m.parquet")
    with pytest.raises(UserError, match="column path must be free of line breaks and other control") as caught:
        read_manifest(tmp_path / "m.parquet")
    assert str(caught.value).isprintable()


def test_two_dots_in_a_name_are_no_way_out(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path, f"{GOOD}..a/b..png,real,val\n")).table["path"].iloc[-1] == "..a/b..png"


def test_wrong_human_map_path(tmp_path: Path) -> None:
    message = refusal(tmp_path, "path,label,split,human_map\na.png,real,train,../m.png\n")
    assert "column human_map must be relative to the data root" in message
    assert "row 2 has '../m.png'" in message


def test_blank_lines_do_not_shift_the_rows(tmp_path: Path) -> None:
    assert "row 3 has ''" in refusal(tmp_path, "path,label,split\na.png,real,train\n\nb.png,real,val\n")


@pytest.mark.parametrize(
    "name", ["logit_real", "logit_synthetic", "cam_entropy", "cam_human_mse", "cam_human_correlation"]
)
def test_a_column_with_the_name_of_a_score(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, f"path,label,split,{name}\na.png,real,train,3\n")
    assert message.endswith(f"manifest.csv has column {name}, which the score tables would overwrite; rename it")


def test_columns_with_the_names_of_scores(tmp_path: Path) -> None:
    message = refusal(tmp_path, "path,label,split,cam_entropy,row,logit_real\na.png,real,train,3,4,5\n")
    assert message.endswith(
        "has columns logit_real and cam_entropy, which the score tables would overwrite; rename them"
    )
    # A score table has no column row of its own.
    manifest = read_manifest(written(tmp_path, "path,label,split,row\na.png,real,train,4\n"))
    assert manifest.table["row"].tolist() == ["4"]


def test_all_wrong_rows_are_counted_and_twenty_shown(tmp_path: Path) -> None:
    rows = "".join(f"{index}.png,fake,train\n" for index in range(33))
    message = refusal(tmp_path, "path,label,split\n" + rows)
    assert message.count("has 'fake'") == 20
    assert "row 21 has 'fake' (did you mean synthetic?); and 13 more; correct it" in message


# On the disk.


def listed(root: Path, *paths: str, human_map: str = "") -> Manifest:
    rows = "".join(f"{path},real,train,{human_map}\n" for path in paths)
    return read_manifest(written(root, "path,label,split,human_map\n" + rows))


def test_files_that_are_there(tmp_path: Path) -> None:
    image(tmp_path / "x" / "a.png")
    image(tmp_path / "m.png")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    (tmp_path / "b.png").symlink_to(tmp_path / "x" / "a.png")
    check_files(listed(tmp_path, "x/a.png", "y/a.png", "b.png", human_map="m.png"))


def test_missing_empty_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    image(tmp_path / "good.png")
    with pytest.raises(UserError) as caught:
        check_files(listed(tmp_path, "none.png", "empty.png", "good.png", "folder.png"))
    assert (
        f"column path must name an image under {tmp_path}: row 2, 'none.png', does not exist; "
        "row 3, 'empty.png', is empty (0 bytes); row 5, 'folder.png', is not a file; copy these files again"
    ) in str(caught.value)


def test_missing_map(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"column human_map must name a human map .*row 2, 'maps/a\.png', does not"):
        check_files(listed(tmp_path, "a.png", human_map="maps/a.png"))


def test_files_of_both_columns_at_once(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    image(tmp_path / "m.png")
    (tmp_path / "empty.svg").write_bytes(b"")
    long = "x" * 300
    manifest = listed(tmp_path, "a.png", "b.png", "a.png/c.png", long, human_map="m.png; none.png;empty.svg")
    problems = [
        (1, "path", "'b.png', does not exist"),
        (2, "path", "'a.png/c.png', does not exist"),
        (3, "path", f"'{long}', cannot be looked at (File name too long)"),
    ]
    for row in range(4):
        problems.append((row, "human_map", "'none.png', does not exist"))
        problems.append((row, "human_map", "'empty.svg', is empty (0 bytes)"))
    assert file_problems(manifest) == problems
    with pytest.raises(UserError) as caught:
        check_files(manifest)
    first, second = str(caught.value).splitlines()
    assert f"column path must name an image under {tmp_path}: row 3, 'b.png', does not exist; row 4, 'a.png/c" in first
    assert (
        f"column human_map must name a human map under {tmp_path}: row 2, 'none.png', does not exist; row 2, 'em"
        in (second)
    )


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "closed" / "a.png")
    manifest, lstat = listed(tmp_path, "closed/a.png"), os.lstat

    def denied(path: str) -> os.stat_result:  # permissions themselves do not bind root, who may run the tests
        if str(path).endswith("closed/a.png"):
            raise PermissionError(13, "Permission denied")
        return lstat(path)

    monkeypatch.setattr(os, "lstat", denied)
    assert file_problems(manifest) == [(0, "path", "'closed/a.png', cannot be looked at (Permission denied)")]


def test_links_that_lead_round_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "x").symlink_to(tmp_path / "y")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    why = "cannot be looked at (Too many levels of symbolic links)"
    assert file_problems(listed(tmp_path, "a.png", "x/b.png")) == [
        (0, "path", f"'a.png', {why}"),
        (1, "path", f"'x/b.png', {why}"),
    ]


class OneFile:
    """An archive of one file."""

    def __init__(self, held: Path) -> None:
        self.held = held

    def file(self, name: str) -> Path:
        assert name == "in/a.png"
        return self.held

    def problem(self, name: str) -> str | None:
        return None if name == "in/a.png" else "is in no shard"


def test_files_in_an_archive(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["in/a.png", "in/b.png"], "label": "real", "split": "train"})
    table["human_map"] = ["in/a.png;in/c.png", ""]
    manifest = complete(Manifest(table, tmp_path, "shards", archive=OneFile(image(tmp_path / "held.png"))))
    assert manifest.file("in/a.png") == tmp_path / "held.png"
    assert manifest.map_files("in/a.png; in/a.png") == [tmp_path / "held.png"] * 2
    assert file_problems(manifest) == [
        (1, "path", "'in/b.png', is in no shard"),
        (0, "human_map", "'in/c.png', is in no shard"),
    ]


def test_links_out_of_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    image(root / "a.png")
    secret = image(tmp_path / "secret" / "s.png")
    (root / "file.png").symlink_to(secret)
    (root / "folder").symlink_to(secret.parent)
    with pytest.raises(UserError) as caught:
        check_files(listed(root, "a.png", "file.png", "folder/s.png"))
    assert "row 3, 'file.png', is a link out of the data root" in str(caught.value)
    assert "row 4, 'folder/s.png', lies outside the data root" in str(caught.value)
    assert "row 2" not in str(caught.value)
    # Copying them again or doing without them would mend nothing.
    remedy = "no link may lead out of the data root: set data.root to a folder above its files"
    assert str(caught.value).endswith(f"lies outside the data root; {remedy}")
    with pytest.raises(UserError) as caught:
        check_files(listed(root, "file.png", "gone.png"))
    assert str(caught.value).endswith(f"does not exist; copy these files again, or take their rows away; {remedy}")


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    image(tmp_path / "real" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    check_files(listed(tmp_path / "link", "a.png"))


def test_all_broken_files_in_one_message(tmp_path: Path) -> None:
    manifest = listed(tmp_path, *map(str, range(30)))
    with pytest.raises(UserError) as caught:
        refuse_broken(manifest, [(row, f"{row} is torn") for row in reversed(range(21))], "mend them")
    assert "manifest.csv: 21 files cannot be used: row 2: 0 is torn; row 3: 1 is torn; " in str(caught.value)
    assert str(caught.value).endswith("row 21: 19 is torn; and 1 more; mend them")
    with pytest.raises(UserError, match=r"1 file cannot be used: row 4: torn$"):
        refuse_broken(manifest, [(2, "torn")])
    refuse_broken(manifest, [])


def test_parquet_where_there_is_no_csv(tmp_path: Path) -> None:
    table = pd.DataFrame({"path": ["a.png"], "label": ["real"], "split": ["train"]})
    table.to_parquet(tmp_path / "manifest.parquet")
    assert read_manifest(tmp_path / "manifest.csv").table["path"].tolist() == ["a.png"]
    written(tmp_path, GOOD)
    assert len(read_manifest(tmp_path / "manifest.csv").table) == 2


def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path: Path) -> None:
    text = 'path,label,split,source\na.png,real,train,x\nb.png,real,train,"cam\nc.png,real,train,\nd.png,real,val,"\n'
    message = refusal(tmp_path, text)
    assert "column source must be free of line breaks and other control characters: row 3 has 'cam\\nc.png" in message
    assert "the quote before them is not closed" in message


# At the size of the paper's data.


def test_a_table_of_700_000_rows(tmp_path: Path) -> None:
    """Ten times the time and memory that it takes would be noticed here."""
    rows = 721_821
    path = written(
        tmp_path,
        "path,label,split,generator\n"
        + "".join(f"test/1_fake/stylegan3/{row:07d}.png,synthetic,test,stylegan3\n" for row in range(rows)),
    )
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    manifest = read_manifest(path)
    took = time.process_time() - start  # of the processor: others may use it, too
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10  # in MiB, on Linux
    assert len(manifest.table) == rows
    assert manifest.where(rows - 1) == "row 721822"
    assert took < 15, took
    assert grown < 1000, grown


@pytest.mark.parametrize(
    ("name", "other", "told"),
    [
        ("stlyegan2", "stylegan2", True),
        ("StlyeGAN2-ADA", "stylegan2-ada", True),
        ("stable-difusion", "stable-diffusion", True),
        ("stylegan3", "stylegan2", False),
        ("stylegan2-ada", "stylegan2", False),
        ("stylegan3-r", "stylegan3-t", False),
        ("sdxl-turbo", "sd-turbo", False),
        ("stylegan", "stargan", False),
        ("wgan", "dgan", False),
        ("stylegan2", "stylegan2", False),
    ],
)
def test_near_misses_among_the_names_of_generators(name: str, other: str, told: bool) -> None:
    table = pd.DataFrame({"label": "synthetic", "split": ["train", "test"], "generator": [other, f"{name}+vae"]})
    said = [f"test generator {name!r} looks like a misspelling of training generator {other!r}"]
    assert near_misses(table) == (said if told else [])
    assert near_misses(table.assign(label="real")) == []
