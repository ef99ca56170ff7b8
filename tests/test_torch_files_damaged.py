"""Damaged torch files are named, with what is wrong, and never read as something else."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from torch_files import (
    Kept,
    Made,
    Named,
    both,
    bytes_of,
    floats,
    legacy,
    opened,
    ordered,
    pickled,
    storage,
    tensor,
    values,
    zipped,
)

from hf_lwmm.checkpoints.torch_file import read_torch_file
from hf_lwmm.errors import CheckpointError
from hf_lwmm.files.byte_file import LocalFile

TREE = ordered({"a": tensor(storage("0", 6), (2, 3)), "b": tensor(storage("1", 2), (2,))})
BLOCKS = {"0": floats(1, 2, 3, 4, 5, 6), "1": floats(7, 8)}
GOOD = {"a": [1, 2, 3, 4, 5, 6], "b": [7, 8]}
ZIP, LEGACY = both(TREE, BLOCKS, True), both(TREE, BLOCKS, False)
FORMATS = pytest.mark.parametrize("zip_file", [True, False], ids=["zip", "legacy"])


def refused(content: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        bytes_of(opened(content))
    assert str(caught.value).startswith("a.pth: ")


@FORMATS
def test_a_file_that_ends_too_early_is_refused_wherever_it_ends(zip_file: bool) -> None:
    whole = ZIP if zip_file else LEGACY
    assert values(whole) == GOOD
    for length in range(len(whole)):
        refused(whole[:length], "truncated|too early|is empty|no checkpoint|not one that torch|damaged")


@FORMATS
def test_a_file_that_ends_too_early_is_refused_on_disk_too(zip_file: bool, tmp_path: Path) -> None:
    whole = ZIP if zip_file else LEGACY
    for length in (0, 1, 100, len(whole) - 1):
        (tmp_path / "a.pth").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"^a\.pth: "):
            bytes_of(opened(tmp_path / "a.pth"))


@pytest.mark.parametrize("record", ["data.pkl", "data/0", "byteorder"])
def test_a_changed_byte_does_not_fit_the_checksum(record: str) -> None:
    content = {"data.pkl": pickled(TREE), "data/0": BLOCKS["0"], "byteorder": b"little"}[record]
    place = ZIP.index(content) + len(content) // 2
    changed = ZIP[:place] + bytes([ZIP[place] ^ 1]) + ZIP[place + 1 :]
    refused(changed, rf"content of archive/{record} does not have the checksum")


def central(name: str, offset: int, form: str, value: int) -> bytes:
    """The archive with another number in the directory's entry for a record."""
    place = ZIP.index(b"PK\1\2")
    while ZIP[place + 46 :][: len(name)] != name.encode():
        place = ZIP.index(b"PK\1\2", place + 1)
    content = bytearray(ZIP)
    struct.pack_into(form, content, place + offset, value)
    return bytes(content)


SECOND = zipfile.ZipFile(io.BytesIO(ZIP)).getinfo("archive/data/1").header_offset


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (central("archive/data/0", 24, "<I", 25), "bytes of another entry|not what the directory says"),
        (central("archive/data/0", 24, "<I", 4000), "bytes of another entry"),
        (central("archive/data/0", 24, "<I", 0xFFFFFFFE), "bytes of another entry"),
        (central("archive/data/0", 24, "<I", 4), "checksum|does not lie within"),
        (central("archive/data/0", 42, "<I", SECOND), "lists an entry twice"),
        (central("archive/data/0", 42, "<I", SECOND + 4), "bytes of another entry|not what the directory says"),
        (central("archive/data/0", 42, "<I", 0xFFFFFFF0), "bytes of another entry"),
        (central("archive/data/0", 28, "<H", 60_000), "damaged"),
        (central("archive/data/0", 10, "<H", 8), "archive/data/0 is compressed"),
        (central("archive/data/0", 8, "<H", 1), "archive/data/0 is encrypted"),
        (ZIP.replace(b"archive/data/1", b"archive/data/0"), "lists an entry twice"),
        (ZIP.replace(b"data.pkl", b"atad.pkl"), "not of torch"),
        (zipped(TREE, BLOCKS, byteorder="middle"), "neither little nor big"),
    ],
)
def test_a_directory_that_lies_is_refused(content: bytes, words: str) -> None:
    refused(content, words)


def test_a_wrong_name_in_an_entry_itself_is_refused() -> None:
    place = ZIP.index(b"archive/data/0")
    refused(ZIP[: place + 13] + b"7" + ZIP[place + 14 :], "is not what the directory says")


A = storage("0", 6)
BEYOND: dict[str, Any] = {
    "too many": tensor(A, (7,)),
    "too far": tensor(A, (2,), offset=5),
    "too wide steps": tensor(A, (2, 2), (5, 1)),
    "before it": tensor(A, (2,), offset=-1),
    "backwards": tensor(A, (2,), (-1,), offset=1),
    "negative size": tensor(A, (-1,), (1,)),
    "no size": tensor(A, ("2",), (1,)),
    "truth for a size": tensor(A, (True,), (1,)),
    "steps missing": tensor(A, (2, 3), (1,)),
    "sizes in a list": tensor(A, [2], (1,)),  # type: ignore[arg-type]
    "no storage": tensor("0", (2,)),
    "a storage that is not there": tensor(storage("9", 2), (2,)),
    "no arguments": Made(Named("torch._utils", "_rebuild_tensor_v2"), ()),
    "one argument": Made(Named("torch._utils", "_rebuild_parameter"), (1,)),
    "a parameter of itself": Made(Named("torch._utils", "_rebuild_from_type_v2"), (Named("a", "b"),)),
}


@pytest.mark.parametrize("case", BEYOND)
def test_a_tensor_beyond_its_storage_is_refused(case: str) -> None:
    refused(zipped({"w": BEYOND[case]}, BLOCKS), "tensor 'w' is damaged: it does not lie within its storage")


@FORMATS
def test_a_storage_that_is_shorter_than_claimed_is_refused(zip_file: bool) -> None:
    short = {**BLOCKS, "0": BLOCKS["0"][:-4]}
    refused(both(TREE, short, zip_file), "does not lie within its storage|ends too early; it is truncated")


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("0", "no storage of a known type"),
        (("storage", Named("torch", "FloatStorage"), "0"), "no storage of a known type"),
        (("storage", Named("torch", "FloatStorage"), "0", "cpu", -1), "no storage of a known type"),
        (("storage", Named("torch", "FloatStorage"), "0", "cpu", 1 << 60), "no storage of a known type"),
        (("storage", Named("torch", "OtherStorage"), "0", "cpu", 6), "no storage of a known type"),
        (("storage", "FloatStorage", "0", "cpu", 6), "no storage of a known type"),
        (("storage", Named("torch", "FloatStorage"), 0, "cpu", 6), "no storage of a known type"),
        (("storage", Named("torch", "FloatStorage"), "0", "cpu", 6, ("v", 4, 3)), "no storage of a known type"),
        (["storage"], "no storage of a known type"),
    ],
)
@FORMATS
def test_what_a_pickle_names_outside_of_it_must_be_a_storage(id: Any, words: str, zip_file: bool) -> None:
    refused(both({"w": tensor(Kept(id), (6,))}, BLOCKS, zip_file), words)


COUNTED = {"0": (6, BLOCKS["0"]), "1": (2, BLOCKS["1"])}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (legacy(TREE, {**COUNTED, "0": (5, BLOCKS["0"])}), "not as long as its tensors say"),
        (legacy(TREE, COUNTED, keys=pickled(["0", "2"])), "list of storages is damaged"),
        (legacy(TREE, COUNTED, keys=pickled({"0": 1})), "list of storages is damaged"),
        (legacy(TREE, COUNTED, keys=pickled([["0"], "1"])), "list of storages is damaged"),
        (legacy(TREE, COUNTED, keys=pickled(["1", "0"])), "not as long as its tensors say"),
        (legacy(TREE, COUNTED, keys=pickled(["0"])), "tensor 'b' is damaged"),
        (LEGACY.replace(pickled(1001), pickled(1000)), "has the protocol 1000 of torch; only 1001"),
        (pickled({"a": 1}), "not one that torch.save wrote"),
    ],
)
def test_a_legacy_file_that_contradicts_itself_is_refused(content: bytes, words: str) -> None:
    refused(content, words)


START = b"\x80\x02"


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (b"", "ends too early"),
        (b".", "damaged"),
        (b"N", "ends too early"),
        (b"\xff.", "has no such step"),
        (b"NN.", "left over"),
        (b"(.", "left over"),
        (b"NK\1a.", "damaged"),
        (b"}K\1N]s.", "a dictionary in it is none"),
        (b"N\x87.", "missing"),
        (b"(N\x86.", "missing"),
        (b"t.", "mark is missing"),
        (b"h\0.", "damaged"),
        (b"I12x\n.", "damaged"),
        (b"S'a\n.", "no quotes"),
        (b"X\4\0\0\0a\xff\xffb.", "damaged"),
        (b"T\xff\xff\xff\xffab.", "claims -1 bytes"),
        (b"X\xff\xff\xff\x7fab.", "ends too early"),
        (b"K\1K\1\x93.", "a name in it is no text"),
        (b"\x82\1.", "extension registry"),
        (b"\x97.", "buffers outside"),
        (b"Pa\n.", "no storage of a known type"),
    ],
)
def test_a_damaged_pickle_is_refused(steps: bytes, words: str) -> None:
    refused(zipped(START + steps, BLOCKS), f"its pickle cannot be read: .*{words}")


def test_a_file_that_was_changed_while_it_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(ZIP)
    file = opened(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(ZIP[: ZIP.index(BLOCKS["1"])])
    with pytest.raises(CheckpointError, match=r"^a\.pth: "):
        bytes_of(file)


def test_a_closed_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(ZIP)
    local = LocalFile(tmp_path / "a.pth")
    file = read_torch_file(local)
    local.close()
    with pytest.raises(CheckpointError, match="was closed"):
        bytes_of(file)
