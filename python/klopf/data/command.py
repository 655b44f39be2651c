"""`klopf data`: packing images, and seeing what was packed."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from klopf._core import Error
from klopf.data.names import shown
from klopf.data.signs import SIGNS
from klopf.experiments.settings import Parser, option, option_of, overview, suggestion
from klopf.experiments.stop import Stopped


@dataclass(frozen=True)
class Packing:
    """Pack a folder of images into one memory-mappable file, as `klopf imagenet --data FILE` reads it.

    When it is interrupted, the same command goes on where it was.
    """

    out: str = option(
        "images.npy", "the file to write; a .json of the same name lies beside it", placeholder="FILE"
    )
    size: int | None = option(
        None,
        "height and width to which every image is resized by area averaging "
        "(default: 32 for JPEGs; arrays keep theirs)",
        minimum=1,
    )
    images_per_class: int | None = option(
        None, "images to take of every class (default: as many as the smallest has)", minimum=1
    )
    layout: str | None = option(
        None, "how the images lie in the folder (default: found out from its content)", choices=tuple(SIGNS)
    )
    coarse: bool = option(False, "the 20 coarse classes of CIFAR-100, instead of its 100 fine ones")


@dataclass(frozen=True)
class Showing:
    """What is in a packed file: all pixels are compared with their checksums, and a picture shows some."""

    out: str | None = option(None, "draw a contact sheet into this PNG", placeholder="FILE")
    classes: int | None = option(
        None, "classes on the contact sheet, a row each, spread evenly over all (default: 10)", minimum=1
    )
    images: int | None = option(
        None, "images on the contact sheet of each class, its first ones (default: 10)", minimum=1
    )


def command(arguments: Sequence[str]) -> None:
    """`klopf data`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        entries = {name: text for name, (text, _) in ACTIONS.items()}
        ending = "klopf data ACTION --help tells what an action can do."
        print(overview("klopf data ACTION", "Images for experiments.", entries, ending))
    elif arguments[0] in ACTIONS:
        ACTIONS[arguments[0]][1](arguments[1:])
    else:
        kind = "option" if arguments[0].startswith("-") else "action"
        hint = suggestion(arguments[0], ["--help", *ACTIONS]) or "; see klopf data --help"
        Parser("klopf data", "").error(f"no {kind} {arguments[0]}{hint}")


def _pack(arguments: Sequence[str]) -> None:
    parser = Parser("klopf data pack", Packing.__doc__ or "")
    words = "; ".join(f"{sign.words} ({name})" for name, sign in SIGNS.items())
    parser.add_argument("source", metavar="SRC", help=f"folder of images, with one of these: {words}")
    parser.add_settings(Packing)
    given = parser.parse(arguments)
    source = given.pop("source")
    settings = dataclasses.asdict(Packing(**given))
    from klopf.data.pack import pack

    out = settings.pop("out")
    try:
        packed = pack(source, out, progress=_Bar(), **settings)
    except KeyboardInterrupt:
        raise Stopped("klopf: interrupted; the same command goes on where it was", signal.SIGINT) from None
    print(f"{packed.classes} classes of {packed.images_per_class} images in {out}")


def _info(arguments: Sequence[str]) -> None:
    parser = Parser("klopf data info", Showing.__doc__ or "")
    parser.add_argument("file", metavar="FILE", help="packed images, a .npy with its .json beside it")
    parser.add_settings(Showing)
    given = parser.parse(arguments)
    file, out = given.pop("file"), given.pop("out", None)
    if given and out is None:
        raise Error(f"{option_of(next(iter(given)))} goes with --out, which draws the contact sheet")
    from klopf.data.packed import PackedImages
    from klopf.data.sheet import contact_sheet

    source = PackedImages(file)
    picture = None if out is None else contact_sheet(source, out, **given)
    bar = _Bar()
    for number in range(source.classes):
        source.images(number)
        bar((number + 1) * source.images_per_class, source.classes * source.images_per_class)
    names = ", ".join(shown(name) for name in source.class_names[:5])
    rows = {
        "classes": f"{source.classes}: {names}{', ...' if source.classes > 5 else ''}",
        "images": f"{source.images_per_class} a class, {source.size} x {source.size} pixels",
        "mean": _numbers(source.mean),
        "deviation": _numbers(source.deviation),
        "packed from": source.origin,
        "checksums": "all pixels are those that were packed",
    }
    for name, value in rows.items():
        print(f"{name:<12} {value}")
    if picture is not None:
        print(picture)


def _numbers(values: Any) -> str:
    red, green, blue = (f"{value:.4f}" for value in values)
    return f"red {red}, green {green}, blue {blue}, where 255 is 1"


class _Bar:
    """Progress, called with the number of images done and of all."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit=" images", leave=False, disable=None)

    def __call__(self, done: int, all: int) -> None:
        self._bar.total = all
        self._bar.update(done - self._bar.n)
        if done == all:
            self._bar.close()


ACTIONS: dict[str, tuple[str, Callable[[Sequence[str]], None]]] = {
    "pack": ("a folder of images becomes one file", _pack),
    "info": ("what is in such a file; --out draws some of its images", _info),
}
