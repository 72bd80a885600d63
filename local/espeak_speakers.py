"""The default recipe's settings, and its made-up speakers: who they are and how they speak."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

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
    """What is recorded: the table [data]. Values are drawn evenly between a `low` and its `high`.

    If recognition is too easy or too hard, turn first the signal-to-noise ratio, then the room.
    """

    seed: int = 1  # of everything random
    train_minutes: float = 30.0  # audio of each split, silence included
    dev_minutes: float = 4.0
    test_minutes: float = 6.0
    speaker_minutes: float = 0.8  # audio of one speaker, about 20 utterances; sets the number of speakers
    lm_sentences: int = 5000  # lines of lm_text
    # Words of the CMU dictionary beside the grammar's, drawn at random; then half of the sentences read out six of
    # them. For more triphones than the grammar has. eSpeak says the rarer ones in its own way.
    dictionary_words: int = 0

    speed_low: int = 130  # a speaker's usual speed, words a minute
    speed_high: int = 190
    pitch_low: int = 30  # a speaker's usual pitch, 0 to 99; 50 is the voice variant's own
    pitch_high: int = 70
    pitch_range_low: int = 30  # a speaker's range of pitch, 0 (monotonous) to 99; 50 is the variant's own
    pitch_range_high: int = 70

    # From here on, drawn for each utterance.
    t60_low: float = 0.2  # reverberation time of the room, in seconds
    t60_high: float = 0.6
    direct_low: float = 0.0  # energy of the direct sound over that of the reverberation, dB
    direct_high: float = 10.0
    snr_low: float = 10.0  # power of speech over that of white, pink or babble noise, dB
    snr_high: float = 25.0
    silence_low: float = 0.1  # before and after the speech, in seconds
    silence_high: float = 0.4
    level_low: float = -36.0  # root mean square of an utterance, dB relative to full scale
    level_high: float = -20.0

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
