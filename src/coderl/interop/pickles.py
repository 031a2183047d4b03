"""Pickles of the original, read without running them; they may hold tensors besides what `plain_pickle` reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from coderl.problems import plain_pickle
from coderl.problems.plain_pickle import Described, RefusedError


class _Tensor(Described):
    def resolve(self) -> np.ndarray:
        import torch  # only who meets a tensor pays for it

        match self.args:
            case (_Storage(args=(bytes(data),)), int(offset), tuple(shape), tuple(stride), *_):
                try:
                    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
                    flat = torch.empty(0, dtype=storage.dtype).set_(storage)
                    return flat.as_strided(shape, stride, offset).numpy().copy()
                except Exception as error:  # torch's reader asserts and raises whatever it likes on broken bytes
                    reason = " ".join(str(error).split())[:80]
                    raise RefusedError(f"a tensor that cannot be read ({reason})") from None
        raise RefusedError("a tensor without its numbers")


class _Storage(Described):
    pass


_BUILDERS = {"torch._utils._rebuild_tensor_v2": _Tensor, "torch.storage._load_from_bytes": _Storage}


def load(path: Path) -> Any:
    """Return what a pickle holds: builtins, NumPy arrays (of tensors too) and `Raised` records.

    Raises:
        InputError: see `plain_pickle.load`.
    """
    return plain_pickle.load(path, _BUILDERS)


def loads(content: bytes) -> Any:
    """Return what the bytes of a pickle hold; see `load`.

    Raises:
        InputError: see `plain_pickle.load`.
    """
    return plain_pickle.loads(content, "pickle", _BUILDERS)
