"""Reading pickles without unpickling them: what is understood, what is refused, and at what cost."""

from __future__ import annotations

import datetime
import os
import pickle
import pickletools
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from image_folders import python2, rows
from klopf._core import Error
from klopf.data import stored
from klopf.data.pickles import read_pickle


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def refused(file: Path, content: bytes) -> str:
    """The one line with which a file is refused."""
    file.write_bytes(content)
    with pytest.raises(Error, match=rf"^\[data pack\] expected .* in {file}, got ") as caught:
        read_pickle(file)
    assert "\n" not in str(caught.value)
    return str(caught.value).partition(", got ")[2]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("count", [1, 50])  # 1: arrays are short strings
def test_all_that_may_be_in_a_pickle(file: Path, protocol: int, count: int) -> None:
    data = rows(0, count=count, size=4)
    numbers = [
        0,
        255,
        256,
        65536,
        -1,
        2**40,
        -(2**40),
        True,
        None,
        1.5,
        "ä",
        b"\xff",
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
    ]
    content: dict[Any, Any] = {
        "data": data,
        "same": data,
        "mean": data.mean(axis=0),
        "labels": list(range(count)),
        "many": [*numbers, (1, 2, 3, 4), [], {}, {"a": 1, b"b": 2}],
        "long": "x" * 10_000,
        "scalar": np.float32(0.5),
        "big end": np.arange(5, dtype=">i4"),
        "flags": np.array([True, False]),
    }
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_pickle(file)
    for name in ("data", "same", "mean", "big end", "flags"):
        np.testing.assert_array_equal(found[name].whole(), content[name])
        assert found[name].dtype == content[name].dtype
    assert found["labels"] == content["labels"]
    assert found["many"] == [*content["many"][:-1], {"a": 1, "b": 2}]
    assert found["scalar"] == 0.5


def test_pickles_of_python_2(file: Path) -> None:
    data = rows(0, count=200, size=4)
    content = python2({"data": data, "labels": [1, 300], "name": "x"})
    assert "BINSTRING" in {opcode.name for opcode, _, _ in pickletools.genops(content)}
    file.write_bytes(content)
    found = read_pickle(file)
    np.testing.assert_array_equal(found["data"].whole(), data)
    np.testing.assert_array_equal(pickle.loads(content, encoding="bytes")[b"data"], data)
    assert found["labels"] == [1, 300]
    assert found["name"] == b"x"


class Executes:
    """What a hostile pickle is made with."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_is_executed(file: Path, protocol: int) -> None:
    content = pickle.dumps({"data": Executes(file.parent / "made")}, protocol=protocol)
    got = refused(file, content)
    assert "mkdir', which is not executed" in got or protocol < 2
    assert os.listdir(file.parent) == ["file"]
    pickle.loads(content)
    assert (file.parent / "made").is_dir()  # so it would have


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (np.array([{}, []], dtype=object), "an array of Python objects"),
        (np.array(["a"]), "an array of type 'U1'"),
        (np.zeros(2, dtype=[("a", "i4")]), "an array of type 'V4'"),
        (np.zeros(2, dtype=np.complex64), "an array of type 'c8'"),
        (np.array(["2001"], dtype="M8[Y]"), "an array of type 'M8'"),
        (np.asfortranarray(np.zeros((2, 3))), "an array in Fortran order"),
        (np.ma.masked_array([1, 2]), "'numpy.ma"),
        (OrderedDict(a=1), "'collections.OrderedDict', which is not executed"),
        (datetime.date(2001, 1, 1), "'datetime.date'"),
        (frozenset((1,)), ""),
        ({1, 2}, ""),
        ({1: 2}, "a dictionary whose keys are no text"),
        (print, "'builtins.print'"),
        (np.random.default_rng, "'numpy.random"),
        (10**1000, "the instruction b'\\x8b'"),
    ],
    ids=lambda value: str(type(value).__name__),
)
@pytest.mark.parametrize("protocol", [3, 5])
def test_what_is_refused(file: Path, value: Any, got: str, protocol: int) -> None:
    assert got in refused(file, pickle.dumps({"data": value}, protocol=protocol))


@pytest.mark.parametrize("value", [[1], 3, None, "text", np.zeros(3)])
def test_something_else_than_a_dictionary(file: Path, value: Any) -> None:
    refused(file, pickle.dumps(value, protocol=4))


def array_of(
    shape: bytes, content: bytes, subtype: bytes = b"cnumpy\nndarray\n", dtype: bytes = b"u1"
) -> bytes:
    """A pickle of one array with any shape, content, class and type."""
    kind = b"cnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype + b"K\x00K\x01\x87R"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n" + subtype + b"K\x00\x85U\x01b\x87R"
    return b"\x80\x02}U\x04data" + empty + b"(K\x01" + shape + kind + b"\x89" + content + b"tbs."


def test_arrays_that_are_not_what_they_say(file: Path) -> None:
    file.write_bytes(array_of(b"K\x02K\x03\x86", b"U\x06abcdef"))
    np.testing.assert_array_equal(
        read_pickle(file)["data"].whole(), np.frombuffer(b"abcdef", np.uint8).reshape(2, 3)
    )
    large = b"J\xff\xff\xff\x7f"
    for shape in (
        b"K\x05\x85",
        b"K\x07\x85",
        b"J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86",
        large + large + b"\x86",
    ):
        refused(file, array_of(shape, b"U\x06abcdef"))
    for shape in (b"]", b"N", b"K\x06", b"N\x85", b"]\x85", b"G" + bytes(8) + b"\x85"):
        assert "an array without a shape" in refused(file, array_of(shape, b"U\x06abcdef"))
    assert "without type or content" in refused(file, array_of(b"K\x06\x85", b"K\x06"))
    assert "an array of Python objects" in refused(file, array_of(b"K\x06\x85", b"]"))
    assert "an array of Python objects" in refused(file, array_of(b"K\x06\x85", b"U\x06abcdef", dtype=b"O8"))
    assert "type of its own" in refused(file, array_of(b"K\x06\x85", b"U\x06abcdef", b"cnumpy\ndtype\n"))
    assert "'os.system'" in refused(file, array_of(b"K\x06\x85", b"U\x06abcdef", b"cos\nsystem\n"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x80",
        b"\x80\x06}.",
        b"\x80\x02.",
        b"\x80\x02}}.",
        b"\x80\x02(}.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02Na.",
        b"\x80\x02h\x05.",
        b"\x80\x02u.",
        b"\x80\x02NNb.",
        b"\x80\x02NNR.",
        b"\x80\x02NN\x93.",
        b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02cnumpy\n" + b"n" * 10_000 + b"\n.",
        b"\x80\x02c\xff\n\xff\n.",
        b"\x80\x04B\xff\xff\xff\xff",  # four gigabytes, it says
        b"\x80\x04\x8e" + b"\xff" * 8,
        b"\x80\x02T\xff\xff\xff\xff",
        b"\x80\x02X\x02\x00\x00\x00\xff\xff.",
        b"\x80\x05\x97.",
    ],
)
def test_damaged_pickles(file: Path, content: bytes) -> None:
    refused(file, content)


def test_every_cut_is_noticed(file: Path) -> None:
    for content in (
        python2({"data": rows(0, count=2, size=2)}),
        pickle.dumps({"a": np.arange(9)}, protocol=4),
    ):
        for length in range(len(content)):
            refused(file, content[:length])


def test_values_that_contain_each_other_many_times(file: Path) -> None:
    nested = b"".join(b"h\x00h\x00\x86q\x00" for _ in range(100))  # 2**100 of them, if anybody asked
    for use in (b"R.", b"NR.", b"U\x01as.", b"s.", b"\x93.", b"N\x93.", b"cnumpy\ndtype\nh\x00\x85R.", b"."):
        refused(file, b"\x80\x02}Nq\x00" + nested + use)
    deep = b"\x80\x02}U\x01aN" + b"\x85" * 100_000 + b"s."
    file.write_bytes(deep)
    assert set(read_pickle(file)) == {"a"}


@pytest.mark.parametrize("dump", [python2, lambda content: pickle.dumps(content, protocol=2)])
def test_arrays_are_not_read_into_memory(file: Path, monkeypatch: pytest.MonkeyPatch, dump: Any) -> None:
    monkeypatch.setattr(stored, "CHUNK", 1 << 18)
    monkeypatch.setattr("klopf.data.pickled._IN_MEMORY", 1 << 18)
    data = rows(0, count=2000, size=32)
    file.write_bytes(dump({"data": data}))
    tracemalloc.start()
    try:
        array = read_pickle(file)["data"]
        done = 0
        for chunk in array.chunks(np.arange(0, 2000, 3)):
            np.testing.assert_array_equal(chunk, data[3 * done : 3 * (done + len(chunk)) : 3])
            done += len(chunk)
        assert done == 667
        assert tracemalloc.get_traced_memory()[1] < 8 << 20  # the data are 6 MB, and their text 9 MB
    finally:
        tracemalloc.stop()


def test_many_small_values_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klopf.data.pickles._MEMORY", 1 << 20)
    for content in (b"]" * 20_000, (b"C\xff" + bytes(255)) * 5000, (b"\x8c\xc8" + b"a" * 200) * 5000):
        assert refused(file, b"\x80\x04" + content) == "more than 1 MiB of other values"
