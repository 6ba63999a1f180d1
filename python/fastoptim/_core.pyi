from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex, TypeAlias, TypeVar, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PART",
    "SCALED",
    "Engine",
    "ForeignArray",
    "Hold",
    "TensorEngine",
    "__version__",
    "add_normal",
    "add_penalty",
    "aligned_zeros",
    "arithmetic",
    "attempt",
    "call_all",
    "clamp",
    "clip_to_norm",
    "compute_loss",
    "crc32",
    "dense_tensors",
    "exchange",
    "exchange_tensors",
    "get_num_threads",
    "gradient_like",
    "is_thread_count",
    "lerp",
    "load",
    "loss_arguments",
    "mine_triplets",
    "penalty",
    "perturb_tensors",
    "read_into",
    "release",
    "reserve",
    "sam_norm",
    "sam_perturb",
    "scale_to_norm",
    "set_num_threads",
    "set_own_threads",
    "stream",
    "suggest_num_threads",
    "tensor_loss",
    "tensor_norm",
    "tier",
    "tiers",
    "total_norm",
    "unscale",
    "use_huge_pages",
    "use_openmp",
]

__version__: str

PART: int
SCALED: int

# A function and its arguments.
_Call: TypeAlias = tuple[Callable[..., object], *tuple[Any, ...]]
_T = TypeVar("_T")

@final
class Engine:
    @property
    def steps(self) -> int: ...
    @property
    def averaged(self) -> bool: ...
    def __new__(
        cls,
        kind: str,
        state_dtype: str | None,
        rounding: str,
        seed: int,
        parts: Sequence[tuple[int, int]] | None = None,
    ) -> Engine: ...
    def add_group(
        self,
        group: dict[str, Any],
        names: Sequence[str],
        arrays: Sequence[NDArray[Any]],
        flat: bool,
        then: Sequence[_Call] | None = None,
    ) -> None: ...
    def check_groups(self, groups: list[dict[str, Any]]) -> None: ...
    def step(
        self,
        groups: list[dict[str, Any]],
        grads: Any,
        loss_scale: float,
        max_norm: float | None,
        clip_value: float | None,
        nonfinite: str,
        regularizer: Any,
        average: tuple[list[NDArray[Any]], float] | None,
        copy: Sequence[NDArray[Any] | None] | None,
        zero_grad: bool,
        then: Sequence[_Call] | None = None,
        exchange: Any = None,
    ) -> tuple[bool, float | None] | None: ...
    def average(self, groups: list[dict[str, Any]], averaged: bool) -> None: ...
    def parameter_step(self, index: int) -> int: ...
    def state(self, index: int) -> list[tuple[str, NDArray[Any], bool]]: ...
    def scalars(self, index: int) -> list[tuple[str, float]]: ...
    def snapshot(
        self,
    ) -> list[tuple[int, list[tuple[str, float]], list[tuple[str, NDArray[Any]]]] | None]: ...
    def expected(
        self, groups: list[dict[str, Any]], steps: int
    ) -> list[tuple[list[tuple[str, float]], list[tuple[str, str, list[int], bool, bool]]]]: ...
    def restore(
        self,
        groups: list[dict[str, Any]],
        state: list[tuple[int, list[float], dict[str, NDArray[Any]]]],
        steps: int,
        averaged: bool,
        then: Sequence[_Call] | None = None,
    ) -> None: ...
    def zero_grad(self, grads: Any) -> None: ...

@final
class TensorEngine:
    @property
    def state(self) -> Any: ...
    @property
    def steps(self) -> int: ...
    @property
    def averaged(self) -> bool: ...
    def __new__(
        cls,
        kind: str,
        state_dtype: str | None,
        rounding: str,
        seed: int,
        defaults: dict[str, Any],
        counted: bool,
        support: Any,
    ) -> TensorEngine: ...
    def set_state(self, state: Any) -> None: ...
    def set_steps(self, steps: int) -> None: ...
    def set_averaged(self, averaged: bool) -> None: ...
    def check_groups(self, groups: list[dict[str, Any]]) -> None: ...
    def forget(self) -> None: ...
    def step(
        self,
        groups: list[dict[str, Any]],
        loss_scale: float,
        max_norm: float | None,
        clip_value: float | None,
        nonfinite: str,
        regularizer: Any,
        average: tuple[Sequence[Any], float] | None,
        copy: Sequence[Any] | None,
        zero_grad: bool,
        then: Sequence[_Call] | None = None,
    ) -> tuple[bool, float | None] | None: ...
    def average(
        self, groups: list[dict[str, Any]], averaged: bool, then: Sequence[_Call]
    ) -> None: ...
    def expected(
        self, groups: list[dict[str, Any]], parameters: Sequence[tuple[int, str, Sequence[int]]]
    ) -> list[tuple[list[tuple[str, float]], list[tuple[str, str, list[int], bool, bool]]]]: ...
    def decode(self, codes: Any, scales: Any, out: Any) -> None: ...
    def encode(self, numbers: Any, codes: Any, scales: Any) -> None: ...

@final
class Hold:
    def enter(
        self,
        optimizers: list[tuple[Engine, list[dict[str, Any]]]],
        ranges: list[tuple[int, int]],
    ) -> list[
        tuple[
            int,
            bool,
            list[tuple[int, list[tuple[str, float]], list[tuple[str, NDArray[Any]]]] | None],
        ]
    ]: ...
    def close(self) -> None: ...

@final
class ForeignArray:
    def __new__(cls, tensor: object, flat: bool) -> ForeignArray: ...

def add_normal(params: list[NDArray[Any]], scale: float, seed: int, draw: int) -> None: ...
def arithmetic(kind: str, group: dict[str, Any], elements: int, double: bool = False) -> None: ...
def aligned_zeros(size: int, dtype: np.dtype[Any]) -> NDArray[Any]: ...
def add_penalty(
    names: list[str], params: list[NDArray[Any]], grads: list[Any], l1: float, l2: float
) -> float: ...
def exchange(
    arrays: Sequence[NDArray[Any] | ForeignArray],
    others: Sequence[NDArray[Any] | ForeignArray],
    label: str = "others",
    names: Sequence[str] | None = None,
    then: Sequence[_Call] | None = None,
) -> None: ...
def lerp(
    averages: Sequence[NDArray[Any] | ForeignArray],
    values: Sequence[NDArray[Any] | ForeignArray],
    weight: float,
    label: str,
    names: Sequence[str],
    then: Sequence[_Call] | None = None,
) -> None: ...
def sam_norm(params: list[NDArray[Any]], grads: list[Any], adaptive: bool) -> float: ...
def sam_perturb(
    params: list[NDArray[Any]],
    grads: list[Any],
    factors: list[float],
    adaptive: bool,
    noise: tuple[int, int] | None = None,
    then: Sequence[_Call] | None = None,
) -> None: ...
def exchange_tensors(
    support: Any, tensors: Sequence[Any], others: Sequence[Any], then: Sequence[_Call]
) -> None: ...
def perturb_tensors(
    support: Any,
    params: Sequence[Any],
    grads: Sequence[Any],
    factors: Sequence[float],
    adaptive: bool,
    noise: tuple[int, int] | None,
    then: Sequence[_Call],
) -> None: ...
def tensor_norm(
    support: Any, params: Sequence[Any], grads: Sequence[Any], adaptive: bool
) -> float: ...
def attempt(action: Callable[[], _T], settle: Callable[[], object]) -> _T: ...
def call_all(calls: Sequence[_Call]) -> None: ...
def clamp(grads: list[NDArray[Any] | None], names: list[str] | None, clip_value: float) -> None: ...
def clip_to_norm(
    grads: Sequence[Any], max_norm: float, norm_type: float, error_if_nonfinite: bool
) -> float: ...
def crc32(data: NDArray[np.uint8], value: int = 0) -> int: ...
def dense_tensors(tensors: Sequence[Any]) -> list[ForeignArray | None]: ...
def use_huge_pages(tensor: ForeignArray) -> None: ...
def use_openmp(library: str) -> bool: ...
def read_into(file: Any, offset: int, data: NDArray[np.uint8], checksum: int | None) -> None: ...
def reserve(
    engine: Engine,
    groups: list[dict[str, Any]],
    state: list[tuple[int, list[float], dict[str, NDArray[Any]]]],
    steps: int,
    before: list[int],
) -> None: ...
def release(engine: Engine, before: list[int]) -> None: ...
def load(
    parts: list[tuple[Engine, list[tuple[int, list[float], list[str]]], int, bool]],
    ranges: list[tuple[int, int]],
    fill: Sequence[_Call],
    then: Sequence[_Call],
) -> None: ...
def get_num_threads() -> int: ...
def is_thread_count(text: str) -> bool: ...
def penalty(names: list[str], params: list[NDArray[Any]], l1: float, l2: float) -> float: ...
def scale_to_norm(
    grads: list[NDArray[Any] | None], names: list[str] | None, max_norm: float, norm: float
) -> None: ...
def suggest_num_threads(n: SupportsIndex) -> bool: ...
def set_num_threads(n: SupportsIndex) -> None: ...
def set_own_threads(n: SupportsIndex | None) -> int | None: ...
def stream(arrays: list[NDArray[Any]], grad: NDArray[Any], passes: int = 1) -> None: ...
def tier() -> str: ...
def tiers() -> list[str]: ...
def total_norm(
    grads: list[NDArray[Any] | None], names: list[str] | None, norm_type: float
) -> float: ...
def unscale(
    names: list[str],
    params: list[NDArray[Any]],
    grads: list[Any],
    scale: float,
    then: Sequence[_Call] | None = None,
) -> None: ...
def compute_loss(
    name: str,
    arguments: dict[str, Any],
    inputs: tuple[Any, ...],
    out: Any | None,
    loss_scale: float,
    gradient: bool,
    values: Any | None = None,
) -> tuple[Any, Any]: ...
def tensor_loss(
    name: str,
    arguments: dict[str, Any],
    tensors: tuple[Any, ...],
    signs: Sequence[int],
    gradients_enabled: bool,
) -> tuple[Any, list[Any] | None] | None: ...
def gradient_like(tensor: Any) -> Any: ...
def loss_arguments(name: str, arguments: dict[str, Any]) -> dict[str, Any]: ...
def mine_triplets(
    embeddings: Any, labels: Any, kind: str, margin: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]: ...
