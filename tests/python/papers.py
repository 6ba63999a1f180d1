"""Every optimizer as in its paper, in float64, for one array.

A step takes the parameter, the gradient, a dict for the state, the step count (1 at the first) and
the hyperparameters, and returns the new parameter. The code is independent of the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
State = dict[str, Any]


def norm(x: Array) -> float:
    return float(np.sqrt(np.sum(np.square(x))))


def zeros(s: State, p: Array, *names: str) -> None:
    for name in names:
        s.setdefault(name, np.zeros_like(p))


def decay(p: Array, g: Array, h: Any, decoupled: bool) -> tuple[Array, Array]:
    if decoupled:
        return p * (1 - h["lr"] * h["weight_decay"]), g
    return p, g + h["weight_decay"] * p


def masked(u: Array, g: Array, h: Any) -> Array:
    if not h["cautious"]:
        return u
    mask = u * g > 0
    return u * mask / max(np.mean(mask), 1e-3)


def moments(s: State, p: Array, g: Array, b1: float, b2: float) -> tuple[Array, Array]:
    zeros(s, p, "exp_avg", "exp_avg_sq")
    s["exp_avg"] = b1 * s["exp_avg"] + (1 - b1) * g
    s["exp_avg_sq"] = b2 * s["exp_avg_sq"] + (1 - b2) * g * g
    return s["exp_avg"], s["exp_avg_sq"]


def sgd(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    g = g + h["weight_decay"] * p
    mu, lr = h["momentum"], h["lr"]
    if mu == 0:
        return p - lr * g
    v = s.get("momentum_buffer")
    if h["momentum_form"] == "inside":
        v = (0 if v is None else mu * v) - lr * g
        s["momentum_buffer"] = v
        return p + (mu * v - lr * g if h["nesterov"] else v)
    v = g if v is None else mu * v + (1 - h["dampening"]) * g
    s["momentum_buffer"] = v
    return p - lr * (g + mu * v if h["nesterov"] else v)


def adagrad(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    g = g + h["weight_decay"] * p
    s.setdefault("sum", np.full_like(p, h["initial_accumulator_value"]))
    s["sum"] = s["sum"] + g * g
    rate = h["lr"] / (1 + (t - 1) * h["lr_decay"])
    return p - rate * g / (np.sqrt(s["sum"]) + h["eps"])


def rmsprop(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    g = g + h["weight_decay"] * p
    a = h["alpha"]
    zeros(s, p, "square_avg")
    v = s["square_avg"] = a * s["square_avg"] + (1 - a) * g * g
    if h["centered"]:
        zeros(s, p, "grad_avg")
        s["grad_avg"] = a * s["grad_avg"] + (1 - a) * g
        v = np.maximum(v - s["grad_avg"] ** 2, 0)
    root = np.sqrt(v + h["eps"]) if h["eps_inside_sqrt"] else np.sqrt(v) + h["eps"]
    if h["momentum"] == 0:
        return p - h["lr"] * g / root
    zeros(s, p, "momentum_buffer")
    s["momentum_buffer"] = h["momentum"] * s["momentum_buffer"] + g / root
    return p - h["lr"] * s["momentum_buffer"]


def adadelta(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    g = g + h["weight_decay"] * p
    rho, eps = h["rho"], h["eps"]
    zeros(s, p, "square_avg", "acc_delta")
    s["square_avg"] = rho * s["square_avg"] + (1 - rho) * g * g
    u = np.sqrt(s["acc_delta"] + eps) / np.sqrt(s["square_avg"] + eps) * g
    s["acc_delta"] = rho * s["acc_delta"] + (1 - rho) * u * u
    return p - h["lr"] * u


def adam(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    b1, b2 = h["betas"]
    p, g = decay(p, g, h, h["decoupled_weight_decay"])
    m, v = moments(s, p, g, b1, b2)
    if h["amsgrad"]:
        zeros(s, p, "max_exp_avg_sq")
        v = s["max_exp_avg_sq"] = np.maximum(s["max_exp_avg_sq"], v)
    m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
    return p - masked(h["lr"] * m_hat / (np.sqrt(v_hat) + h["eps"]), g, h)


def adamw(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    return adam(p, g, s, t, **{**h, "decoupled_weight_decay": True})


def adamax(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    b1, b2 = h["betas"]
    g = g + h["weight_decay"] * p
    zeros(s, p, "exp_avg", "exp_inf")
    s["exp_avg"] = b1 * s["exp_avg"] + (1 - b1) * g
    s["exp_inf"] = np.maximum(b2 * s["exp_inf"], np.abs(g) + h["eps"])
    return p - h["lr"] / (1 - b1**t) * s["exp_avg"] / s["exp_inf"]


def nadam(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    b1, b2 = h["betas"]
    p, g = decay(p, g, h, h["decoupled_weight_decay"])
    mu, after = (b1 * (1 - 0.5 * 0.96 ** (i * h["momentum_decay"])) for i in (t, t + 1))
    product = s["mu_product"] = s.get("mu_product", 1.0) * mu
    m, v = moments(s, p, g, b1, b2)
    m_hat = (1 - mu) * g / (1 - product) + after * m / (1 - product * after)
    return p - h["lr"] * m_hat / (np.sqrt(v / (1 - b2**t)) + h["eps"])


def radam(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    b1, b2 = h["betas"]
    p, g = decay(p, g, h, h["decoupled_weight_decay"])
    m, v = moments(s, p, g, b1, b2)
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * t * b2**t / (1 - b2**t)
    m_hat = m / (1 - b1**t)
    if length <= 5:
        return p - h["lr"] * m_hat
    r = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    return p - h["lr"] * r * m_hat * math.sqrt(1 - b2**t) / (np.sqrt(v) + h["eps"])


def rprop(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    zeros(s, p, "prev")
    shrink, grow = h["etas"]
    product = g * s["prev"]
    factor = np.where(product > 0, grow, np.where(product < 0, shrink, 1.0))
    size = s.get("step_size", np.full_like(p, h["lr"])) * factor
    s["step_size"] = np.clip(size, *h["step_sizes"])
    g = np.where(product < 0, 0.0, g)
    s["prev"] = g
    return p - np.sign(g) * s["step_size"]


def asgd(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    zeros(s, p, "ax")
    lr, lambd = h["lr"], h["lambd"]
    eta, mu = s.get("eta", lr), s.get("mu", 1.0)
    g = g + h["weight_decay"] * p
    p = p * (1 - lambd * eta) - eta * g
    s["ax"] = s["ax"] + (p - s["ax"]) * mu
    s["eta"] = lr / (1 + lambd * lr * t) ** h["alpha"]
    s["mu"] = 1 / max(1, t - h["t0"])
    return p


def lion(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    b1, b2 = h["betas"]
    zeros(s, p, "exp_avg")
    u = np.sign(b1 * s["exp_avg"] + (1 - b1) * g)
    p = p - h["lr"] * h["weight_decay"] * p - h["lr"] * masked(u, g, h)
    s["exp_avg"] = b2 * s["exp_avg"] + (1 - b2) * g
    return p


def ademamix(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    b1, b2, b3 = h["betas"]
    alpha, start = h["alpha"], b1
    if h["t_alpha"] is not None:
        alpha = min(t * h["alpha"] / h["t_alpha"], h["alpha"])
    if h["t_beta3"] is not None:
        x = t / h["t_beta3"]
        slope = (1 - x) * math.log(b3) + x * math.log(start)
        b3 = min(math.exp(math.log(start) * math.log(b3) / slope), b3) if x < 1 else b3
    zeros(s, p, "exp_avg_fast", "exp_avg_slow", "exp_avg_sq")
    m1 = s["exp_avg_fast"] = b1 * s["exp_avg_fast"] + (1 - b1) * g
    m2 = s["exp_avg_slow"] = b3 * s["exp_avg_slow"] + (1 - b3) * g
    v = s["exp_avg_sq"] = b2 * s["exp_avg_sq"] + (1 - b2) * g * g
    u = (m1 / (1 - b1**t) + alpha * m2) / (np.sqrt(v / (1 - b2**t)) + h["eps"])
    return p - h["lr"] * (u + h["weight_decay"] * p)


def schedule_free(p: Array, u: Array, s: State, t: int, beta: float, h: Any) -> Array:
    """One step from y by its direction u, in the paper's x, y and z."""
    y = p
    x: Array = s.get("x", p)
    z: Array = s.get("z", p)
    lr = h["lr"] * min(1, t / h["warmup_steps"] if h["warmup_steps"] else 1)
    s["lr_max"] = max(lr, s.get("lr_max", 0.0))
    weight = t ** h["r"] * s["lr_max"] ** h["weight_lr_power"]
    s["weight_sum"] = s.get("weight_sum", 0.0) + weight
    c = weight / s["weight_sum"] if s["weight_sum"] > 0 else 0.0
    z = z - lr * (u + h["weight_decay"] * y)
    s["z"], s["x"] = z, (1 - c) * x + c * z
    return (1 - beta) * z + beta * s["x"]


def schedule_free_sgd(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    return schedule_free(p, g, s, t, h["momentum"], h)


def schedule_free_adamw(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    b1, b2 = h["betas"]
    zeros(s, p, "exp_avg_sq")
    v = s["exp_avg_sq"] = b2 * s["exp_avg_sq"] + (1 - b2) * g * g
    return schedule_free(p, g / (np.sqrt(v / (1 - b2**t)) + h["eps"]), s, t, b1, h)


def lars(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    g = g + h["weight_decay"] * p
    ratio = 1.0
    if h["layer_adaptation"] and norm(p) > 0 and norm(g) > 0:
        ratio = h["trust_coefficient"] * norm(p) / (norm(g) + h["eps"])
    return sgd(p, ratio * g, s, t, **{**h, "weight_decay": 0, "momentum_form": "outside"})


def lamb(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    b1, b2 = h["betas"]
    m, v = moments(s, p, g, b1, b2)
    if h["bias_correction"]:
        m, v = m / (1 - b1**t), v / (1 - b2**t)
    u = m / (np.sqrt(v) + h["eps"]) + h["weight_decay"] * p
    ratio = 1.0
    if h["layer_adaptation"] and norm(p) > 0 and norm(u) > 0:
        ratio = norm(p) / norm(u)
        if h["max_trust"] is not None:
            ratio = min(ratio, h["max_trust"])
    return p - h["lr"] * ratio * u


def prodigy(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    b1, b2 = h["betas"]
    b3 = math.sqrt(b2) if h["beta3"] is None else h["beta3"]
    d0, lr, wd = h["d0"], h["lr"], h["weight_decay"]
    d = s.setdefault("d", d0)
    s.setdefault("d_max", d0)
    s.setdefault("d_numerator", 0.0)
    s.setdefault("p0", p)
    zeros(s, p, "exp_avg", "exp_avg_sq", "s")
    if lr == 0:
        return p
    dlr = d * lr
    if h["use_bias_correction"]:
        dlr *= math.sqrt(-math.expm1(t * math.log(b2))) / -math.expm1(t * math.log(b1))
    if not h["decouple"]:
        g = g + wd * p
    s["d_numerator"] = b3 * s["d_numerator"] + d / d0 * dlr * np.sum(g * (s["p0"] - p))
    s["exp_avg"] = b1 * s["exp_avg"] + (1 - b1) * d * g
    s["exp_avg_sq"] = b2 * s["exp_avg_sq"] + (1 - b2) * d * d * g * g
    s["s"] = b3 * s["s"] + d / d0 * (d if h["safeguard_warmup"] else dlr) * g
    d_hat = h["d_coef"] * s["d_numerator"] / np.sum(np.abs(s["s"]))
    if d == d0:
        d = max(d, d_hat)
    s["d_max"] = max(s["d_max"], d_hat)
    d = s["d"] = min(s["d_max"], d * h["growth_rate"])
    if h["decouple"]:
        p = p - wd * dlr * p
    return p - dlr * s["exp_avg"] / (np.sqrt(s["exp_avg_sq"]) + d * h["eps"])


def adafactor(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    eps1, eps2 = h["eps"]
    eps1 = np.finfo(np.float64).eps if eps1 is None else eps1
    b = t ** h["beta2_decay"]
    a = max(eps2, math.sqrt(np.mean(p * p))) * min(h["lr"], 1 / math.sqrt(t))
    p = p * (1 - h["lr"] * h["weight_decay"])
    if g.ndim > 1:
        s.setdefault("row_var", np.zeros((*g.shape[:-1], 1)))
        s.setdefault("col_var", np.zeros((*g.shape[:-2], 1, g.shape[-1])))
        s["row_var"] = (1 - b) * s["row_var"] + b * np.mean(g * g, axis=-1, keepdims=True)
        s["col_var"] = (1 - b) * s["col_var"] + b * np.mean(g * g, axis=-2, keepdims=True)
        mean = np.maximum(np.mean(s["row_var"], axis=-2, keepdims=True), eps1)
        v = s["row_var"] * s["col_var"] / mean
    else:
        zeros(s, p, "variance")
        v = s["variance"] = (1 - b) * s["variance"] + b * g * g
    u = g / np.sqrt(np.maximum(v, eps1**2))
    return p - a * u / max(1.0, math.sqrt(np.mean(u * u)) / h["d"])


def muon(p: Array, g: Array, s: State, t: int, **h: Any) -> Array:
    mu = h["momentum"]
    zeros(s, p, "momentum_buffer")
    m = s["momentum_buffer"] = mu * s["momentum_buffer"] + (1 - mu) * g
    x = mu * m + (1 - mu) * g if h["nesterov"] else m
    rows, cols = p.shape
    x = x.T if rows > cols else x
    x = x / max(norm(x), h["eps"])
    a, b, c = h["ns_coefficients"]
    for _ in range(h["ns_steps"]):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.T if rows > cols else x
    if h["adjust_lr_fn"] == "match_rms_adamw":
        ratio = 0.2 * math.sqrt(max(rows, cols))
    else:
        ratio = math.sqrt(max(1, rows / cols))
    return p * (1 - h["lr"] * h["weight_decay"]) - h["lr"] * ratio * x


PAPERS: dict[str, Callable[..., Array]] = {
    "SGD": sgd,
    "Adagrad": adagrad,
    "RMSprop": rmsprop,
    "Adadelta": adadelta,
    "Adam": adam,
    "AdamW": adamw,
    "Adamax": adamax,
    "NAdam": nadam,
    "RAdam": radam,
    "Rprop": rprop,
    "ASGD": asgd,
    "Lion": lion,
    "AdEMAMix": ademamix,
    "ScheduleFreeSGD": schedule_free_sgd,
    "ScheduleFreeAdamW": schedule_free_adamw,
    "LARS": lars,
    "LAMB": lamb,
    "Prodigy": prodigy,
    "Adafactor": adafactor,
    "Muon": muon,
}
