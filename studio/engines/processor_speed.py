"""How quickly this machine's processor multiplies, for estimates. No torch here."""

import math
import os
import re
import time
from functools import cache

import numpy as np

PRODUCT_SIDE, PRODUCTS = 64, 200  # the matrices that measure it
THREADS_GAIN = 0.8  # n threads are n ** 0.8 times as quick as one


@cache
def product_speed() -> float:
    """Multiply-adds per second of a thread, measured on the quickest of some products."""
    matrix = np.ones((PRODUCT_SIDE, PRODUCT_SIDE), np.float32)
    result, best = np.empty_like(matrix), math.inf
    for _ in range(PRODUCTS):
        began = time.perf_counter()
        np.matmul(matrix, matrix, out=result)
        best = min(best, time.perf_counter() - began)
    return PRODUCT_SIDE**3 / best


def threads_in(device: str) -> int:
    """The threads that a device in words has, as in "CPU (x86_64, 2 threads)"."""
    said = re.search(r"(\d+) threads", device)
    return max(1, int(said[1])) if said else os.cpu_count() or 1


def kind_of(device: str) -> str:
    """ "gpu" or "cpu", for a device in words."""
    return "gpu" if "gpu" in device.lower() else "cpu"
