import dataclasses
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from decant.feat.data_dir import read_data_dir
from decant.lang.lexicon import read_lexicon

pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
from local import espeak, espeak_grammar, espeak_noise, espeak_speakers, espeak_voice  # noqa: E402

PROGRAM = Path(espeak.__file__)
TINY = espeak.CorpusConfig(
    train_minutes=0.24, dev_minutes=0.08, test_minutes=0.08, speaker_minutes=0.08, lm_sentences=300
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("espeak") / "data"
    espeak.write_corpus(out, TINY, jobs=1)
    return out


@pytest.fixture(scope="module")
def synthesiser():
    return espeak_voice.Espeak(seed=1)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_process_with_two_jobs_writes_the_same_bytes(corpus, tmp_path):
    out = tmp_path / "again"
    out.mkdir()
    settings = "".join(f"{k} = {v}\n" for k, v in dataclasses.asdict(TINY).items())
    (out / "stage.toml").write_text(f"[data]\n{settings}")
    program = [sys.executable, PROGRAM, "--out", out, "--jobs", "2", "--exp", out, "--device", "cpu", "--corpus", "",
               "--engine", "kaldi"]
    subprocess.run(program, check=True, env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[1])})
    for name in ("stage.toml", "log"):
        (out / name).unlink()
    assert contents(out) == contents(corpus)


def test_an_interrupted_run_goes_on_to_the_same_bytes_without_its_finished_speakers(corpus, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(corpus, out)
    kept = out / "audio" / "train0000"
    kept_inode = kept.stat().st_ino
    shutil.rmtree(out / "train")
    (out / "lexicon.txt").unlink()
    (out / "audio" / "train0001").rename(out / "audio" / ".train0001")  # unfinished
    (out / "audio" / ".train0001" / "text").unlink()
    shutil.rmtree(out / "audio" / "test0000")  # not begun
    espeak.write_corpus(out, TINY, jobs=2)
    assert contents(out) == contents(corpus)
    assert kept.stat().st_ino == kept_inode


def test_a_folder_begun_with_other_settings_is_refused(corpus):
    with pytest.raises(ValueError, match="corpus.json: begun with other settings; remove"):
        espeak.write_corpus(corpus, dataclasses.replace(TINY, seed=2))


def test_another_seed_gives_another_speaker_other_sentences_and_samples(corpus, tmp_path):
    config = dataclasses.replace(TINY, seed=2)
    speaker = espeak.list_speakers(config)[0]
    assert speaker not in espeak.list_speakers(TINY)
    espeak.record_all([speaker], config, tmp_path, jobs=1, words=[])
    files, others = (contents(folder / "train0000") for folder in (tmp_path, corpus / "audio"))
    assert files["text"] != others["text"]
    assert files["train0000-000.wav"] != others["train0000-000.wav"]


def test_no_speaker_and_no_voice_variant_is_in_two_splits(corpus):
    speakers = [{utterance.speaker for utterance in read_data_dir(corpus / split)} for split in espeak.SPLITS]
    assert [len(names) for names in speakers] == [3, 1, 1]
    assert len(set.union(*speakers)) == 5
    variants = [variant for women, men in espeak_speakers.VARIANTS.values() for variant in women + men]
    assert len(set(variants)) == len(variants)


def test_speakers_share_no_accent_and_variant_until_all_pairs_are_used():
    women, men = espeak_speakers.VARIANTS["train"]
    assert len(women) == 10 and len(men) >= 10 and len(espeak_speakers.ACCENTS) == 8
    config = espeak.CorpusConfig(train_minutes=160.0, speaker_minutes=1.0)  # 80 women in 10 x 8 pairs, 80 men
    speakers = [speaker for speaker in espeak.list_speakers(config) if speaker.split == "train"]
    assert len({(speaker.accent, speaker.variant) for speaker in speakers}) == len(speakers) == 160
    assert sum(speaker.variant in women for speaker in speakers) == 80


def test_every_utterance_is_loud_unclipped_and_as_long_as_its_words_need(corpus):
    lexicon = read_lexicon(corpus / "lexicon.txt")
    for split in espeak.SPLITS:
        utterances = read_data_dir(corpus / split)
        minutes = 0.0
        for utterance in utterances:
            samples, rate = soundfile.read(utterance.audio)
            assert rate == 16000
            level = 10 * math.log10(np.mean(samples**2))
            assert -37 < level < -19 and np.abs(samples).max() <= 0.98
            phones = sum(len(lexicon.pronunciations[word][0]) for word in utterance.words)
            seconds = len(samples) / rate
            assert 0.2 + 0.04 * phones < seconds < 1.5 + 0.3 * phones, utterance
            minutes += seconds / 60
        asked = getattr(TINY, f"{split}_minutes")  # then at most one utterance a speaker too many
        assert asked <= minutes < asked + 0.15 * TINY.num_speakers(split)


def test_the_lexicon_holds_every_word_of_the_grammar_with_its_alternatives(corpus):
    lexicon = read_lexicon(corpus / "lexicon.txt")
    assert list(lexicon.pronunciations) == espeak_grammar.vocabulary()
    assert 200 <= len(lexicon.pronunciations) <= 400
    assert lexicon.pronunciations["A"] == (("AH",), ("EY",))
    assert lexicon.pronunciations["W"] == (("D", "AH", "B", "AH", "L", "Y", "UW"),)
    assert set("ABCDEFGHIJKLMNOPQRSTUVWXYZ") <= set(lexicon.pronunciations)


def test_the_language_model_sentences_are_words_of_the_lexicon(corpus):
    lines = (corpus / "lm_text").read_text().splitlines()
    assert len(lines) == 300
    assert {word for line in lines for word in line.split()} <= set(espeak_grammar.vocabulary())


def test_words_of_the_dictionary_are_read_out_in_half_of_the_sentences(tmp_path):
    config = dataclasses.replace(TINY, train_minutes=0.3, speaker_minutes=0.3, dictionary_words=40)
    espeak.write_corpus(tmp_path, config, jobs=2)
    lexicon, own = read_lexicon(tmp_path / "lexicon.txt"), set(espeak_grammar.vocabulary())
    added = lexicon.pronunciations.keys() - own
    assert len(added) == 40 and own < lexicon.pronunciations.keys()
    for name in ("lm_text", "train/text"):
        lines = [line.split()[name != "lm_text":] for line in (tmp_path / name).read_text().splitlines()]
        read = [line for line in lines if added & set(line)]
        assert all(len(line) == 6 and set(line) <= added for line in read)
        assert 0 < len(read) < len(lines)
        assert name != "lm_text" or 110 < len(read) < 190  # of 300
    with pytest.raises(ValueError, match="dictionary_words is 1000000; the CMU dictionary has"):
        espeak.dictionary_words(dataclasses.replace(TINY, dictionary_words=1_000_000))


def test_every_rule_of_the_grammar_is_used():
    rules = espeak_grammar.RULES
    used = {token.rstrip(",") for options in rules.values() for option in options for token in option}
    assert rules.keys() - used == {"sentence"}
    assert all(token.isupper() for token in espeak_grammar.vocabulary())


def test_tokens_show_as_words_and_are_spelled_so_that_letters_are_said():
    tokens = ["ERASE", "B.", "A.,", "A", "ONE,"]
    assert [espeak_grammar.word(token) for token in tokens] == ["ERASE", "B", "A", "A", "ONE"]
    assert espeak_grammar.spoken_text(tokens) == "erace b eigh, a one,"


def test_a_pause_after_a_rule_comes_after_all_that_it_stands_for(monkeypatch):
    monkeypatch.setitem(espeak_grammar.RULES, "pair", (("ONE", "TWO"),))
    monkeypatch.setitem(espeak_grammar.RULES, "start", (("pair,", "pair"),))
    drawn = espeak_grammar.draw_sentence(np.random.default_rng(0), "start")
    assert drawn == ["ONE", "TWO,", "ONE", "TWO"]


@pytest.mark.parametrize("accent", espeak_speakers.ACCENTS)
def test_espeak_says_a_voice_in_each_accent(synthesiser, accent):
    synthesiser.set_voice(accent, "f3")
    samples = synthesiser.say("nine", speed=175, pitch=50, pitch_range=50, word_gap=0)
    assert 0.2 < len(samples) / espeak_voice.SAMPLE_RATE < 1.0


def test_espeak_knows_every_variant(synthesiser):
    for women, men in espeak_speakers.VARIANTS.values():
        for variant in women + men:
            synthesiser.set_voice("en-us", variant)


@pytest.mark.parametrize("accent, variant", [("en-xx", "f3"), ("en-us", "nonesuch"), ("en-us", "")])
def test_an_unknown_voice_is_an_error(synthesiser, accent, variant):
    with pytest.raises(ValueError, match="espeak-ng has no"):
        synthesiser.set_voice(accent, variant)


def test_saying_nothing_is_an_error_even_when_an_echo_is_left(synthesiser):
    synthesiser.set_voice("en-us", "f3")  # a voice with an echo
    synthesiser.say("nine", speed=175, pitch=50, pitch_range=50, word_gap=0)
    with pytest.raises(RuntimeError, match="failed to say ' '"):
        synthesiser.say(" ", speed=175, pitch=50, pitch_range=50, word_gap=0)


def test_a_speaker_that_fails_fails_the_run_and_leaves_no_folder(tmp_path):
    speaker = dataclasses.replace(espeak.list_speakers(TINY)[0], variant="nonesuch")
    with pytest.raises(RuntimeError, match="recording train0000 failed with status 1"):
        espeak.record_all([speaker], TINY, tmp_path, jobs=1, words=[])
    assert not (tmp_path / "train0000").exists()


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("snr_low", 26.0, "snr_low 26.0 is above snr_high 25.0; exchange them"),
        ("dev_minutes", 0.0, "dev_minutes is 0.0; it must be above 0"),
        ("snr_high", math.nan, "snr_high must be finite"),
        ("seed", -1, "seed, silence_low and dictionary_words must not be negative"),
        ("t60_low", 0.0, "t60_low is 0.0; it must be at least 0.01 s"),
        ("speed_high", 500, "speed_low and speed_high must lie between"),
        ("pitch_low", 0, "pitch_low and pitch_high must lie between 5 and 94"),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error(field, value, message):
    with pytest.raises(ValueError, match=message):
        espeak.CorpusConfig(**{field: value})


def test_noise_is_added_at_the_ratio_asked_for():
    speech = np.array([0.0, 4.0, -4.0, 0.0])  # power 16 where something is spoken
    noise = np.array([1.0, -1.0, 1.0, -1.0])  # power 1; at 6.02 dB it must be 4, so twice the noise
    noisy = espeak_noise.add_noise(speech, noise, 10 * math.log10(4), slice(1, 3))
    np.testing.assert_allclose(noisy, [2.0, 2.0, -2.0, -2.0])


@pytest.mark.parametrize("seed", range(6))  # all kinds of noise
def test_noise_fills_the_utterance_whatever_its_kind(seed):
    noise = espeak_noise.draw_noise(5000, np.sin(np.arange(777.0)), np.random.default_rng(seed))
    assert noise.shape == (5000,)
    assert all(espeak_noise.power(part) > 0 for part in np.split(noise, 10))


def test_a_room_has_a_direct_path_of_one_and_the_reverberation_asked_for():
    response = espeak_noise.room_response(0.5, 6.0, np.random.default_rng(0))
    assert response[0] == 1
    tail = response[1:]
    assert 10 * math.log10(1 / np.sum(tail**2)) == pytest.approx(6.0)
    early, late = np.sum(tail[:1600] ** 2), np.sum(tail[3200:4800] ** 2)
    # 0.2 s apart at 60 dB in 0.5 s
    assert 10 * math.log10(early / late) == pytest.approx(24, abs=1)


def test_convolution_is_the_sum_of_delayed_copies_cut_at_the_end():
    convolved = espeak_noise.convolve(np.array([1.0, 2, 3]), np.array([1.0, 0.5]))
    np.testing.assert_allclose(convolved, [1, 2.5, 4])


def test_resampling_keeps_a_tone_below_8_khz_and_removes_one_above():
    time = np.arange(22050) / 22050
    window = np.hanning(22050)
    low = espeak_noise.resample(window * np.sin(2 * np.pi * 1000 * time), 22050)
    assert len(low) == 52 * 320  # 50 blocks of 441 samples and two of silence
    new_time = np.arange(16000) / 16000
    expected = np.interp(new_time, time, window) * np.sin(2 * np.pi * 1000 * new_time)
    np.testing.assert_allclose(low[:16000], expected, atol=1e-3)
    high = espeak_noise.resample(window * np.sin(2 * np.pi * 9000 * time), 22050)
    assert np.abs(high).max() < 1e-3


def test_silence_is_trimmed_at_both_ends():
    np.testing.assert_array_equal(espeak_noise.trim(np.array([0, 0.001, 1, 0, -1, 0.002])), [1, 0, -1])


def test_level_is_relative_to_full_scale_and_gives_way_to_the_peak():
    square = np.array([1.0, -1.0])
    np.testing.assert_array_equal(espeak_noise.to_int16(square, -20.0), [3277, -3277])
    peaky = np.array([100.0, 0, 0, 0] * 10)
    assert espeak_noise.to_int16(peaky, 0.0).max() == round(0.98 * 32768)
