"""The intervals of benchmark results, computed anew from samples, with nothing but Python's library: bootstrap intervals of means with
the same draws, and intervals of percentiles by the binomial distribution. What is drawn and how ends are taken is as
src/benchmark/statistics says (xoshiro128**, blocks, BCa); distributions are computed in other ways than there.
"""

import math
import statistics

RESAMPLES = 2000
LAGS_MAX = 500
LEFT_OUT_MAX = 200
MASK = 0xFFFFFFFF


def seeded(seed):
    """xoshiro128** of Blackman and Vigna 2021, its state filled by the 32-bit SplitMix; numbers from 0, below 1."""
    state = []
    filled = seed & MASK
    for _ in range(4):
        filled = (filled + 0x9E3779B9) & MASK
        mixed = filled
        mixed = ((mixed ^ (mixed >> 16)) * 0x85EBCA6B) & MASK
        mixed = ((mixed ^ (mixed >> 13)) * 0xC2B2AE35) & MASK
        state.append(mixed ^ (mixed >> 16))
    a, b, c, d = state
    while True:
        scrambled = (b * 5) & MASK
        yield ((((scrambled << 7) | (scrambled >> 25)) * 9) & MASK) / 2**32
        shifted = (b << 9) & MASK
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= shifted
        d = ((d << 11) | (d >> 21)) & MASK


def plain_sum(values):
    """In order and without the compensation that Python's own has: figures that are compared for equality have the same last bits."""
    total = 0.0
    for value in values:
        total += value
    return total


def quantile(ascending, part):
    """The value below which this part of the values lies, between neighbours by their distance."""
    place = part * (len(ascending) - 1)
    below = math.floor(place)
    above = math.ceil(place)
    return ascending[below] + (ascending[above] - ascending[below]) * (place - below)


def dependence(values):
    """(effective, block, kept): how many independent samples say as much, how many are drawn in a row, and what such draws keep."""
    n = len(values)
    mean = plain_sum(values) / n
    centred = [value - mean for value in values]
    whole = plain_sum(value * value for value in centred)

    def correlation(lag):
        return plain_sum(x * y for x, y in zip(centred, centred[lag:])) / whole if whole > 0 else 0.0

    first = correlation(1) if n >= 6 else 0.0
    if n < 6 or first <= (-1 / n if n < 20 else 1 / math.sqrt(n)):
        return n, 1, n
    correlations = [first]
    lag = 2
    while lag + 1 <= min(n / 2, LAGS_MAX):
        pair = [correlation(lag), correlation(lag + 1)]
        if sum(pair) <= 0:
            break
        correlations += pair
        lag += 2
    factor = min(0.99, (n * first + 1) / (n - 3))
    inflation = max(1 + 2 * sum(correlations), (1 + factor) / (1 - factor))
    effective = max(1.5, n / inflation)
    block = max(1, min(math.ceil(2 * inflation), n // 4))
    in_blocks = 1 + sum(2 * (1 - (k + 1) / block) * each for k, each in enumerate(correlations[: block - 1]))
    return effective, block, max(effective, n / max(1, in_blocks))


def student_below(t, freedom):
    """The part of Student's distribution below t, at least 0: with t = sqrt(freedom) tan(angle) a smooth integral, by Simpson's rule."""
    end = math.atan(t / math.sqrt(freedom))
    steps = 400
    heights = [math.cos(end * step / steps) ** (freedom - 1) for step in range(steps + 1)]
    area = heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return 0.5 + scale * area * end / steps / 3


def student_quantile(part, freedom):
    low, high = 0.0, 1.0
    while student_below(high, freedom) < part:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_below(middle, freedom) < part else (low, middle)
    return (low + high) / 2


def resampled_means(samples, block, seed):
    """Means of as many samples, drawn in blocks of neighbours; behind the last sample comes the first. Ascending."""
    n = len(samples)
    around = samples + samples[:block]
    random = seeded(seed)
    means = []
    for _ in range(RESAMPLES):
        drawn = []
        while len(drawn) < n:
            begin = math.floor(next(random) * n)
            drawn += around[begin : begin + block]
        means.append(plain_sum(drawn[:n]) / n)
    return sorted(means)


def acceleration(samples, block):
    """From the means without a group of neighbours each."""
    n = len(samples)
    size = max(math.ceil(n / LEFT_OUT_MAX), block)
    if size >= n:
        return 0.0
    means = [plain_sum(samples[:at] + samples[at + size :]) / (n - size) for at in range(0, n - size + 1, size)]
    mean = sum(means) / len(means)
    squares = sum((mean - each) ** 2 for each in means)
    return sum((mean - each) ** 3 for each in means) / (6 * squares**1.5) if squares > 0 else 0.0


def mean_interval(samples, level, seed):
    """(low, high) by bootstrap (Efron 1987, BCa), as wide as Student's distribution asks."""
    n = len(samples)
    normal = statistics.NormalDist()
    effective, block, kept = dependence(samples)
    means = resampled_means(samples, block, seed)
    estimate = plain_sum(samples) / n
    below = sum(1.0 if mean < estimate else 0.5 if mean == estimate else 0.0 for mean in means)
    bias = normal.inv_cdf((below + 0.5) / (RESAMPLES + 1))
    skew = acceleration(samples, block)
    freedom = max(1, max(0.5, effective - 1))
    far = math.sqrt(n / (n - 1)) * student_quantile((1 + level) / 2, freedom)
    stretch = math.sqrt(kept / effective)

    def end(z):
        reach = 1 - skew * (bias + z)
        part = normal.cdf(bias + (bias + z) / reach) if reach > 0 else float(z > 0)
        return estimate + (quantile(means, part) - estimate) * stretch

    return end(-far), end(far)


def binomial(successes, count, part):
    """How likely so many of `count` are, each with probability `part`."""
    ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(ways + successes * math.log(part) + (count - successes) * math.log1p(-part))


def quantile_interval(samples, part, level):
    """(low, high): two of the samples, or None if they do not span it."""
    ascending = sorted(samples)
    value = quantile(ascending, part)
    count = round(dependence([1.0 if each <= value else 0.0 for each in samples])[0])
    tail = (1 - level) / 2

    def largest(probability):
        """The largest number that at most so many are seldom enough, one after another; None: not even none."""
        found, likely = None, 0.0
        for successes in range(count):
            likely += binomial(successes, count, probability)
            if likely > tail:
                break
            found = successes
        return found

    below, above = largest(part), largest(1 - part)
    if below is None or above is None:
        return None
    scale = len(ascending) / count
    return ascending[math.floor(below * scale)], ascending[len(ascending) - 1 - math.floor(above * scale)]
