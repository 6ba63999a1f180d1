"""Losses whose arguments another thread changes: an error or a value, but no access out of
bounds."""

from __future__ import annotations

import subprocess
import sys

# Runs in a separate interpreter, because an access out of bounds may crash the process. One thread
# writes valid and invalid elements to an argument while two others call the loss. A call must
# succeed or raise the error for invalid elements, but not a PanicException.
SCRIPT = """
import sys, threading, time
import numpy as np
import fastoptim as fo

SECONDS = 0.12
sys.setswitchinterval(1e-5)
rng = np.random.default_rng(0)


def race(name, written, values, call, allowed):
    print(name, flush=True)
    done = threading.Event()
    wrong = []

    def write():
        places = rng.integers(0, written.size, 64).tolist()
        while not done.is_set():
            for place in places:
                for value in values:
                    written.flat[place] = value

    def read():
        try:
            while not done.is_set():
                try:
                    call()
                except allowed:
                    pass
        except BaseException as error:
            wrong.append(f"{name}: {error!r}")
            done.set()

    threads = [threading.Thread(target=target) for target in (write, read, read)]
    for thread in threads:
        thread.start()
    done.wait(SECONDS)
    done.set()
    for thread in threads:
        thread.join()
    if wrong:
        sys.exit(wrong[0])


def rows(loss, classes, dtype):
    x = rng.standard_normal((200_000 // classes, classes)).astype("f4")
    target = rng.integers(0, classes, len(x)).astype(dtype)
    bad = 2**40 if dtype == "i8" else 2**31 - 1

    def call():
        out = np.full_like(x, 7.0)
        try:
            value, _ = loss.value_and_grad(x, target, out=out)
        except IndexError:
            assert (out == 7.0).all(), "written before the check"
            raise
        assert np.isfinite(value)
        if isinstance(loss, fo.losses.NLLLoss):
            # The gradient stands for one class per row.
            assert ((out != 0.0).sum(axis=1) == 1).all()
        else:
            assert np.abs(out.sum(axis=1)).max() < 1e-3

    name = f"{type(loss).__name__} of {classes} classes, {dtype}"
    race(name, target, (bad, classes - 1, -1, 0), call, IndexError)


for dtype in "i4", "i8":
    rows(fo.losses.CrossEntropyLoss(), 4, dtype)
    rows(fo.losses.CrossEntropyLoss(), 100, dtype)
rows(fo.losses.CrossEntropyLoss(label_smoothing=0.1, weight=np.ones(4, "f4")), 4, "i8")
rows(fo.losses.FocalLoss(), 4, "i8")
rows(fo.losses.NLLLoss(), 4, "i8")
rows(fo.losses.NLLLoss(weight=np.ones(4, "f4")), 4, "i4")
rows(fo.losses.MultiMarginLoss(), 4, "i8")
rows(fo.losses.MultiMarginLoss(), 100, "i8")

x, y = rng.random((2, 400_000)).astype("f4")
changing = (ValueError, RuntimeError)
bce, gaussian = fo.losses.BCELoss(), fo.losses.GaussianNLLLoss()
race("input of BCELoss", x, (-1.0, 0.5), lambda: bce.value_and_grad(x, y), changing)
race("target of BCELoss", y, (2.0, 0.5), lambda: bce.value_and_grad(x, y), changing)
var = np.ones_like(x)
call = lambda: gaussian.value_and_grad(x, y, var)
race("variance of GaussianNLLLoss", var, (-1.0, 1.0), call, changing)
half = y.astype("f2")
call = lambda: bce.value_and_grad(half, y)
race("input of BCELoss in 16 bits", half, (-1.0, 0.5), call, changing)
spread = np.ones((400, 1), "f4")
a, b = x.reshape(400, 1000), y.reshape(400, 1000)
call = lambda: gaussian.value_and_grad(a, b, spread)
race("variance of GaussianNLLLoss, one per row", spread, (-1.0, 1.0), call, changing)
pixels = rng.standard_normal((2, 5, 90, 90)).astype("f4")
marks = rng.integers(0, 5, (2, 90, 90)).astype("u1")
call = lambda: fo.losses.CrossEntropyLoss().value_and_grad(pixels, marks)
race("classes of pixels", marks, (255, 4, 0), call, IndexError)

embeddings = rng.standard_normal((300, 8)).astype("f4")
labels = rng.integers(0, 5, 300)


def mine():
    for found in fo.losses.mine_triplets(embeddings, labels, "semihard"):
        assert ((0 <= found) & (found < 300)).all()


race("labels of mine_triplets", labels, (2**40, 0, -1, 1), mine, ())
race("embeddings of mine_triplets", embeddings, (np.nan, 0.0, np.inf), mine, ())
"""


def test_arguments_that_another_thread_writes_crash_nothing() -> None:
    command = [sys.executable, "-X", "faulthandler", "-c", SCRIPT]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, f"{found.stdout}\n{found.stderr}"
