"""Files that are something else than their name says, or than weights."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import lwmm, merge
from safetensors.numpy import load_file, save
from tiny import segformer, tree

import hf_lwmm
from hf_lwmm.data.decoding import decode
from hf_lwmm.errors import CheckpointError, DatasetError, MergeError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 14884776\n"
PAGE = b"\n<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>"
WEIGHTS = save({"w": np.ones((2, 2), np.float32)})


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("model.pth")
        entry.size = len(WEIGHTS)
        archive.addfile(entry, io.BytesIO(WEIGHTS))
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.pth", WEIGHTS)
    return file.getvalue()


FOREIGN = {
    "pointer": (POINTER, r"is a Git LFS pointer.*git lfs pull"),
    "page": (PAGE, r"is a web page.*Google Drive"),
    "upper case": (PAGE.upper(), "is a web page"),
    "empty": (b"", "is empty. Download"),
    "gzip": (gzip.compress(WEIGHTS), r"is compressed with gzip. Unpack it first \(gunzip"),
    "bzip2": (bz2.compress(WEIGHTS), "is compressed with bzip2"),
    "xz": (lzma.compress(WEIGHTS), "is compressed with xz"),
    "tar": (tarred(), "is a tar archive"),
    "zip": (zipped(), r"is a zip archive, but not of torch.*only model\.pth.*unzip it first"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + b"\0" * 600, "is an HDF5 file"),
    "GGUF": (b"GGUF" + b"\3\0\0\0" * 9, "is a GGUF file"),
}


@pytest.mark.parametrize("suffix", ["pth", "bin", "ckpt", "safetensors"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_came_in_the_place_of_weights_is_named(kind: str, suffix: str, tmp_path: Path) -> None:
    content, words = FOREIGN[kind]
    (tmp_path / f"a.{suffix}").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"^a\.{suffix}: {words}"):
        hf_lwmm.inspect(tmp_path / f"a.{suffix}")


def test_a_repository_of_pointers_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    result = lwmm("inspect", tmp_path)
    assert result.exit_code == 1 and "model.safetensors: is a Git LFS pointer" in str(result.exception)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(WEIGHTS)
    torch.save({"w": torch.ones(2, 2)}, tmp_path / "b.safetensors")
    for name, kind in (("a.pth", "safetensors"), ("b.safetensors", "torch")):
        info = hf_lwmm.inspect(tmp_path / name)
        assert info.parameters == 4 and info.notes[0] == f"{name}: is a {kind} file, whatever its name says"
    merge([tmp_path / "a.pth", tmp_path / "b.safetensors"], output=tmp_path / "out")
    assert (load_file(tmp_path / "out" / "model.safetensors")["w"] == 1).all()
    for name in ("a.pth", "b.safetensors"):  # a copy would have a name that belies it, or the merge's own
        with pytest.raises(MergeError, match="has none"):
            merge([tmp_path / name, tmp_path / "a.pth"], format="torch", output=tmp_path / "copy")


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    lengths = set()
    for size in range(1, 60):
        content = save({"w": np.ones(size, np.float32)} | {f"{i:050}": np.ones(1, np.float32) for i in range(size)})
        lengths.add(content[0])
        (tmp_path / "a.safetensors").write_bytes(content)
        assert hf_lwmm.inspect(tmp_path / "a.safetensors").tensors == size + 1
    assert 0x80 in lengths


@pytest.mark.parametrize("kind", ["pointer", "page", "empty", "gzip"])
def test_pictures_that_are_something_else_are_named(kind: str, tmp_path: Path) -> None:
    content, words = FOREIGN[kind]
    (tmp_path / "0.png").write_bytes(content)
    for stored in (content, tmp_path / "0.png"):
        with pytest.raises(DatasetError, match=rf"^0\.png: cannot be decoded: it {words}"):
            decode(stored, "0.png")


@pytest.mark.parametrize("part", ["images", "labels"])
def test_an_evaluation_names_the_pointer(part: str, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 1)
    (data / part / "0.png").write_bytes(POINTER)
    result = lwmm("evaluate", segformer(tmp_path / "model", 1), "--data", data)
    assert result.exit_code == 1 and f"{part}/0.png: cannot be decoded: it is a Git LFS pointer" in str(
        result.exception
    )


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("README.md", b"---\nlicense: mit\n---\n# Model\n", "Markdown text, such as a model card"),
        ("config.json", b'{"model_type": "segformer"}', "a JSON document"),
        ("notes", "Größe".encode() * 200, "text"),
        ("street.jpg", b"\xff\xd8\xff\xe0" + bytes(600), "a JPEG picture"),
    ],
)
def test_a_file_that_holds_no_weights_is_named(name: str, content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    done = lwmm("inspect", path)
    assert done.exit_code == 1 and f"{name}: is {what}, and no checkpoint." in str(done.exception)
    assert "folders that hold them" in str(done.exception)
