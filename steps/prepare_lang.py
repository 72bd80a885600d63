"""Stage 1: the lexicon, checked against the transcripts, and the language model: the corpus's own, or an estimate."""

from decant.feat.data_dir import read_data_dir
from decant.lang.language_model import LanguageModelConfig, estimate_ngram, perplexity, read_arpa, write_arpa
from decant.lang.lexicon import UNKNOWN_WORD, LexiconConfig, position_dependent, read_lexicon, write_lexicon
from decant.lang.vocabulary import check_unknown, cover_words, known_words
from decant.text import read_lines
from steps.stage_program import Stage, logger, run_step


def main(stage: Stage) -> None:
    config, phones = stage.config(language_model=LanguageModelConfig, lexicon=LexiconConfig)
    experiment, data = stage.experiment, stage.experiment.folder("data")
    utterances = {split: read_data_dir(experiment.data(split), audio=False)
                  for split in experiment.splits("data")}
    _, *others = utterances
    with_probabilities = data / "lexiconp.txt"
    lexicon = read_lexicon(with_probabilities if with_probabilities.exists() else data / "lexicon.txt")
    lexicon = cover_words(lexicon, utterances["train"], data / "train" / "text", phones)
    for split in others:
        check_unknown(lexicon, utterances[split], data / split / "text", phones)
    write_lexicon(position_dependent(lexicon) if phones.position_dependent_phones else lexicon,
                  experiment.lexicon)
    if (data / "lm.arpa").exists():
        model = read_arpa(data / "lm.arpa")
        logger.info("the corpus's own language model, order %d", model.order)
    else:
        text = data / "lm_text" if (data / "lm_text").exists() else None
        sentences = [words for _, words in read_lines(text)] if text else [u.words for u in utterances["train"]]
        if phones.unknown_words == "spoken_noise":
            sentences = [known_words(words, lexicon) for words in sentences]
            logger.info("language model: %d of its words are %s", sum(words.count(UNKNOWN_WORD) for words in sentences),
                        UNKNOWN_WORD)
        model = estimate_ngram(sentences, config.order, lexicon.pronunciations)
        logger.info("%d-gram estimated from %d sentences of %s", config.order, len(sentences), text or "train/text")
    write_arpa(model, experiment.language_model)
    for split in others:
        value, unknown = perplexity(model, [utterance.words for utterance in utterances[split]])
        logger.info("%s: perplexity %.1f, %d words out of the vocabulary", split, value, unknown)


if __name__ == "__main__":
    run_step(main)
