"""`klopf data`: what it prints and draws, and every mistake on its command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import code_of, refused
from image_folders import cifar_10, cifar_100, drawn
from image_trees import contents, ilsvrc
from klopf.cli import main
from klopf.data import ArrayImages


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def packed(folder: Path) -> Path:
    names = ["cat, house cat", "a\ndog", "Ente", "a name that is far too long to stand there", "", "$x_1$"]
    ArrayImages(drawn(0, shape=(6, 4, 3, 8, 8)), names).save(folder / "x.npy")
    return folder / "x.npy"


def test_help_names_every_action(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["data"], ["data", "--help"], ["data", "-h"]):
        assert code_of(*words) == 0
        text = capsys.readouterr().out
        assert text.startswith("usage: klopf data ACTION [OPTION ...]\n")
        assert "\n  pack " in text and "\n  info " in text


def test_packing_with_a_layout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cifar_10(folder / "ten")
    (folder / "ten" / "more").mkdir()
    assert "choose the layout" in refused(capsys, "data", "pack", "ten")
    assert main(["data", "pack", "ten", "--layout", "cifar-10", "--images-per-class", "5"]) == 0
    assert capsys.readouterr().out.endswith("10 classes of 5 images in images.npy\n")
    cifar_100(folder / "hundred")
    assert main(["data", "pack", "hundred", "--coarse", "--size", "1", "--out", "c.npy"]) == 0
    assert capsys.readouterr().out.endswith("20 classes of 20 images in c.npy\n")
    assert "one of tree, arrays," in refused(capsys, "data", "pack", "ten", "--layout", "cifar", code=2)


def test_interrupted_packing_says_how_to_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    ilsvrc(folder / "tree")
    monkeypatch.setattr("klopf.data.tree.decoded", stop)
    line = refused(capsys, "data", "pack", "tree", code=130)
    assert line == "klopf: interrupted; the same command goes on where it was"


def test_what_is_in_a_file(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", "x.npy"]) == 0
    said = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert said["classes"] == "6: cat, a dog, Ente, a name that is far too long to stand there, ?, ..."
    assert said["images"] == "4 a class, 8 x 8 pixels"
    red = np.load(packed)[:, :, 0].mean() / 255
    assert said["mean"].startswith(f"red {red:.4f}, green ")
    assert said["packed"] == "from  arrays"
    assert said["checksums"] == "all pixels are those that were packed"
    assert sorted(contents(packed.parent)) == ["x.json", "x.npy"]


def test_contact_sheet(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out, words in (("a.png", []), ("b.png", []), ("c.png", ["--classes", "2", "--images", "3"])):
        assert main(["data", "info", "x.npy", "--out", out, *words]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == out
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    pixels = {name: np.asarray(Image.open(name).convert("RGB")) for name in ("a.png", "c.png")}
    assert pixels["a.png"].shape[0] > 2 * pixels["c.png"].shape[0]
    drawn_colours = {tuple(colour) for colour in pixels["c.png"].reshape(-1, 3).tolist()}
    images = np.load(packed)
    shown = images[[0, 3], :3].transpose(0, 1, 3, 4, 2).reshape(-1, 3)
    assert {tuple(colour) for colour in shown.tolist()} <= drawn_colours
    hidden = images[1].transpose(0, 2, 3, 1).reshape(-1, 3)
    assert not {tuple(colour) for colour in hidden.tolist()} <= drawn_colours


def test_an_old_picture_is_replaced(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.png").write_bytes(b"old")
    assert main(["data", "info", "x.npy", "--out", "a.png"]) == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_mistakes(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(capsys, "data", "info", "none.npy")
    assert "to end in .npy" in refused(capsys, "data", "info", "x.json")
    assert refused(capsys, "data", "info", "x.npy", "--classes", "3") == (
        "klopf: --classes goes with --out, which draws the contact sheet"
    )
    content = bytearray(packed.read_bytes())
    content[-1] ^= 1
    packed.write_bytes(content)
    assert "differ from those packed" in refused(capsys, "data", "info", "x.npy")


@pytest.mark.parametrize(
    ("out", "words"), [("a.jpg", "to end in .png"), ("no/a.png", "cannot write no/a.png")]
)
def test_pictures_that_cannot_be_written(
    packed: Path, capsys: pytest.CaptureFixture[str], out: str, words: str
) -> None:
    assert words in refused(capsys, "data", "info", "x.npy", "--out", out)
