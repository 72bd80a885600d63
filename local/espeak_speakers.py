"""The default recipe's settings, and its made-up speakers: who they are and how they speak."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from decant.settings import config_field

ACCENTS = (
    "en-us", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en", "en-gb-x-gbclan", "en-029", "en-gb-x-gbcwmd",
)

# Variants of eSpeak's voices: women's, which take turns with men's. Each split has its own, so that a test
# voice is a new one, and none of train is nearly the same as one of another split. Left out are whispers,
# robots, voices with a loud echo, those whose formants are moved so far that vowels change, and near copies.
VARIANTS = {
    "train": (
        ("f1", "f3", "Alicia", "anika", "Andrea", "f4", "shelby", "grandma", "zac", "aunty"),
        (
            "m1", "m3", "klatt", "m5", "Denis", "m7", "Marco", "Reed", "m8", "Diogo", "Gene", "Storm", "Mike",
            "Nguyen", "adam", "boris", "croak", "ed", "max", "edward", "klatt2", "paul", "gustave", "klatt4",
            "miguel", "david", "pedro", "grandpa", "mike2", "john",
        ),
    ),
    "dev": (("f2", "linda", "steph3"), ("Alex", "sandro", "m4", "pablo", "klatt3")),
    "test": (("f5", "Annie", "steph", "belinda"), ("m2", "antonio", "robert", "m6", "Michael")),
}
SPLITS = tuple(VARIANTS)
PITCH_CHANGE = 5  # how far an utterance's pitch and its range stray, at most, from the speaker's usual


@dataclass(frozen=True)
class CorpusConfig:
    """What is recorded; values are drawn evenly between a `low` and its `high`.

    If recognition is too easy or too hard, turn first the signal-to-noise ratio, then the room.
    """

    seed: int = config_field(1, "Another one makes other recordings: everything random comes from it.")
    train_minutes: float = config_field(30.0, "Audio of train, silence included, in minutes.")
    dev_minutes: float = config_field(4.0, "Audio of dev, likewise.")
    test_minutes: float = config_field(6.0, "Audio of test, likewise.")
    speaker_minutes: float = config_field(
        0.8, "Audio of one speaker, in minutes, about 20 utterances; sets the number of speakers.")
    lm_sentences: int = config_field(5000, "Sentences of lm_text, which the language model is estimated from.")
    dictionary_words: int = config_field(
        0, "Words of the CMU dictionary beside the grammar's, drawn at random; then half of the sentences read out six "
        "of them. For more triphones than the grammar has. eSpeak says the rarer ones in its own way.")

    speed_low: int = config_field(130, "A speaker's usual speed, at least, in words a minute.")
    speed_high: int = config_field(190, "The same, at most.")
    pitch_low: int = config_field(30, "A speaker's usual pitch, at least, from 0 to 99; 50 is the voice variant's own.")
    pitch_high: int = config_field(70, "The same, at most.")
    pitch_range_low: int = config_field(
        30, "A speaker's range of pitch, at least, from 0 (monotonous) to 99; 50 is the variant's own.")
    pitch_range_high: int = config_field(70, "The same, at most.")

    # From here on, drawn for each utterance.
    t60_low: float = config_field(0.2, "Reverberation time of an utterance's room, at least, in seconds.")
    t60_high: float = config_field(0.6, "The same, at most.")
    direct_low: float = config_field(0.0, "Energy of the direct sound over that of the reverberation, at least, in dB.")
    direct_high: float = config_field(10.0, "The same, at most.")
    snr_low: float = config_field(10.0, "Power of speech over that of white, pink or babble noise, at least, in dB.")
    snr_high: float = config_field(25.0, "The same, at most.")
    silence_low: float = config_field(0.1, "Silence before and after the speech, at least, in seconds.")
    silence_high: float = config_field(0.4, "The same, at most.")
    level_low: float = config_field(
        -36.0, "Root mean square of an utterance, at least, in dB relative to full scale.")
    level_high: float = config_field(-20.0, "The same, at most.")

    def __post_init__(self):
        values = dataclasses.asdict(self)
        if not_finite := [name for name, value in values.items() if not math.isfinite(value)]:
            raise ValueError(f"{', '.join(not_finite)} must be finite")
        for name, value in values.items():
            if name.endswith("_low") and value > (high := values[name[:-4] + "_high"]):
                raise ValueError(f"{name} {value} is above {name[:-4]}_high {high}; exchange them")
        for name in ("train_minutes", "dev_minutes", "test_minutes", "speaker_minutes", "lm_sentences"):
            if values[name] <= 0:
                raise ValueError(f"{name} is {values[name]}; it must be above 0")
        if min(self.seed, self.silence_low, self.dictionary_words) < 0:
            raise ValueError("seed, silence_low and dictionary_words must not be negative")
        if self.t60_low < 0.01:
            raise ValueError(f"t60_low is {self.t60_low}; it must be at least 0.01 s")
        if self.speed_low < 80 or self.speed_high > 450:
            raise ValueError("speed_low and speed_high must lie between 80 and 450 words a minute")
        for name in ("pitch", "pitch_range"):
            lowest, highest = PITCH_CHANGE, 99 - PITCH_CHANGE
            if values[f"{name}_low"] < lowest or values[f"{name}_high"] > highest:
                raise ValueError(f"{name}_low and {name}_high must lie between {lowest} and {highest}")

    def num_speakers(self, split: str) -> int:
        return max(1, round(getattr(self, f"{split}_minutes") / self.speaker_minutes))


@dataclass(frozen=True)
class Speaker:
    id: str
    split: str
    index: int  # within the split, from 0
    accent: str  # language of eSpeak's
    variant: str  # voice variant of eSpeak's
    speed: int  # words a minute
    pitch: int  # eSpeak's scale, as in CorpusConfig
    pitch_range: int
    word_gap: int  # pause between words, 10 ms at normal speed


def list_speakers(config: CorpusConfig) -> list[Speaker]:
    """All speakers. No two of a split share accent and variant, until all of a sex's pairs are used up."""
    speakers = []
    for split in SPLITS:
        for index in range(config.num_speakers(split)):
            turn, man = divmod(index, 2)
            variants = VARIANTS[split][man]
            round_, place = divmod(turn, len(variants))
            rng = generator(config, split, index, 0)
            speakers.append(
                Speaker(
                    id=f"{split}{index:04d}",
                    split=split,
                    index=index,
                    accent=ACCENTS[(place + round_ + 4 * man) % len(ACCENTS)],
                    variant=variants[place],
                    speed=int(rng.integers(config.speed_low, config.speed_high + 1)),
                    pitch=int(rng.integers(config.pitch_low, config.pitch_high + 1)),
                    pitch_range=int(rng.integers(config.pitch_range_low, config.pitch_range_high + 1)),
                    word_gap=int(rng.integers(4)),
                )
            )
    return speakers


def generator(config: CorpusConfig, split: str, *stream: int) -> np.random.Generator:
    """What is drawn at random in one stream of a split."""
    return np.random.default_rng((config.seed, SPLITS.index(split), *stream))
