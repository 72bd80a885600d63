import logging
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from decant.feat.data_dir import Utterance, check_disjoint_speakers, read_data_dir, write_data_dir

# Two speakers; the ids of bob's utterances do not start with his name, which Kaldi advises but does not ask for.
GOOD = {
    "wav.scp": "ann-1 a1.wav\nann-2 a2.wav\nx-1 b1.wav\n",
    "text": "ann-1 YES\nann-2 GO  ON\nx-1 NO\n",
    "utt2spk": "ann-1 ann\nann-2 ann\nx-1 bob\n",
    "spk2utt": "ann ann-1 ann-2\nbob x-1\n",
}


@pytest.fixture
def make_dir(tmp_path):
    """Writes a data directory of the GOOD files, with some replaced (None: left out)."""

    def make(**replaced) -> Path:
        for name, content in (GOOD | {name.replace("_", "."): content for name, content in replaced.items()}).items():
            if content is not None:
                (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        for name in ("a1.wav", "a2.wav", "b1.wav"):
            (tmp_path / name).touch()
        return tmp_path

    return make


def problems_of(directory: Path) -> list[str]:
    with pytest.raises(ValueError) as error:
        read_data_dir(directory)
    return str(error.value).replace(f"{directory}/", "").splitlines()


def test_a_good_directory_is_read_in_order_with_paths_resolved_against_it(make_dir):
    directory = make_dir()
    assert read_data_dir(directory) == [
        Utterance("ann-1", "ann", directory / "a1.wav", ("YES",)),
        Utterance("ann-2", "ann", directory / "a2.wav", ("GO", "ON")),
        Utterance("x-1", "bob", directory / "b1.wav", ("NO",)),
    ]


def test_segments_give_each_utterance_its_recording_and_times(make_dir):
    directory = make_dir(wav_scp="r a1.wav\n", segments="ann-1 r 0 1.5\nann-2 r 1.5 2\nx-1 r 2.25 3\n")
    assert [(u.audio.name, u.start, u.end) for u in read_data_dir(directory)] == [
        ("a1.wav", 0.0, 1.5), ("a1.wav", 1.5, 2.0), ("a1.wav", 2.25, 3.0)
    ]


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing: no such data directory"):
        read_data_dir(tmp_path / "nothing")


@pytest.mark.parametrize(("replaced", "problem"), [
    ({"text": None}, "text: no such file; run stage 0 again"),
    ({"text": ""}, "text: the file is empty; run stage 0 again"),
    ({"text": GOOD["text"] + "x-1 NO\n"}, "text:4: x-1 is in line 3 already; remove one of the two"),
    ({"text": "ann-2 GO\nann-1 YES\nx-1 NO\n"}, "text:2: ann-1 stands after ann-2; sort the file with LC_ALL=C sort"),
    ({"text": "ann-1 YES\nann-2 GO\n"},
     "wav.scp:3: utterance x-1 has no transcript in text; run stage 0 again or remove the line"),
    ({"wav_scp": "ann-1 a1.wav\nann-2 a2.wav\n"},
     "text:3: utterance x-1 has no audio in wav.scp; run stage 0 again or remove the line"),
    ({"text": "ann-1 YES\nann-2 \nx-1 NO\n"},
     "text:2: ann-2 has no transcript; complete the line or remove ann-2"),
    ({"text": "ann-1 YES\n\nann-2 GO\nx-1 NO\n"}, "text:2: the line is blank; remove it"),
    ({"text": b"ann-1 YES\nann-2 GO \xff\nx-1 NO\n"}, "text:2: byte 10 is not UTF-8; convert the file to UTF-8"),
    ({"wav_scp": "ann-1 a1.wav\nann-2 sph2pipe a2.sph |\nx-1 b1.wav\n"},
     "wav.scp:2: 'sph2pipe a2.sph |' is a shell command, which is never run (only `sph2pipe -f wav [-p] [-c CHANNEL] "
     "FILE |` is understood); write its output to an audio file and name that"),
    ({"wav_scp": "ann-1 a1.wav\nann-2 sph2pipe -f wav $(touch evil) |\nx-1 b1.wav\n"},
     "wav.scp:2: 'sph2pipe -f wav $(touch evil) |' is a shell command, which is never run (only `sph2pipe -f wav [-p] "
     "[-c CHANNEL] FILE |` is understood); write its output to an audio file and name that"),
    ({"wav_scp": "ann-1 a1.wav\nann-2 sph2pipe -f wav -p -c 1 a3.sph |\nx-1 b1.wav\n"},
     "wav.scp:2: no audio file a3.sph; restore it or remove ann-2"),
    ({"wav_scp": "ann-1 a1.wav\nann-2 x.ark:12\nx-1 b1.wav\n"},
     "wav.scp:2: no audio file x.ark; restore it or remove ann-2"),
    ({"utt2spk": "ann-1 ann\nann-2 ann lee\nx-1 bob\n"},
     "utt2spk:2: 'ann lee' is not one speaker-id; take out the blanks"),
    ({"spk2utt": "ann ann-1\nbob ann-2 x-1\n"},
     "spk2utt:1: speaker ann has the utterances ann-1 here, but ann-1 ann-2 in utt2spk; make spk2utt from utt2spk "
     "again"),
    ({"spk2utt": "ann ann-1 ann-2\n"},
     "spk2utt:1: speaker bob has the utterances none here, but x-1 in utt2spk; make spk2utt from utt2spk again"),
    ({"utt2dur": "ann-1 1.5\nann-2 0\nx-1 2\n"},
     "utt2dur:2: the duration of ann-2 is '0', which is not a positive number of seconds; run stage 0 again"),
    ({"utt2dur": "ann-1 1.5\nann-2 nan\nx-1 2\n"},
     "utt2dur:2: the duration of ann-2 is 'nan', which is not a positive number of seconds; run stage 0 again"),
    ({"utt2dur": "ann-1 1.5\nann-2 1\n"},
     "text:3: utterance x-1 has no duration in utt2dur; run stage 0 again or remove the line"),
    ({"wav_scp": "r a1.wav\n", "segments": "ann-1 r 0 1\nann-2 r 2 1.5\nx-1 r 3 4\n"},
     "segments:2: expected a recording and 0 <= start < end in seconds, or the end -1 for the recording's, found "
     "'r 2 1.5'; mend or remove the segment"),
    ({"wav_scp": "r a1.wav\n", "segments": "ann-1 r 0 1\nann-2 r one 2\nx-1 r 3 4\n"},
     "segments:2: expected a recording and 0 <= start < end in seconds, or the end -1 for the recording's, found "
     "'r one 2'; mend or remove the segment"),
    ({"wav_scp": "r a1.wav\n", "segments": "ann-1 r 0 1\nann-2 q 1 2\nx-1 r 3 4\n"},
     "segments:2: recording q is not in wav.scp; add it or remove ann-2"),
    ({"wav_scp": "r a1.wav\n", "segments": "ann-1 r 0 1\nann-2 r -1 -1\nx-1 r 3 4\n"},
     "segments:2: expected a recording and 0 <= start < end in seconds, or the end -1 for the recording's, found "
     "'r -1 -1'; mend or remove the segment"),
    ({"text": "ann-1 YES\nann-2 GO\n\ufeffx-1 NO\n"},
     "wav.scp:3: utterance x-1 (U+0078 U+002D U+0031, which looks like \ufeffx-1, U+FEFF U+0078 U+002D U+0031) has no "
     "transcript in text; run stage 0 again or remove the line"),
])
def test_a_fault_is_reported_with_file_line_and_remedy(make_dir, replaced, problem):
    assert problem in problems_of(make_dir(**replaced))


def test_a_segment_may_end_at_minus_one_which_is_the_recordings_end(make_dir):
    directory = make_dir(wav_scp="r a1.wav\n", segments="ann-1 r 0 -1\nann-2 r 1.5 -1.0\nx-1 r 2.25 3\n")
    assert [(u.start, u.end) for u in read_data_dir(directory)] == [(0.0, None), (1.5, None), (2.25, 3.0)]


def test_recordings_without_a_segment_are_counted_in_the_log_once(make_dir, caplog):
    caplog.set_level(logging.INFO)
    directory = make_dir(wav_scp="q a2.wav\nr a1.wav\ns a2.wav\n", segments="ann-1 r 0 1\nann-2 r 1 2\nx-1 r 3 4\n")
    assert [len(read_data_dir(directory)) for _ in range(2)] == [3, 3]
    assert caplog.messages == [f"{directory}/wav.scp: no segment is cut from 2 of 3 recordings, such as q; they are "
                               "not used"]


def test_without_spk2utt_the_speakers_are_those_of_utt2spk(make_dir):
    assert [u.speaker for u in read_data_dir(make_dir(spk2utt=None))] == ["ann", "ann", "bob"]


@pytest.mark.parametrize("name", GOOD)
def test_a_byte_order_mark_at_a_files_beginning_is_no_part_of_its_text(make_dir, name):
    directory = make_dir(**{name: b"\xef\xbb\xbf" + GOOD[name].encode()})
    assert [u.id for u in read_data_dir(directory)] == ["ann-1", "ann-2", "x-1"]


def test_only_ascii_white_space_separates_words_and_only_a_newline_ends_a_line(make_dir):
    text = "ann-1 A\u00a0B\tC\x0bD\r\nann-2 E\u2028F\rG\nx-1 H\x85I J\x1cK\n"
    assert [u.words for u in read_data_dir(make_dir(text=text))] == [
        ("A\u00a0B", "C", "D"), ("E\u2028F", "G"), ("H\x85I", "J\x1cK")]


def test_where_transcripts_are_not_asked_for_their_file_may_be_missing_and_is_not_read(make_dir):
    for text in (None, "nobody YES\n"):
        assert [(u.id, u.speaker, u.words) for u in read_data_dir(make_dir(text=text), transcribed=False)] == [
            ("ann-1", "ann", ()), ("ann-2", "ann", ()), ("x-1", "bob", ())]
    with pytest.raises(ValueError, match="utt2spk:3: utterance x-1 has no audio in wav.scp"):
        read_data_dir(make_dir(text=None, wav_scp="ann-1 a1.wav\nann-2 a2.wav\n"), transcribed=False)


def test_a_missing_and_an_empty_file_are_two_problems_and_no_more(make_dir):
    assert len(problems_of(make_dir(text=None, utt2spk=""))) == 2


def test_an_audio_file_that_is_not_there_is_named_with_its_line(make_dir):
    directory = make_dir()
    (directory / "a2.wav").unlink()
    assert problems_of(directory) == [
        "wav.scp:2: no audio file a2.wav; restore it or remove ann-2"
    ]


def test_audio_is_not_looked_for_where_it_is_not_asked_for(make_dir):
    directory = make_dir()
    (directory / "a2.wav").unlink()
    assert [u.words for u in read_data_dir(directory, audio=False)] == [("YES",), ("GO", "ON"), ("NO",)]
    with pytest.raises(ValueError, match="wav.scp:2: 'cat a2.wav |' is a shell command"):
        read_data_dir(make_dir(wav_scp="ann-1 a1.wav\nann-2 cat a2.wav |\nx-1 b1.wav\n"), audio=False)


def test_of_a_sph2pipe_pipe_the_file_itself_is_read_and_its_channel(make_dir):
    for pipe, channel in (("sph2pipe -f wav a2.wav |", None), ("/opt/kaldi/sph2pipe -f wav -p a2.wav |", None),
                          ("../sph2pipe  -f wav -p -c 2 a2.wav|", 1), ("sph2pipe -f wav -c 1 -p a2.wav |", 0)):
        directory = make_dir(wav_scp=f"ann-1 a1.wav\nann-2 {pipe}\nx-1 b1.wav\n")
        assert [(u.audio, u.channel) for u in read_data_dir(directory)] == [
            (directory / "a1.wav", None), (directory / "a2.wav", channel), (directory / "b1.wav", None)]


def test_a_byte_of_kaldis_wav_archive_is_told_from_its_path(make_dir):
    directory = make_dir(wav_scp="ann-1 a1.wav:6\nann-2 a1.wav:16018\nx-1 b1.wav\n")
    assert [(u.audio.name, u.offset) for u in read_data_dir(directory)] == [
        ("a1.wav", 6), ("a1.wav", 16018), ("b1.wav", None)]


def test_ten_problems_are_spelt_out_and_the_others_counted(make_dir):
    problems = problems_of(make_dir(text=GOOD["text"] + "".join(f"y-{n:02} NO\n" for n in range(12))))
    assert problems[9].startswith("text:13: utterance y-09 has no audio")
    assert sum(line.startswith("text:") for line in problems) == 10
    assert problems[10:] == ["... and 14 more problems"]  # 12 without audio, and the same 12 without a speaker


def test_order_is_that_of_bytes_not_of_letters(make_dir):
    # In the C locale B (0x42) is before a (0x61), and both before e with an acute accent (0xC3 0xA9).
    table = "B {0}\na {0}\n\u00e9 {0}\n"
    directory = make_dir(wav_scp=table.format("a1.wav"), text=table.format("YES"), utt2spk=table.format("s"),
                         spk2utt="s B a \u00e9\n")
    assert [utterance.id for utterance in read_data_dir(directory)] == ["B", "a", "\u00e9"]


def write_wav(path: Path, seconds: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(8000 * seconds)), 8000)
    return path


def test_what_is_written_is_sorted_and_reads_back_the_same(tmp_path):
    audio = write_wav(tmp_path / "wav" / "a.wav", 0.5)
    written = [Utterance("b-1", "b", audio, ("NO",)), Utterance("a-1", "a", audio, ("GO", "ON"))]
    write_data_dir(tmp_path / "train", written)
    assert (tmp_path / "train/utt2dur").read_text() == "a-1 0.5\nb-1 0.5\n"
    assert (tmp_path / "train/wav.scp").read_text() == "a-1 ../wav/a.wav\nb-1 ../wav/a.wav\n"
    assert [(u.id, u.words, u.audio.resolve()) for u in read_data_dir(tmp_path / "train")] == [
        ("a-1", ("GO", "ON"), audio), ("b-1", ("NO",), audio)
    ]


def test_a_folder_of_data_and_audio_can_be_moved(tmp_path):
    audio = write_wav(tmp_path / "first" / "a.wav", 0.5)
    write_data_dir(tmp_path / "first" / "train", [Utterance("a-1", "a", audio, ("NO",))])
    (tmp_path / "first").rename(tmp_path / "second")
    assert read_data_dir(tmp_path / "second" / "train")[0].audio.resolve() == tmp_path / "second" / "a.wav"


def test_audio_beside_the_data_directories_can_be_moved_with_them_where_that_is_said(tmp_path):
    audio = write_wav(tmp_path / "exp" / "corpus" / "a.wav", 0.5)
    write_data_dir(tmp_path / "exp/data/train", [Utterance("a-1", "a", audio, ("NO",))], movable=tmp_path / "exp")
    assert (tmp_path / "exp/data/train/wav.scp").read_text() == "a-1 ../../corpus/a.wav\n"
    (tmp_path / "exp").rename(tmp_path / "moved")
    [utterance] = read_data_dir(tmp_path / "moved/data/train")
    assert utterance.audio.resolve() == tmp_path / "moved/corpus/a.wav"


def test_channels_and_archives_are_written_as_they_are_read(tmp_path):
    audio = write_wav(tmp_path / "a.wav", 2)
    (tmp_path / "x.ark").write_bytes(b"a " + audio.read_bytes() + b"b " + audio.read_bytes())
    written = [Utterance("a-1", "a", audio, ("NO",), 0.0, 1.0, channel=0),
               Utterance("a-2", "a", audio, ("NO",), 1.0, 2.0, channel=1),
               *(Utterance(f"a-{i}", "a", tmp_path / "x.ark", ("NO",), 1.0, 2.0, offset=offset)
                 for i, offset in ((3, 2), (4, 32048)))]
    write_data_dir(tmp_path / "train", written)
    assert (tmp_path / "train/wav.scp").read_text() == (
        "a-1 sph2pipe -f wav -p -c 1 ../a.wav |\na-2 sph2pipe -f wav -p -c 2 ../a.wav |\n"
        "a-3 ../x.ark:2\na-4 ../x.ark:32048\n")
    assert [(u.channel, u.offset) for u in read_data_dir(tmp_path / "train")] == [
        (0, None), (1, None), (None, 2), (None, 32048)]


@pytest.mark.parametrize("times", [(None, None), (0.0, 0.5)])
def test_all_audio_files_that_cannot_be_used_are_named_at_once(tmp_path, caplog, times):
    written = [Utterance(f"a-{i}", "a", write_wav(tmp_path / f"{i}.wav", 0.5), ("NO",), *times) for i in range(4)]
    (tmp_path / "1.wav").write_bytes((tmp_path / "1.wav").read_bytes()[:999])
    (tmp_path / "2.wav").unlink()
    with pytest.raises(ValueError, match="train: 2 of 4 audio files cannot be used; .* the first is .*1.wav: empty or"):
        write_data_dir(tmp_path / "train", written)
    assert [re.search(r"\d.wav: \w+ \w+", record.getMessage())[0] for record in caplog.records] == [
        "1.wav: empty or", "2.wav: no such"]
    assert not (tmp_path / "train").exists()


def test_audio_elsewhere_is_written_with_its_absolute_path(tmp_path):
    audio = write_wav(tmp_path / "corpus" / "a.wav", 0.5)
    write_data_dir(tmp_path / "data" / "train", [Utterance("a-1", "a", audio, ("NO",))])
    assert read_data_dir(tmp_path / "data" / "train")[0].audio == audio


def test_segments_of_a_recording_are_written_and_read_back(tmp_path):
    audio = write_wav(tmp_path / "a.wav", 2)
    written = [Utterance("a-1", "a", audio, ("NO",), 0.1, 0.75), Utterance("a-2", "a", audio, ("GO",), 1.0, 2.0)]
    write_data_dir(tmp_path / "train", written)
    assert (tmp_path / "train/wav.scp").read_text() == "a-1 ../a.wav\n"
    assert [(u.start, u.end) for u in read_data_dir(tmp_path / "train")] == [(0.1, 0.75), (1.0, 2.0)]


def test_a_segment_to_the_recordings_end_is_written_and_read_back(tmp_path):
    audio = write_wav(tmp_path / "a.wav", 2)
    write_data_dir(tmp_path / "train", [Utterance("a-1", "a", audio, ("NO",), 0.5)])
    assert (tmp_path / "train/segments").read_text() == "a-1 a-1 0.5 -1\n"
    assert (tmp_path / "train/utt2dur").read_text() == "a-1 1.5\n"
    assert [(u.start, u.end) for u in read_data_dir(tmp_path / "train")] == [(0.5, None)]


def test_words_with_white_space_of_unicode_are_read_back_the_same(tmp_path):
    words = ("A\u00a0B", "C\u2028D", "E\x85F", "G\x1dH")
    write_data_dir(tmp_path / "train", [Utterance("a\u00a01", "s\u2029", write_wav(tmp_path / "a.wav", 1), words)])
    assert [(u.id, u.speaker, u.words) for u in read_data_dir(tmp_path / "train")] == [("a\u00a01", "s\u2029", words)]


@pytest.mark.parametrize(("key", "speaker", "word"), [("a 1", "s", "NO"), ("a", "", "NO"), ("a", "s", "N\nO"),
                                                      ("a", "s", "N\x0cO"), ("\ufeffa", "s", "NO")])
def test_what_would_not_be_read_back_as_one_word_is_not_written(tmp_path, key, speaker, word):
    audio = write_wav(tmp_path / "a.wav", 1)
    with pytest.raises(ValueError, match="would not be read back as one word"):
        write_data_dir(tmp_path / "train", [Utterance(key, speaker, audio, (word,))])


@pytest.mark.parametrize(("utterances", "message"), [
    ([], "there are no utterances"),
    ([("a", None, None), ("a", None, None)], "two utterances have the id a"),
    ([("a", 0.0, 1.0), ("b", None, None)], "all utterances a start, with or without an end, or none"),
    ([("a", None, 1.0)], "all utterances a start, with or without an end, or none"),
])
def test_utterances_that_make_no_data_directory_are_refused(tmp_path, utterances, message):
    audio = write_wav(tmp_path / "a.wav", 2)
    with pytest.raises(ValueError, match=message):
        write_data_dir(tmp_path / "train", [Utterance(key, "s", audio, ("NO",), *times) for key, *times in utterances])


def test_a_speaker_in_two_splits_is_named():
    def said_by(*speakers):
        return [Utterance(f"{speaker}-1", speaker, Path("a.wav"), ("NO",)) for speaker in speakers]

    check_disjoint_speakers({"train": said_by("ann", "ann", "bob"), "dev": said_by("cid")})
    with pytest.raises(ValueError, match=r"more than one split: bob \(test, train\);"):
        check_disjoint_speakers({"train": said_by("ann", "bob"), "test": said_by("bob", "cid")})
