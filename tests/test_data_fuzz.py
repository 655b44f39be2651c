"""Files with any bytes changed: a reader gives images or one line, quickly, and never anything else."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_folders import cifar_10, cifar_100, class_arrays, drawn, imagenet_batches, python2, python3
from klopf._core import Error
from klopf.data import ArrayImages, PackedImages
from klopf.data.layouts import read_collection
from klopf.data.pickles import read_pickle

EXAMPLES = 150  # of each kind of file
MEMORY = 1 << 30  # bytes that may be added to the address space

Edit = tuple[str, float, bytes]


def edited(content: bytes, edits: list[Edit]) -> bytes:
    """The content with some bytes replaced, inserted, removed, doubled, or cut off."""
    for kind, where, data in edits:
        place = int(where * len(content))
        before, after = content[:place], content[place:]
        content = {
            "replace": before + data + after[len(data) :],
            "insert": before + data + after,
            "remove": before + after[len(data) :],
            "double": before + after[: 4 * len(data)] + after,
            "cut": before,
        }[kind]
    return content


# Instructions of pickles, sizes, and what is likely to be taken for a length.
WORDS = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from(
        list(b"(.0123BCGIJKLMNPQRSTUVX]abcdefghijloqprstu}\x80\x81\x82\x85\x86\x87\x88\x8a\x8b\x8c\x8e")
    ).map(lambda code: bytes([code])),
    st.sampled_from(
        [b"\xff" * 4, b"\x7f" * 8, b"\x00" * 8, b"cos\nsystem\n", b"9" * 12, b"(1e9,", b"-1", b"O", b"\n"]
    ),
)
KINDS = st.sampled_from(["replace", "replace", "replace", "insert", "remove", "double", "cut"])
EDITS = st.lists(st.tuples(KINDS, st.floats(0, 1), WORDS), min_size=1, max_size=4)


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """No example may ask for much: what the process has, and `MEMORY` more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def read_images(folder: Path) -> None:
    """All that packing reads of a folder."""
    collection = read_collection(folder)
    assert collection.shape
    for part, rows, places in collection.placed(1000):
        assert len(rows) == len(places)
        for images in part.images(rows, min(collection.shape)):
            assert images.dtype == np.uint8 and images.shape[1] == 3


def tried(read: Callable[[], object]) -> None:
    try:
        read()
    except Error as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1000


def fuzzed(make: Callable[[Path], object], name: str, read: Callable[[Path], object]) -> Callable[[], None]:
    """A test that reads a folder with one of its files edited."""

    def test() -> None:
        with TemporaryDirectory() as name_of_folder:
            folder = Path(name_of_folder) / "in"
            make(folder)
            content = (folder / name).read_bytes()

            @settings(max_examples=EXAMPLES, deadline=2000, derandomize=True, database=None)
            @given(EDITS)
            def check(edits: list[Edit]) -> None:
                (folder / name).write_bytes(edited(content, edits))
                tried(lambda: read(folder))

            check()

    return test


def pickle_of(dump: Callable[..., bytes]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        folder.mkdir()
        content = {
            "data": drawn(0, shape=(3, 12)),
            "labels": [1, 2, 300],
            "name": "x",
            "mean": np.uint8([1, 2]),
        }
        (folder / "file").write_bytes(dump(content))

    return make


def packed(folder: Path) -> None:
    folder.mkdir()
    ArrayImages(drawn(0, shape=(2, 3, 3, 2, 2)), ["cat", "dog"]).save(folder / "x.npy")


def read_packed(folder: Path) -> None:
    source = PackedImages(folder / "x.npy")
    source.describe(), source.class_names, source.scale, source.origin
    for number in range(source.classes):
        source.images(number)


def read_arrays(folder: Path) -> None:
    for value in read_pickle(folder / "file").values():
        if hasattr(value, "whole"):
            value.whole()


test_pickle_of_python_2 = fuzzed(pickle_of(python2), "file", read_arrays)
test_pickle_of_protocol_2 = fuzzed(pickle_of(python3(2)), "file", read_arrays)
test_pickle_of_protocol_4 = fuzzed(pickle_of(python3(4)), "file", read_arrays)
test_pickle_of_protocol_5 = fuzzed(pickle_of(python3(5)), "file", read_arrays)
test_imagenet_batch = fuzzed(
    lambda folder: imagenet_batches(folder, size=2, dump=python3(3)), "train_data_batch_1", read_images
)
test_npz = fuzzed(lambda folder: imagenet_batches(folder, size=2), "train_data_batch_1.npz", read_images)
test_cifar_meta = fuzzed(cifar_10, "batches.meta", read_images)
test_cifar_100_meta = fuzzed(cifar_100, "meta", read_images)
test_class_array = fuzzed(class_arrays, "b.npy", read_images)
test_packed_pixels = fuzzed(packed, "x.npy", read_packed)
test_packed_description = fuzzed(packed, "x.json", read_packed)


@settings(max_examples=EXAMPLES, deadline=2000, derandomize=True, database=None)
@given(st.lists(WORDS, max_size=40))
def test_pickles_of_any_instructions(words: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "file").write_bytes(b"\x80\x04" + b"".join(words))
        tried(lambda: read_arrays(Path(folder)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_descriptions_with_any_values(tmp_path: Path) -> None:
    packed(tmp_path / "in")
    file = tmp_path / "in" / "x.json"
    about = json.loads(file.read_bytes())

    @settings(max_examples=EXAMPLES, deadline=2000, derandomize=True, database=None)
    @given(st.sampled_from(sorted(about)), JSON)
    def check(name: str, value: object) -> None:
        file.write_text(json.dumps({**about, name: value}))
        tried(lambda: read_packed(tmp_path / "in"))

    check()
