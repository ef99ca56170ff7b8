"""Open one file of weights as what it is, whatever its name says, and take one network from the files of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hf_lwmm.checkpoints.hosted import Hosted
from hf_lwmm.checkpoints.readers import FileReader
from hf_lwmm.checkpoints.safetensors_file import SafetensorsReader, TensorInfo, read_header
from hf_lwmm.checkpoints.torch_file import WEIGHT_SUFFIXES, read_torch_file
from hf_lwmm.checkpoints.unwrapping import unwrap, without_pure_wrappers
from hf_lwmm.errors import CheckpointError
from hf_lwmm.files.byte_file import ByteFile, read_bytes
from hf_lwmm.files.kinds import HEAD, foreign_kind, is_safetensors, is_torch, kind_of_other


@dataclass(frozen=True)
class WeightFile:
    """One of the files that hold a model's tensors.

    `chosen` is true if the file itself had an entry for the branch that was asked for, `lightning` if it holds a
    Lightning module, and `whole` if it holds a pickled module, which is loaded by the names that it has. `stored` are
    the names in the file of tensors that have got others.
    """

    name: str
    file: ByteFile
    tensors: Mapping[str, TensorInfo]
    reader: FileReader
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    chosen: bool = False
    lightning: bool = False
    whole: bool = False
    stored: Mapping[str, str] = field(default_factory=dict, repr=False)

    def renamed(self, names: Mapping[str, str]) -> WeightFile:
        """Return the file with the tensors of `names` alone, which has their present names by their new ones."""
        tensors = {name: self.tensors[old] for name, old in names.items()}
        stored = {name: self.stored.get(old, old) for name, old in names.items()}
        return replace(self, tensors=tensors, reader=self.reader.renamed(names), stored=stored)


def open_weight_file(name: str, file: ByteFile, branch: str) -> WeightFile:
    """Open a file of weights.

    Args:
        name: its path in its repository.
        file: its bytes.
        branch: the entry to take from a torch file that has several networks.

    Raises:
        CheckpointError: if it is something else, and then what, or if it is damaged or unsafe.
    """
    head = read_bytes(file, 0, min(file.size, HEAD))
    called_safetensors = name.endswith(".safetensors")
    is_known = is_safetensors(head, file.size)  # the length of its header may begin like a pickle
    if not is_known and is_torch(head):
        read = read_torch_file(file, branch)
        notes = (f"{file.name}: is a torch file, whatever its name says",) if called_safetensors else ()
        notes = (*notes, *read.notes)
        facts = (read.classes, notes, read.metadata)
        return WeightFile(name, file, read.tensors, read.reader, *facts, read.chosen, read.lightning, read.whole)
    if not is_known and (mistake := foreign_kind(head)) is not None:
        raise CheckpointError(f"{file.name}: {mistake}")
    if not is_known and not called_safetensors:
        other = kind_of_other(name, head)
        raise CheckpointError(
            f"{file.name}: is {other + ', and ' if other else ''}no checkpoint. Safetensors files (.safetensors) and "
            f"torch files ({', '.join(WEIGHT_SUFFIXES[1:])}) are read, and folders that hold them."
        )
    header = read_header(file)
    notes = () if called_safetensors else (f"{file.name}: is a safetensors file, whatever its name says",)
    return WeightFile(name, file, header.tensors, SafetensorsReader(file, header), notes=notes)


def unwrapped_files(
    label: str, files: Sequence[WeightFile], branch: str, *, hosted: Hosted | None = None
) -> tuple[list[WeightFile], tuple[str, ...]]:
    """Return a model's files with the tensors of one network, by the names of its own code, and notes on the choice.

    `label` is the model's name; `branch` and `hosted` are as for `unwrap`.

    Raises:
        CheckpointError: as `unwrap`.
    """
    files = [each.renamed(without_pure_wrappers({name: name for name in each.tensors})) for each in files]
    if any(each.chosen for each in files):
        branch = "student"
    every = [name for each in files for name in each.tensors]
    lightning, whole = any(each.lightning for each in files), any(each.whole for each in files)
    found = unwrap(every, branch, label, hosted=hosted, lightning=lightning, whole=whole)
    kept = [{name: old for name, old in found.names.items() if old in each.tensors} for each in files]
    return [each.renamed(names) for each, names in zip(files, kept, strict=True)], found.notes
