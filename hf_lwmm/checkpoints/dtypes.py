"""Name element types as safetensors does, widen floats for arithmetic, and narrow them again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Every type that the format has, and the bits of an element. C64 is a pair of float32.
BITS = {
    "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
ITEM_SIZES = {name: bits // 8 for name, bits in BITS.items() if bits % 8 == 0}  # in bytes
WORD_SIZES = ITEM_SIZES | {"C64": 4}  # of the parts whose bytes a machine of the other byte order has reversed
FLOATS = ("F16", "BF16", "F32", "F64")
# What --dtype takes, in torch's words.
BY_TORCH_NAME = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
TORCH_NAMES = {name: torch_name for torch_name, name in BY_TORCH_NAME.items()}
_LARGEST = {"F16": 65504.0, "BF16": 3.3895313892515355e38, "F32": float(np.finfo(np.float32).max)}

Array = npt.NDArray[np.generic]
Bytes = npt.NDArray[np.uint8]


def is_float(dtype: str) -> bool:
    """Return True if tensors of this type are weights that can be merged."""
    return dtype in FLOATS


def is_minifloat(dtype: str) -> bool:
    """Return True for floats of so few bits that they stand for a weight only together with a scale."""
    return dtype.startswith("F") and BITS[dtype] <= 8


def byte_count(dtype: str, count: int) -> int:
    """Return the bytes that `count` elements take, which must be whole bytes."""
    return count * BITS[dtype] // 8


def accumulator(dtypes: set[str]) -> np.dtype[np.generic]:
    """Return the type that a merge of these types is computed in: float32, or float64 if any input has it."""
    return np.dtype(np.float64 if "F64" in dtypes else np.float32)


def widen(raw: Bytes, dtype: str, out: Array) -> None:
    """Read little-endian floats of `dtype` from bytes into `out` (float32 or float64); exact."""
    if dtype == "BF16":
        bits = out.view(np.uint32) if out.dtype == np.float32 else np.empty(out.shape, np.uint32)
        np.left_shift(raw.view(np.uint16), 16, out=bits, dtype=np.uint32, casting="unsafe")
        if out.dtype != np.float32:
            out[...] = bits.view(np.float32)
    else:
        out[...] = raw.view({"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype])


def fits(values: Array, dtype: str) -> bool:
    """Return True if every finite value stays finite in `dtype`."""
    largest = _LARGEST.get(dtype)
    if largest is None or (dtype in ("F32", "BF16") and values.dtype == np.float32):
        return True  # bfloat16 has float32's range but for its last rounding step, which `narrow` keeps finite
    return bool(np.abs(values).max(initial=0) <= largest)


def narrow(values: Array, dtype: str) -> Bytes:
    """Round float32 or float64 values to `dtype` (to nearest, ties to even) and return their bytes."""
    if dtype != "BF16":
        target = {"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype]
        return np.ascontiguousarray(values.astype(target, copy=False)).view(np.uint8)
    bits = values.astype(np.float32, copy=False).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16
    # Rounding must neither turn a NaN into an infinity nor a large finite value into one.
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    overflow = ((rounded & 0x7FFF) == 0x7F80) & ((bits & 0x7FFFFFFF) < 0x7F800000)
    rounded = np.where(nan, (bits >> 16) | 0x40, np.where(overflow, rounded - 1, rounded))
    return rounded.astype(np.uint16).view(np.uint8)
