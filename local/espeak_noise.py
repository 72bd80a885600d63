"""Clean speech made harder to recognise: a room, noise, another level. numpy alone.

Everything is float64 until the last step, so that rounding to 16 bits hides what processors make different in
the last place. Letters: N samples, R samples of a room's impulse response.
"""

import numpy as np

SAMPLE_RATE = 16000  # Hz
PEAK = 0.98  # of full scale; a louder utterance is turned down
SILENCE_THRESHOLD = 0.003  # of an utterance's peak; below, its edges are silence


def trim(samples: np.ndarray) -> np.ndarray:
    """The samples from the first to the last that is no silence."""
    loud = np.flatnonzero(np.abs(samples) > SILENCE_THRESHOLD * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """The samples at `rate` Hz, resampled to SAMPLE_RATE (not above it) by cutting off their spectrum."""
    divisor = np.gcd(rate, SAMPLE_RATE)
    step, new_step = rate // divisor, SAMPLE_RATE // divisor  # 22050 Hz: 441 samples become 320
    blocks = len(samples) // step + 2  # whole blocks, then silence, since the transform is circular
    new_length = blocks * new_step
    spectrum = np.fft.rfft(samples, blocks * step)[: new_length // 2 + 1]
    return np.fft.irfft(spectrum, new_length) * new_step / step


def room_response(t60: float, direct_to_reverberant: float, rng: np.random.Generator) -> np.ndarray:
    """An artificial room's impulse response [R]: 1 for the direct path, then noise that decays exponentially.

    t60: seconds in which the noise decays by 60 dB.
    direct_to_reverberant: energy of the direct path over that of the noise, dB.
    """
    time = np.arange(1, round(t60 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / t60)
    tail *= 10 ** (-direct_to_reverberant / 20) / np.sqrt(np.sum(tail**2))
    return np.concatenate(([1.0], tail))


def convolve(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """The first N samples of the convolution of samples [N] and response [R]."""
    size = 1 << (len(samples) + len(response)).bit_length()
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]


def draw_noise(num_samples: int, babble: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise, pink noise (power over frequency as 1/f) or a piece of `babble`, each as likely."""
    kind = rng.choice(["white", "pink", "babble"])
    if kind == "babble":
        return np.resize(np.roll(babble, rng.integers(len(babble))), num_samples)
    noise = rng.standard_normal(num_samples)
    if kind == "pink":
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), num_samples)
    return noise


def power(samples: np.ndarray) -> float:
    """The mean square."""
    return np.mean(samples**2)


def add_noise(speech: np.ndarray, noise: np.ndarray, snr: float, spoken: slice) -> np.ndarray:
    """Speech [N] plus noise [N], scaled so that speech[spoken] has `snr` dB more power than the noise."""
    return speech + noise * np.sqrt(power(speech[spoken]) / power(noise) / 10 ** (snr / 10))


def to_int16(samples: np.ndarray, level: float) -> np.ndarray:
    """int16, with a root mean square of `level` dB relative to full scale, or less if the peak would clip."""
    gain = min(10 ** (level / 20) / np.sqrt(power(samples)), PEAK / np.abs(samples).max())
    return np.round(samples * gain * 32768).astype("<i2")
