"""Stage 1: the lexicon, checked against the transcripts, and the language model: the corpus's own, or an estimate."""

from decant.feat.data_dir import read_data_dir
from decant.lang.language_model import LanguageModelConfig, estimate_ngram, perplexity, read_arpa, write_arpa
from decant.lang.lexicon import LexiconConfig, check_words, position_dependent, read_lexicon, write_lexicon
from steps.common import Stage, logger, run_step


def main(stage: Stage) -> None:
    config, phones = stage.config(language_model=LanguageModelConfig, lexicon=LexiconConfig)
    data = stage.experiment.folder("data")
    lexicon = read_lexicon(data / "lexicon.txt")
    check_words(lexicon, read_data_dir(data / "train"), data / "train" / "text")
    write_lexicon(position_dependent(lexicon) if phones.position_dependent_phones else lexicon,
                  stage.experiment.lexicon)
    if (data / "lm.arpa").exists():
        model = read_arpa(data / "lm.arpa")
        logger.info("the corpus's own language model, order %d", model.order)
    else:
        text = data / "lm_text" if (data / "lm_text").exists() else None
        sentences = ([line.split() for line in text.read_text(encoding="utf-8").splitlines()] if text else
                     [list(utterance.words) for utterance in read_data_dir(data / "train")])
        model = estimate_ngram(sentences, config.order, lexicon.pronunciations)
        logger.info("%d-gram estimated from %d sentences of %s", config.order, len(sentences), text or "train/text")
    write_arpa(model, stage.experiment.language_model)
    for split in stage.experiment.splits("data")[1:]:
        value, unknown = perplexity(model, [utterance.words for utterance in read_data_dir(data / split)])
        logger.info("%s: perplexity %.1f, %d words out of the vocabulary", split, value, unknown)


if __name__ == "__main__":
    run_step(main)
