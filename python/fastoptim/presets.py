"""Optimizer, arguments, schedule and clipping that are known to work, ready to use.

Each function gives a `Preset`. They are where to start, with the reason and the source; the rate is
the first thing to tune.

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
    """What one kind of training starts from.

    Attributes
    ----------
    optimizer : type
        The class.
    arguments : dict
        Its arguments but for the rate.
    schedule : Schedule
        The rate, as a function of the step: ``{**arguments, "lr": schedule}``.
    max_norm : float or None
        What ``step(max_norm=)`` takes; None where no clipping is usual.
    """

    optimizer: type[optim.Optimizer]
    arguments: dict[str, Any]
    schedule: schedules.Schedule
    max_norm: float | None = None


def image_classification(total_steps: int, optimizer: Literal["sgd", "adamw"] = "sgd") -> Preset:
    """Start a convolutional network: SGD with momentum at 0.1, or AdamW at 1e-3, with a cosine.

    SGD with momentum generalizes best when there is time to tune; AdamW is right sooner.
    Normalization layers keep gradients in bounds: no clipping.

    Parameters
    ----------
    total_steps : int
        The length of the training, at least 1.
    optimizer : {"sgd", "adamw"}, default "sgd"
        Which of the two.

    Returns
    -------
    Preset
        Weight decay is 1e-4 for SGD and 1e-2 for AdamW.

    Raises
    ------
    ValueError
        The length or the name is out of range.

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
    """Start a transformer on text: AdamW, warm-up over a tenth, a cosine, clipping at 1.

    Early steps of Adam are wild, since its second moment knows little yet, and attention amplifies
    them: hence warm-up and clipping.

    Parameters
    ----------
    total_steps : int
        The length of the training, at least 10.
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
    """Start a recurrent network: Adam at 1e-3 with a cosine, and clipping.

    Gradients through time grow exponentially where they grow at all: clipping is what makes these
    networks train.

    Parameters
    ----------
    total_steps : int
        The length of the training, at least 1.
    max_norm : float, default 1.0
        1 to 5: larger for longer sequences.

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
    """Start a generator or a discriminator: Adam at 2e-4 with betas (0.5, 0.999).

    The other network moves the goal at each step: a long memory of gradients points where it was.

    Returns
    -------
    Preset
        With a constant rate; one optimizer for each of the two networks.

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
    """Start a policy or a value network: Adam at 3e-4.

    The data change with the policy, so that no schedule knows the length; the rate is small and
    stays.

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
    r"""Choose by the size of the batch, with the linear rule for the rate.

    ================  =======================================  =========================
    Batch             Optimizer                                Highest rate
    ================  =======================================  =========================
    below 1,024       AdamW, cosine                            :math:`2.5 \cdot 10^{-4} n / 256`
    below 8,192       AdamW, warm-up, cosine                   :math:`2.5 \cdot 10^{-4} n / 256`
    below 32,768      LARS, warm-up, polynomial of power 2     :math:`0.1\, n / 256`
    from 32,768       LAMB, warm-up, polynomial of power 1     :math:`5 \cdot 10^{-3} n / 32768`
    ================  =======================================  =========================

    Fewer and better gradients allow larger steps, up to where layers whose weights are small next
    to their gradients break: LARS and LAMB give each layer a rate of its own. Put biases and
    normalization into a group with ``layer_adaptation=False`` there. Warm-up is a twentieth.

    Parameters
    ----------
    n : int
        The size of the batch, at least 1.
    total_steps : int
        The length of the training, at least 20.

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
