from collections.abc import Sequence
from typing import Any, final

from numpy.typing import NDArray

__all__ = [
    "Engine",
    "__version__",
    "add_normal",
    "add_penalty",
    "clamp",
    "cross_entropy_loss",
    "elementwise_loss",
    "exchange",
    "get_num_threads",
    "is_thread_count",
    "penalty",
    "sam_norm",
    "sam_perturb",
    "scale_to_norm",
    "set_num_threads",
    "set_own_threads",
    "stream",
    "tier",
    "tiers",
    "total_norm",
]

__version__: str

@final
class Engine:
    flat: bool
    @property
    def steps(self) -> int: ...
    @property
    def averaged(self) -> bool: ...
    def __new__(cls, kind: str) -> Engine: ...
    def add_group(
        self, group: dict[str, Any], names: list[str], arrays: list[NDArray[Any]]
    ) -> None: ...
    def step(
        self,
        groups: list[dict[str, Any]],
        grads: Any,
        loss_scale: float,
        max_norm: float | None,
        clip_value: float | None,
    ) -> float | None: ...
    def average(self, groups: list[dict[str, Any]], averaged: bool) -> None: ...
    def parameter_step(self, index: int) -> int: ...
    def state(self, index: int) -> list[tuple[str, NDArray[Any], bool]]: ...
    def scalars(self, index: int) -> list[tuple[str, float]]: ...
    def snapshot(
        self,
    ) -> list[tuple[int, list[tuple[str, float]], list[tuple[str, NDArray[Any]]]] | None]: ...
    def expected(
        self, groups: list[dict[str, Any]], steps: int
    ) -> list[tuple[list[tuple[str, float]], list[tuple[str, str, list[int], bool]]]]: ...
    def restore(
        self,
        groups: list[dict[str, Any]],
        state: list[tuple[int, list[float], dict[str, NDArray[Any]]]],
        steps: int,
        averaged: bool,
    ) -> None: ...
    def zero_grad(self, grads: Any) -> None: ...

def add_normal(params: list[NDArray[Any]], scale: float, seed: int, draw: int) -> None: ...
def add_penalty(
    names: list[str], params: list[NDArray[Any]], grads: list[Any], l1: float, l2: float
) -> float: ...
def exchange(params: list[NDArray[Any]], others: list[NDArray[Any]]) -> None: ...
def sam_norm(params: list[NDArray[Any]], grads: list[Any], adaptive: bool) -> float: ...
def sam_perturb(
    params: list[NDArray[Any]], grads: list[Any], factor: float, adaptive: bool
) -> None: ...
def clamp(grads: list[NDArray[Any] | None], names: list[str] | None, clip_value: float) -> None: ...
def get_num_threads() -> int: ...
def is_thread_count(text: str) -> bool: ...
def penalty(names: list[str], params: list[NDArray[Any]], l1: float, l2: float) -> float: ...
def scale_to_norm(
    grads: list[NDArray[Any] | None], names: list[str] | None, max_norm: float, norm: float
) -> None: ...
def set_num_threads(n: int) -> None: ...
def set_own_threads(n: int | None) -> int | None: ...
def stream(arrays: list[NDArray[Any]], grad: NDArray[Any]) -> None: ...
def tier() -> str: ...
def tiers() -> list[str]: ...
def total_norm(
    grads: list[NDArray[Any] | None], names: list[str] | None, norm_type: float
) -> float: ...
def elementwise_loss(
    name: str,
    parameters: Sequence[float],
    kind: str,
    input: Any,  # noqa: A002
    target: Any,
    out: Any | None,
    loss_scale: float,
    gradient: bool,
    weight: Any | None = None,
    pos_weight: Any | None = None,
) -> tuple[Any, Any | None]: ...
def cross_entropy_loss(
    logits: Any,
    target: Any,
    weight: Any | None,
    ignore_index: int,
    label_smoothing: float,
    kind: str,
    out: Any | None,
    loss_scale: float,
    gradient: bool,
) -> tuple[Any, Any | None]: ...
