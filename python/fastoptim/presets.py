"""Combinations of optimizer, arguments, schedule and clipping that are known to work.

Each function returns a `Preset` to start from, and documents its reason and source. Tune the rate
first.

Examples
--------
>>> import fastoptim as fo
>>> preset = fo.presets.nlp(total_steps=10_000)
>>> params = fo.FlatBuffer({"w": (4, 4)})
>>> opt = preset.optimizer(params, **{**preset.arguments, "lr": preset.schedule})
>>> info = opt.step(params.zeros_like(), max_norm=preset.max_norm)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fastoptim import optim, schedules
from fastoptim._checks import between, integer, word

__all__ = [
    "Preset",
    "for_batch_size",
    "gan",
    "image_classification",
    "nlp",
    "recurrent",
    "reinforcement_learning",
]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Preset:
    """The starting point for one kind of training.

    Attributes
    ----------
    optimizer : type
        The optimizer class.
    arguments : dict
        Its arguments except the rate.
    schedule : Schedule
        The rate, as a function of the step: ``{**arguments, "lr": schedule}``.
    max_norm : float or None
        The argument of ``step(max_norm=)``; None if clipping is not usual.
    """

    optimizer: type[optim.Optimizer]
    arguments: dict[str, Any]
    schedule: schedules.Schedule
    max_norm: float | None = None


def image_classification(total_steps: int, optimizer: Literal["sgd", "adamw"] = "sgd") -> Preset:
    """Preset for a convolutional network: SGD with momentum at 0.1 or AdamW at 1e-3, with a cosine.

    SGD with momentum generalizes best if it is tuned; AdamW needs less tuning. Normalization layers
    bound the gradients, so the preset does not clip.

    Parameters
    ----------
    total_steps : int
        The number of training steps, at least 1.
    optimizer : {"sgd", "adamw"}, default "sgd"
        The optimizer.

    Returns
    -------
    Preset
        Weight decay is 1e-4 for SGD and 1e-2 for AdamW.

    Raises
    ------
    ValueError
        An argument is out of range.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition", 2016. Loshchilov and Hutter,
    "Decoupled Weight Decay Regularization", 2019.

    Examples
    --------
    >>> import fastoptim as fo
    >>> preset = fo.presets.image_classification(1000)
    >>> preset.optimizer.__name__, preset.schedule(0), preset.max_norm
    ('SGD', 0.1, None)
    """
    steps = integer("total_steps", total_steps, least=1)
    if word("optimizer", optimizer, ("sgd", "adamw")) == "sgd":
        arguments = {"momentum": 0.9, "weight_decay": 1e-4}
        return Preset(optim.SGD, arguments, schedules.cosine(0.1, steps))
    return Preset(optim.AdamW, {"weight_decay": 1e-2}, schedules.cosine(1e-3, steps))


def nlp(total_steps: int, lr: float = 2e-4) -> Preset:
    """Preset for a transformer on text: AdamW, warm-up for a tenth, a cosine, clipping at 1.

    The first steps of Adam are too large, because its second moment is an average of few gradients,
    and attention amplifies them. Warm-up and clipping prevent this.

    Parameters
    ----------
    total_steps : int
        The number of training steps, at least 10.
    lr : float, default 2e-4
        The highest rate, 1e-4 (large models) to 3e-4 (small ones).

    Returns
    -------
    Preset
        With clipping at norm 1.

    Raises
    ------
    ValueError
        An argument is out of range.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017. Brown et al., "Language Models are Few-Shot
    Learners", 2020 (the rates and the norm).

    Examples
    --------
    >>> import fastoptim as fo
    >>> preset = fo.presets.nlp(1000)
    >>> preset.schedule(0), preset.schedule(100), preset.max_norm
    (0.0, 0.0002, 1.0)
    """
    steps = integer("total_steps", total_steps, least=10)
    lr = between("lr", lr, 1e-4, 3e-4)
    warm = steps // 10
    schedule = schedules.warmup(schedules.cosine(lr, steps - warm), warm)
    return Preset(optim.AdamW, {}, schedule, max_norm=1.0)


def recurrent(total_steps: int, max_norm: float = 1.0) -> Preset:
    """Preset for a recurrent network: Adam at 1e-3 with a cosine, and clipping.

    Gradients may grow exponentially over time steps, and training fails without clipping.

    Parameters
    ----------
    total_steps : int
        The number of training steps, at least 1.
    max_norm : float, default 1.0
        From 1 to 5; larger for longer sequences.

    Returns
    -------
    Preset
        With clipping at ``max_norm``.

    Raises
    ------
    ValueError
        An argument is out of range.

    References
    ----------
    Pascanu, Mikolov and Bengio, "On the Difficulty of Training Recurrent Neural Networks", 2013.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.presets.recurrent(1000, max_norm=5.0).max_norm
    5.0
    """
    steps = integer("total_steps", total_steps, least=1)
    max_norm = between("max_norm", max_norm, 1, 5)
    return Preset(optim.Adam, {}, schedules.cosine(1e-3, steps), max_norm=max_norm)


def gan() -> Preset:
    """Preset for a generator or a discriminator: Adam at 2e-4 with betas (0.5, 0.999).

    The other network changes the objective at each step, so a long average of gradients is out of
    date.

    Returns
    -------
    Preset
        With a constant rate. Use one optimizer per network.

    References
    ----------
    Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional
    Generative Adversarial Networks", 2016.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.presets.gan().arguments
    {'betas': (0.5, 0.999)}
    """
    return Preset(optim.Adam, {"betas": (0.5, 0.999)}, schedules.constant(2e-4))


def reinforcement_learning() -> Preset:
    """Preset for a policy or a value network: Adam at 3e-4.

    The data change with the policy, and the length is not known in advance, so the rate is small
    and constant.

    Returns
    -------
    Preset
        With a constant rate.

    References
    ----------
    Schulman et al., "Proximal Policy Optimization Algorithms", 2017.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.presets.reinforcement_learning().schedule(0)
    0.0003
    """
    return Preset(optim.Adam, {}, schedules.constant(3e-4))


def for_batch_size(n: int, total_steps: int) -> Preset:
    r"""Preset for a batch size, with the linear scaling rule for the rate.

    ================  =======================================  =========================
    Batch             Optimizer                                Highest rate
    ================  =======================================  =========================
    below 1,024       AdamW, cosine                            :math:`2.5 \cdot 10^{-4} n / 256`
    below 8,192       AdamW, warm-up, cosine                   :math:`2.5 \cdot 10^{-4} n / 256`
    below 32,768      LARS, warm-up, polynomial of power 2     :math:`0.1\, n / 256`
    from 32,768       LAMB, warm-up, polynomial of power 1     :math:`5 \cdot 10^{-3} n / 32768`
    ================  =======================================  =========================

    Gradients of larger batches have less noise and allow larger steps, up to the point at which
    layers with small weights relative to their gradients diverge. LARS and LAMB use a separate rate
    for each layer. Put biases and normalization into a group with ``layer_adaptation=False`` for
    them. Warm-up takes a twentieth of the steps.

    Parameters
    ----------
    n : int
        The batch size, at least 1.
    total_steps : int
        The number of training steps, at least 20.

    Returns
    -------
    Preset
        Without clipping.

    Raises
    ------
    ValueError
        An argument is out of range.

    References
    ----------
    Goyal et al., "Accurate, Large Minibatch SGD", 2017 (the linear rule, 0.1 for 256). Touvron et
    al., "Training data-efficient image transformers", 2021 (AdamW's rate). You, Gitman and
    Ginsburg, "Large Batch Training of Convolutional Networks", 2017 (LARS). You et al., "Large
    Batch Optimization for Deep Learning", 2020 (LAMB, 5e-3 for 32,768).

    Examples
    --------
    >>> import fastoptim as fo
    >>> [fo.presets.for_batch_size(n, 1000).optimizer.__name__ for n in (256, 4096, 16384, 65536)]
    ['AdamW', 'AdamW', 'LARS', 'LAMB']
    """
    batch = integer("n", n, least=1)
    steps = integer("total_steps", total_steps, least=20)
    warm = steps // 20
    if batch < 8192:
        rate = schedules.linear_scaling(2.5e-4, batch)
        if batch < 1024:
            return Preset(optim.AdamW, {}, schedules.cosine(rate, steps))
        schedule = schedules.warmup(schedules.cosine(rate, steps - warm), warm)
        return Preset(optim.AdamW, {}, schedule)
    if batch < 32_768:
        fall = schedules.polynomial(schedules.linear_scaling(0.1, batch), steps - warm, power=2)
        arguments = {"momentum": 0.9, "weight_decay": 1e-4}
        return Preset(optim.LARS, arguments, schedules.warmup(fall, warm))
    rate = schedules.linear_scaling(5e-3, batch, base_batch=32_768)
    fall = schedules.polynomial(rate, steps - warm)
    return Preset(optim.LAMB, {"weight_decay": 0.01}, schedules.warmup(fall, warm))
