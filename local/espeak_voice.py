"""The eSpeak NG synthesiser, through ctypes: the shared library that the package `espeakng-loader` brings.

eSpeak NG and its voices are under the GPL, version 3. Only this recipe uses them (the extra `demo` in
setup.py); the library `decant` does not.

Two habits of eSpeak NG 1.52 shape this module and its caller:
- What it says depends on what it has said before, and neither espeak_Terminate nor espeak_ng_SetRandSeed
  undoes that. Only the same calls in a *fresh process* give the same samples.
- The clock seeds its random numbers (breath in the voice), unless espeak_ng_SetRandSeed is called.
"""

import ctypes
from pathlib import Path

import espeakng_loader
import numpy as np

SAMPLE_RATE = 22050  # Hz
VOLUME = 20  # of 100; at full volume some voices clip
SHORTEST = SAMPLE_RATE // 10  # samples of the shortest word; less is only the echo of what was said before

# Values of the enumerations in espeak-ng/speak_lib.h
_SYNCHRONOUS_OUTPUT = 2
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7
_UTF8 = 1

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def library_version() -> str:
    """The version of the eSpeak NG library, such as 1.52.0."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Info.restype = ctypes.c_char_p
    return library.espeak_Info(None).decode()


class Espeak:
    """The synthesiser of this process; make one only, in a process that has not spoken yet."""

    def __init__(self, seed: int):
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        rate = self._library.espeak_Initialize(_SYNCHRONOUS_OUTPUT, 0, data, 0)
        if rate != SAMPLE_RATE:
            raise RuntimeError(f"espeak-ng gives {rate} Hz, not {SAMPLE_RATE}; install espeakng-loader again")
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._library.espeak_ng_SetRandSeed(seed)
        self._chunks: list[bytes] = []
        self._callback = _Callback(self._collect)  # a reference: the library keeps a bare pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples, num_samples, _events) -> int:
        if samples and num_samples > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * num_samples))
        return 0  # go on

    def set_voice(self, accent: str, variant: str) -> None:
        """Speak with a language of eSpeak's, as `en-us`, in one of its voice variants, as `f3`, from now on.

        Raises ValueError if either is unknown; of an unknown variant the library itself takes no notice.
        """
        if not Path(espeakng_loader.get_data_path(), "voices", "!v", variant).is_file():
            raise ValueError(f"espeak-ng has no voice variant {variant!r}; see its folder voices/!v")
        if self._library.espeak_SetVoiceByName(f"{accent}+{variant}".encode()) != 0:
            raise ValueError(f"espeak-ng has no language {accent!r}; see its folder lang/gmw")

    def say(self, text: str, *, speed: int, pitch: int, pitch_range: int, word_gap: int) -> np.ndarray:
        """The samples, int16 at SAMPLE_RATE, of `text`.

        speed: words a minute; pitch, pitch_range: 0 to 99, the voice's own at 50; word_gap: 1 is 10 ms.
        Raises RuntimeError if nothing is heard or samples are clipped.
        """
        parameters = {_RATE: speed, _VOLUME: VOLUME, _PITCH: pitch, _RANGE: pitch_range, _WORD_GAP: word_gap}
        for parameter, value in parameters.items():
            if self._library.espeak_SetParameter(parameter, value, 0) != 0:
                raise RuntimeError(f"espeak-ng refuses the value {value} of its parameter {parameter}")
        self._chunks.clear()
        encoded = text.encode()
        error = self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8, None, None)
        samples = np.frombuffer(b"".join(self._chunks), np.int16)
        peak = np.abs(samples.astype(int)).max(initial=0)
        if error or len(samples) < SHORTEST or not 0 < peak < 32767:
            found = f"status {error}, {len(samples)} samples, peak {peak}"
            raise RuntimeError(f"espeak-ng failed to say {text!r}: {found}")
        return samples
