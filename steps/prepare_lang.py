"""Stage 1: the lexicon, checked against the transcripts, and the language model: the corpus's own, or an estimate."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from decant.feat.data_dir import read_data_dir
from decant.lang.g2p import with_g2p, write_g2p
from decant.lang.language_model import LanguageModelConfig, estimate_ngram, perplexity, read_arpa, write_arpa
from decant.lang.lexicon import LexiconConfig, position_dependent, read_lexicon, write_lexicon
from decant.lang.pruning import pruned
from decant.lang.vocabulary import check_unknown, counted_known_words, cover_words
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
    if phones.unknown_words == "g2p":
        check_unknown(lexicon, utterances["train"], data / "train" / "text", phones)
        # Words of train and of the language model alone: to know those of dev and test would be to peep.
        spoken = (word for utterance in utterances["train"] for word in utterance.words)
        lexicon, made = with_g2p(lexicon, chain(spoken, language_model_words(data)))
        write_g2p(made, experiment.g2p)
    lexicon = cover_words(lexicon, utterances["train"], data / "train" / "text", phones)
    for split in others:
        check_unknown(lexicon, utterances[split], data / split / "text", phones)
    write_lexicon(position_dependent(lexicon) if phones.position_dependent_phones else lexicon,
                  experiment.lexicon)
    if (data / "lm.arpa").exists():
        model = read_arpa(data / "lm.arpa")
        logger.info("the corpus's own language model, order %d", model.order)
    else:
        text = data / "lm_text" if (data / "lm_text").exists() else data / "train" / "text"
        sentences: Iterable[Sequence[str]] = (words for _, words in read_lines(text)) if text.name == "lm_text" else \
            (utterance.words for utterance in utterances["train"])
        if phones.unknown_words != "refuse":
            sentences = counted_known_words(sentences, lexicon)
        model = estimate_ngram(sentences, config.order, lexicon.pronunciations)
        logger.info("%d-gram estimated from %s", config.order, text)
    if config.prune_threshold or config.max_ngrams:
        whole, model = model, pruned(model, config.prune_threshold, config.max_ngrams)
        logger.info("language model: %d of %d n-grams after pruning", model.num_ngrams, whole.num_ngrams)
        write_arpa(whole, experiment.whole_language_model)
    write_arpa(model, experiment.language_model)
    for split in others:
        value, unknown = perplexity(model, [utterance.words for utterance in utterances[split]])
        logger.info("%s: perplexity %.1f, %d words out of the vocabulary", split, value, unknown)


def language_model_words(data: Path) -> Iterator[str]:
    """The words of the corpus's own language model or of its text, if it has one of these."""
    if (data / "lm.arpa").exists():
        yield from read_arpa(data / "lm.arpa").words
    elif (data / "lm_text").exists():
        yield from (word for _, words in read_lines(data / "lm_text") for word in words)


if __name__ == "__main__":
    run_step(main)
