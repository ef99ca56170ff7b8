"""From the records of a torch file to its tensors: what they are, where their bytes are, and reading them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_lwmm.checkpoints.dtypes import ITEM_SIZES, WORD_SIZES, Bytes
from hf_lwmm.checkpoints.inert_pickle import Name, Record, shown
from hf_lwmm.checkpoints.safetensors_file import TensorInfo
from hf_lwmm.checkpoints.torch_archive import Storage, TorchArchive, check_content, data_start
from hf_lwmm.errors import CheckpointError
from hf_lwmm.files.byte_file import ByteFile

TORCH_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "complex64": "C64",
}  # fmt: skip
# The functions of torch that make tensors: of a storage, of another tensor, by another function, and those not read.
_STRIDED = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_WRAPPED = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_TYPED = ("_rebuild_from_type", "_rebuild_from_type_v2")
_OTHERS = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_qtensor": "quantised",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_njt": "nested",
    "_rebuild_meta_tensor_no_storage": "without values (on the device meta)",
    "_rebuild_wrapper_subclass": "of a class of its own",
    "_rebuild_device_tensor_from_numpy": "from another kind of device",
    "_rebuild_device_tensor_from_cpu_tensor": "from another kind of device",
}
_REMEDY = "Save it as a plain tensor of a type such as float32."
_REMEDIES = {
    "_rebuild_sparse_tensor": "Save its `.to_dense()`.",
    "_rebuild_sparse_csr_tensor": "Save its `.to_dense()`.",
    "_rebuild_qtensor": "Save its `.dequantize()`.",
    "_rebuild_meta_tensor_no_storage": "The file has no values for it: load the weights, and save the model again.",
}
_MODULES = ("torch._utils", "torch._tensor", "torch.tensor", "torch.nested._internal.nested_tensor")
_PARTS = ("_parameters", "_buffers", "_modules")  # of the attributes of a module
# Modules that are pickled by a call: torch.compile's has the compiled one inside, and those of torch.fx have their
# attributes among the arguments.
_COMPILED = "torch._dynamo.eval_frame.OptimizedModule"
_TRACED = {
    "torch.fx.graph_module.reduce_graph_module": 0,
    "torch.fx.graph_module.reduce_package_graph_module": 1,
    "torch.fx.graph_module.reduce_deploy_graph_module": 1,
}
_PACKED = re.compile(r"torch\.(ao\.)?nn\.(\w+\.)?quantized\.")  # these keep their weights elsewhere
_FAR = 1 << 48  # elements: more than any file has
_FREE = 1 << 20  # bytes: a tensor whose elements share memory may be larger than its file up to here
MAX_TENSORS = 100_000  # of one network
_TIES = 64  # times the size of a file that all its tensors may claim: ties are few, and every layer may be the same
_NAME = 64  # what a name costs a module, beside its letters
MAX_NAMES = MAX_TENSORS * (_NAME + 60)  # what the names in one module may cost


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a torch file: a view of a storage, by its first element and its strides, both in elements."""

    info: TensorInfo
    storage: Storage
    offset: int
    strides: tuple[int, ...]

    @property
    def first_byte(self) -> int:
        """The byte of the storage's block at which the first element is."""
        return self.storage.start + self.offset * ITEM_SIZES[self.info.dtype]

    @property
    def reach(self) -> int:
        """The number of bytes from the first element to the end of the last one, for a tensor that has elements."""
        steps = sum((size - 1) * stride for size, stride in zip(self.info.shape, self.strides, strict=True))
        return (steps + 1) * ITEM_SIZES[self.info.dtype]

    @property
    def overlaps_itself(self) -> bool:
        """True if elements may share memory, as those of an expanded tensor do."""
        covered = 1
        for stride, size in sorted(zip(self.strides, self.info.shape, strict=True)):
            if size > 1:
                if stride < covered:
                    return True
                covered = (size - 1) * stride + covered
        return False

    @property
    def contiguous(self) -> bool:
        """True if the elements lie one after the other, the last index fastest."""
        expected = 1
        for size, stride in zip(reversed(self.info.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return self.info.count == 0
            expected *= size
        return True


def is_tensor(value: Any) -> bool:
    """Return True for a record of a tensor, of whatever kind."""
    return (
        isinstance(value, Record)
        and isinstance(value.cls, Name)
        and value.cls.module in _MODULES
        and (value.cls.name in (*_STRIDED, *_WRAPPED, *_TYPED) or value.cls.name in _OTHERS)
    )


def stored_tensor(value: Any, name: str, archive: TorchArchive, file: ByteFile) -> StoredTensor:
    """Return the tensor of a record, which messages call `name`.

    Raises:
        CheckpointError: if it is no plain tensor of a known type, or not inside the file.
    """
    label = f"{file.name}: tensor '{shown(name)}'"
    damaged = CheckpointError(f"{label} is damaged: it does not lie within its storage.")
    for _ in range(8):
        if not is_tensor(value) or not isinstance(value.arguments, tuple) or not value.arguments:
            raise damaged
        kind = value.cls.name
        if kind in _OTHERS:
            raise CheckpointError(f"{label} is {_OTHERS[kind]}: not supported. {_REMEDIES.get(kind, _REMEDY)}")
        if kind in _STRIDED:
            break
        if kind in _TYPED:
            function, _, arguments, *_ = (*value.arguments, None, None)
            value = Record(function, arguments)
        else:
            value = value.arguments[0]
    match value.arguments:
        case (Storage() as storage, int() as offset, tuple() as shape, tuple() as strides, *rest):
            if len(shape) != len(strides) or len(shape) > 64:
                raise damaged
            if any(type(number) is not int or not 0 <= number < _FAR for number in (offset, *shape, *strides)):
                raise damaged
        case _:
            raise damaged
    dtype = storage.dtype
    if kind == "_rebuild_tensor_v3":
        dtype = TORCH_DTYPES.get(getattr(rest[2], "name", ""), shown(rest[2])) if len(rest) > 2 else "unknown"
    if dtype not in ITEM_SIZES:
        raise CheckpointError(f"{label} is {dtype}: not supported. {_REMEDY}")
    if isinstance(rest[-1] if rest else None, dict) and rest[-1]:
        raise CheckpointError(f"{label} is stored conjugated or negated: not supported. {_REMEDY}")
    found = StoredTensor(TensorInfo(dtype, shape), storage, offset, strides)
    block = archive.blocks.get(storage.key)
    if found.info.count == 0:
        return found
    item = ITEM_SIZES[dtype]
    if (
        block is None
        or found.info.count > _FAR
        or offset * item + found.reach > storage.nbytes
        or storage.start + storage.nbytes > block.size
    ):
        raise damaged
    if found.info.nbytes > max(file.size, _FREE):
        raise CheckpointError(
            f"{label} claims {found.info.nbytes:,} bytes, more than the file has: its elements "
            "share memory. Save its `.contiguous()` if it is meant so."
        )
    return found


def stored_tensors(records: Mapping[str, Any], archive: TorchArchive, file: ByteFile) -> dict[str, StoredTensor]:
    """Return the tensors of a network's records, by name.

    Raises:
        CheckpointError: as `stored_tensor`, or if they are more, or larger together, than those of any network.
    """
    if len(records) > MAX_TENSORS:
        raise CheckpointError(f"{file.name}: has {len(records):,} tensors, more than any network.")
    tensors = {name: stored_tensor(record, name, archive, file) for name, record in records.items()}
    claimed = sum(tensor.info.nbytes for tensor in tensors.values())
    if claimed > _TIES * max(file.size, _FREE):
        raise CheckpointError(
            f"{file.name}: its tensors claim {claimed:,} bytes, more than {_TIES} times what the file has: they share "
            "memory. Save the `.contiguous()` of each if they are meant so."
        )
    return tensors


def module_tensors(module: Record) -> Iterator[tuple[str, Any]]:
    """Yield names and records of the tensors of a pickled module, those that its `state_dict()` would hold.

    Where a part of it is no tensor and no module, or pickled in a way of its own, it is yielded in their place.

    Raises:
        RecursionError: if modules contain themselves, or their names are more than `MAX_NAMES`.
    """
    pending: list[tuple[str, Any, int]] = [("", module, 0)]
    left = MAX_NAMES
    while pending:
        prefix, each, depth = pending.pop()
        state = module_state(each)
        unsaved = elements(state.get("_non_persistent_buffers_set"))
        left -= _NAME * len(unsaved)
        hidden = {name for name in unsaved if isinstance(name, str)} if left > 0 else set()
        children = []
        for key in _PARTS:
            if not _is_table(state[key]):
                yield f"{prefix}{key}", state[key]
            for name, value in entries(state[key]).items():
                left -= _NAME + len(prefix) + (len(name) if isinstance(name, str) else 0)
                if depth > 200 or left < 0:
                    raise RecursionError
                if value is None or (key == "_buffers" and name in hidden):
                    continue
                if not isinstance(name, str):
                    yield f"{prefix}{shown(name)}", name
                elif key == "_modules" and is_module(value):
                    children.append((f"{prefix}{name}.", value, depth + 1))
                else:
                    yield f"{prefix}{name}", value
        pending += reversed(children)


def _is_table(value: Any) -> bool:
    """True for a dictionary of whatever class whose items can be seen."""
    return isinstance(value, dict) or (isinstance(value, Record) and (bool(entries(value)) or not value.arguments))


def is_module(value: Any) -> bool:
    """Return True for a record of a module of torch whose tensors can be seen."""
    return isinstance(value, Record) and module_state(value).keys() >= set(_PARTS) and not _PACKED.match(str(value.cls))


def module_state(value: Any) -> Mapping[Any, Any]:
    """Return the attributes of a record, by name."""
    state = value.state if isinstance(value, Record) else None
    if isinstance(value, Record) and isinstance(value.cls, Name) and isinstance(value.arguments, tuple):
        called = str(value.cls)
        if called == _COMPILED and value.arguments:
            return {"_parameters": {}, "_buffers": {}, "_modules": {"_orig_mod": value.arguments[0]}}
        if called in _TRACED and len(value.arguments) > _TRACED[called]:
            state = value.arguments[_TRACED[called]]
    if isinstance(state, tuple) and state and isinstance(state[0], dict):
        state = state[0]  # beside the slots of its class
    return state if isinstance(state, dict) else {}


def entries(value: Any) -> Mapping[Any, Any]:
    """Return the items of a dictionary, of whatever class; none for anything else."""
    if isinstance(value, Record):
        # Python 2 pickled an OrderedDict as a call with a list of pairs.
        match value.arguments:
            case (list() as pairs,) if not value.entries and getattr(value.cls, "name", "") == "OrderedDict":
                pairs = [pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2]
                value.entries = {key: item for key, item in pairs if isinstance(key, str)}
                value.arguments = ()
        return value.entries
    return value if isinstance(value, dict) else {}


def elements(value: Any) -> Sequence[Any]:
    """Return the elements of a list, tuple or set, of whatever class; none for anything else."""
    if isinstance(value, Record):
        match value.arguments:
            case (list() as values,) if not value.elements:  # a set is pickled as a call with a list
                return values
        return value.elements
    return value if isinstance(value, list | tuple) else ()


class TorchReader:
    """Read bytes of the tensors of a torch file; several threads may do so at once."""

    def __init__(
        self,
        file: ByteFile,
        archive: TorchArchive,
        tensors: Mapping[str, StoredTensor],
        holders: tuple[Any, ...] = (),
        network: Mapping[str, StoredTensor] | None = None,
    ) -> None:
        """Read tensors of a file.

        Args:
            file: the file.
            archive: its content.
            tensors: those that are read, by name.
            holders: the modules or state dicts in the archive's tree that hold them.
            network: all tensors of these, by stored name; those that are read if None.
        """
        self.file, self.archive, self.tensors, self.holders = file, archive, tensors, holders
        self.network = tensors if network is None else network
        self._starts: dict[str, int] = {}  # of the blocks that were found whole
        self._locks = {tensor.storage.key: threading.Lock() for tensor in tensors.values()}
        self._gathered: tuple[str, Bytes] = ("", np.empty(0, np.uint8))

    @property
    def entry(self) -> str | None:
        """The key of the file's content that has the state dict, "" if that is the content, None if it is deeper."""
        holder = self.holders[0] if len(self.holders) == 1 else None
        if holder is None or is_module(holder):
            return None
        if holder is self.archive.tree:
            return ""
        found = (key for key, value in entries(self.archive.tree).items() if value is holder and isinstance(key, str))
        return next(found, None)

    def read(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from its byte `start` on, in the order of its elements.

        Raises:
            CheckpointError: if the file is closed, was changed, or is damaged.
        """
        tensor = self.tensors[name]
        word = WORD_SIZES[tensor.info.dtype]
        if not len(buffer):
            return
        if not tensor.contiguous:
            buffer[:] = self._gather(name, tensor)[start : start + len(buffer)].data
            return
        self.file.read(self.place(tensor) + start, buffer)
        if self.archive.big_endian and word > 1:
            np.frombuffer(buffer, f"u{word}").byteswap(inplace=True)

    @property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        """The names of tensors that are the same bytes of the file, such as a head's that is tied to an embedding."""
        places: dict[object, list[str]] = {}
        for name, each in self.tensors.items():
            if each.info.count:
                place = (each.storage.key, each.first_byte, each.reach, each.info.count, each.info.dtype)
                places.setdefault(place, []).append(name)
        return tuple(tuple(names) for names in places.values() if len(names) > 1)

    def place(self, tensor: StoredTensor) -> int:
        """Return the byte of the file at which a tensor's first element is.

        Raises:
            CheckpointError: if the content of its storage, which is checked the first time, is damaged.
        """
        key = tensor.storage.key
        with self._locks[key]:
            if key not in self._starts:
                block = self.archive.blocks[key]
                start = data_start(self.file, block)
                check_content(self.file, block, start)
                self._starts[key] = start
        return self._starts[key] + tensor.first_byte

    def _gather(self, name: str, tensor: StoredTensor) -> Bytes:
        """The bytes of a tensor whose elements are scattered; those of the last such tensor are kept."""
        kept, values = self._gathered
        if kept != name:
            item = ITEM_SIZES[tensor.info.dtype]
            raw = np.empty(tensor.reach, np.uint8)
            self.file.read(self.place(tensor), raw.data)
            if self.archive.big_endian:
                raw.view(f"u{WORD_SIZES[tensor.info.dtype]}").byteswap(inplace=True)
            elements = raw.view(f"u{item}")
            strides = [stride * item for stride in tensor.strides]
            view = np.lib.stride_tricks.as_strided(elements, tensor.info.shape, strides, writeable=False)
            values = np.ascontiguousarray(view).reshape(-1).view(np.uint8)
            self._gathered = (name, values)
        return values

    def spans(self, names: Iterable[str]) -> list[tuple[int, int]]:
        """Return the bytes of the file, first and one past the last, in which the storages of tensors lie."""
        keys = {self.tensors[name].storage.key for name in names if self.tensors[name].info.count}
        return sorted((self.archive.blocks[key].start, self.archive.blocks[key].stop) for key in keys)

    def renamed(self, names: Mapping[str, str]) -> TorchReader:
        """Return a reader of the tensors of `names`, which has their present names by their new ones."""
        tensors = {name: self.tensors[old] for name, old in names.items()}
        return TorchReader(self.file, self.archive, tensors, self.holders, self.network)
