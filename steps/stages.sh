# The stages that all recipes share, by number; recipes/<corpus>/run.sh comes to them after its own.
#
#   stage NUMBER NAME [--reads STAGE ...] [--reads-if-there STAGE ...] [--config TABLE ...] [--show FILE ...]
#         [--by-engine] [--by-processes] -- PROGRAM
#
# runs PROGRAM unless the stage is done: it finds the named stages' folders in the experiment folder and the named
# tables of the config in its own, which takes its name when the program has succeeded. Docs: steps/stage.py.
#
# A recipe leaves stages out by a line before this file's, with their numbers: SKIP_STAGES="8 9 10 11". The others keep
# theirs. A stage may be left out if all that read it are left out too, or name it after --reads-if-there: 11; 10 and 11;
# 8 to 11 (networks but no ensemble, or the students that learn from it); 7 to 11 (Gaussian mixtures alone).

# Lexicon and language model: lexicon.txt, lm.arpa
# Kneser-Ney smoothing: decant/lang/kneser_ney.py; entropy pruning: pruning.py
stage 1 lang --reads data --config lexicon language_model -- steps/prepare_lang.py

# Filterbanks of every split: SPLIT/feats.scp, cmvn.scp, fbank.toml, unusable.txt
# Log-mel frames and their normalisation: decant/feat/fbank.py
stage 2 fbank --reads data --config fbank utterances -- steps/compute_fbank.py

# Monophone HMM with Gaussian mixtures, from a flat start: gmm.safetensors, transitions.json, tree.json
# Viterbi training: decant/hmm/gmm_training.py; the mixtures: decant/hmm/gmm.py; the HMM: decant/hmm/topology.py
stage 3 monophone --reads data lang fbank --config hmm monophone -- steps/train_monophone.py

# Tied triphone states: models.json names its systems (none without state_tying.num_leaves), a folder each
# The systems: decant/hmm/tied_training.py; the tree: state_tying.py; decant/feat/lda_mllt.py, fmllr.py
stage 4 tied --reads data lang fbank monophone --config lexicon state_tying triphone -- steps/train_triphone.py

# Decoding graphs, one for each system of Gaussian mixtures: HCLG.fst, words.txt
# Composition and self-loops: decant/search/decoding_graph.py
stage 5 graph --reads lang monophone tied -- steps/make_graph.py

# Hard labels, a pdf-id a frame: SPLIT/ali.scp, the frame stores SPLIT/{frames,offsets,pdfs}.npy, SPLIT/fmllr.scp of
# an adapted system, network_1 ... that aligned again; perturbed/: train at other speeds, which train's store has too
# Viterbi: decant/hmm/alignment.py; speakers: decant/search/adaptation.py; networks: decant/distill/realignment.py
stage 6 alignment --reads data lang fbank monophone tied graph \
  --config utterances adaptation frames realignment --by-engine -- steps/align.py

# The baseline acoustic model, which is the ensemble's first member: model.safetensors, config.toml, history.json
# The network: decant/nnet/acoustic_model.py; its loss: losses.py; gradient descent: training.py
stage 7 baseline --reads fbank alignment --config acoustic_model training --by-processes -- steps/train_baseline.py

# The other members, which differ in their seed alone: member_02 ... member_10
# Their mean: decant/distill/ensemble.py
stage 8 ensemble --reads fbank alignment --config acoustic_model training ensemble \
  --by-processes -- steps/train_ensemble.py

# The ensemble's most probable states on the training frames, for every temperature: pass_<p>/shard_<i>.npy; those of
# audio without transcripts too, if soft_targets.unlabelled names some: frames/
# Softened distributions: decant/distill/soft_targets.py; mixtures of frames: mixing.py
stage 9 soft_targets --reads data lang fbank monophone tied graph alignment baseline ensemble \
  --config utterances adaptation frames ensemble soft_targets --by-engine --by-processes -- steps/make_soft_targets.py

# One student a temperature, and for the temperature that dev chose one more for each further seed
# What it learns: decant/distill/students.py; the loss: decant/nnet/losses.py, distillation_loss
stage 10 students --reads fbank alignment baseline ensemble soft_targets \
  --config acoustic_model ensemble soft_targets distillation student_training \
  --by-processes -- steps/train_students.py

# Networks on a small share of the training utterances, by hard labels and by the baseline's soft targets
# The draws: decant/distill/regularization.py; the loss: decant/nnet/losses.py
stage 11 regularization --reads fbank alignment baseline \
  --config acoustic_model regularization hard_regularization_training soft_regularization_training \
  --by-processes -- steps/train_regularized.py

# Every system on dev and the test sets: decoded with what dev chose; results.json, regularization.json
# Log-posteriors: decant/distill/scorer.py; search: decant/search/beam_search.py; tuning: decant/score/evaluation.py;
# word errors and their interval: scoring.py
stage 13 score --reads data lang fbank monophone tied alignment graph \
  --reads-if-there baseline ensemble students regularization \
  --config ensemble soft_targets distillation regularization search scoring --show results.json \
  --by-engine -- steps/decode_and_score.py

# The tables: RESULTS.md
# Retained gain: decant/score/results.py; what soft targets recover: regularization_results.py
stage 14 report --reads alignment score -- steps/report.py
