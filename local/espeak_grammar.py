"""The small language that the espeak recipe speaks: a context-free grammar, drawn from at random.

The alternatives of a rule are equally likely, so one that stands twice is twice as likely. Lower-case tokens
name rules, upper-case ones are spoken. A token may end in `.` (a letter's name: `A.` is never the article) or
in `,` (a pause after it); neither mark is part of the word that a transcript shows.
"""

import numpy as np

_RULES = """
sentence: spelling | spelling | digits | digits | date | date | command | command | request | request |
  statement | statement | statement
spelling: name | name | MY NAME IS, name | THE CODE IS, code |
  syllable syllable, syllable onset E. R. STREET
name: syllable syllable | syllable syllable, name_end | onset vowel onset vowel, name_end
name_end: M. A. N. | S. O. N. | onset E. R. | syllable | L. E. Y. | onset I. onset O. | F. O. R. D.
syllable: onset vowel coda | onset vowel coda | vowel coda
onset: B. | C. | D. | F. | G. | H. | J. | K. | L. | M. | N. | P. | Q. U. | R. | S. | T. | V. | W. | Y. | Z. |
  B. R. | C. H. | G. R. | S. T. | S. C. H. | T. H. | C. L.
vowel: A. | E. | I. | O. | U. | E. A. | O. O. | A. I.
coda: B. | C. K. | D. | F. F. | G. | L. L. | M. | N. | N. D. | N. T. | P. | R. | R. T. | S. S. | S. | T. |
  V. E. | X. | Z. | Y.
letter: A. | B. | C. | D. | E. | F. | G. | H. | I. | J. | K. | L. | M. | N. | O. | P. | Q. | R. | S. | T. |
  U. | V. | W. | X. | Y. | Z.
code: letter letter, digit digit | letter digit letter | letter letter letter, digit digit digit |
  letter, two_digits

digit: ZERO | ONE | TWO | THREE | FOUR | FIVE | SIX | SEVEN | EIGHT | NINE
two_digits: teen | tens | tens one_to_nine
one_to_nine: ONE | TWO | THREE | FOUR | FIVE | SIX | SEVEN | EIGHT | NINE
teen: TEN | ELEVEN | TWELVE | THIRTEEN | FOURTEEN | FIFTEEN | SIXTEEN | SEVENTEEN | EIGHTEEN | NINETEEN
tens: TWENTY | THIRTY | FORTY | FIFTY | SIXTY | SEVENTY | EIGHTY | NINETY
small_number: one_to_nine | two_digits
digits: digit digit digit digit digit | digit digit digit, digit digit digit digit |
  MY NUMBER IS, three_digits, digit digit | three_digits, three_digits, three_digits digit |
  CALL three_digits, three_digits digit | small_number HUNDRED
three_digits: digit digit digit

date: month ordinal, year | month ordinal | THE ordinal OF month | weekday, month ordinal |
  weekday, THE ordinal OF month
month: JANUARY | FEBRUARY | MARCH | APRIL | MAY | JUNE | JULY | AUGUST | SEPTEMBER | OCTOBER | NOVEMBER |
  DECEMBER
weekday: MONDAY | TUESDAY | WEDNESDAY | THURSDAY | FRIDAY | SATURDAY | SUNDAY
ordinal: unit_ordinal | unit_ordinal | TWENTY unit_ordinal | THIRTY FIRST | TWENTIETH | THIRTIETH | TENTH |
  ELEVENTH | TWELFTH | THIRTEENTH | FOURTEENTH | FIFTEENTH | SIXTEENTH | SEVENTEENTH | EIGHTEENTH |
  NINETEENTH
unit_ordinal: FIRST | SECOND | THIRD | FOURTH | FIFTH | SIXTH | SEVENTH | EIGHTH | NINTH
year: NINETEEN two_digits | NINETEEN tens one_to_nine | TWO THOUSAND small_number | TWENTY teen |
  EIGHTEEN two_digits

command: GO | STOP | HELP | YES | NO | START | REPEAT | ENTER small_number | ENTER digit digit, digit |
  ERASE code | RUBOUT code | REPEAT THE LAST thing | GO BACK small_number PAGES | ERASE THE thing |
  OPEN THE thing | CLOSE THE thing | SAVE THE thing AND STOP | SCROLL direction |
  SCROLL direction small_number LINES | NO, GO direction
thing: WORD | LINE | PAGE | FILE | WINDOW | LETTER | MESSAGE | PICTURE | DOOR
direction: UP | DOWN | LEFT | RIGHT

request: TURN switch THE device | TURN switch THE device IN THE room | PLEASE TURN switch THE room device |
  SET THE device TO small_number | CALL ME AT hour | WAKE ME UP AT hour, ON weekday |
  PLAY style MUSIC IN THE room | HOW FAR IS IT TO THE place | HOW DO I GET TO THE place FROM HERE |
  WHERE IS THE NEXT place | WHAT IS THE WEATHER when | TELL person THAT I AM LATE |
  SEND THE thing TO person, PLEASE | I NEED A TABLE FOR one_to_nine when | BUY two_digits food AND tens food
switch: ON | OFF | ON | OFF | UP | DOWN
device: LIGHT | RADIO | HEATING | FAN | ALARM | MUSIC
room: KITCHEN | BEDROOM | GARDEN | OFFICE | BATHROOM | HALL
hour: one_to_nine | one_to_nine tens | HALF PAST one_to_nine | A QUARTER TO one_to_nine | NOON |
  TEN IN THE MORNING
style: JAZZ | ROCK | SOFT | LOUD | PIANO
place: STATION | HOSPITAL | LIBRARY | AIRPORT | BEACH | MARKET | SCHOOL | BANK | RIVER | BRIDGE
when: TODAY | TOMORROW | TONIGHT | ON weekday | THIS EVENING | NEXT WEEK
person: MY BROTHER | MY SISTER | THE DOCTOR | MY MOTHER | MY FATHER | THE TEACHER | MISTER BROWN | MARY |
  PETER | ANNA
food: APPLES | EGGS | ORANGES | POTATOES | BOTTLES OF WATER | LOAVES OF BREAD | CUPS OF TEA

statement: person verb_past THE adjective noun | THE adjective noun verb_past person |
  THE noun IS TOO adjective | person WENT TO THE place when_past | WE WILL MEET person AT THE place when |
  THEY verb_past small_number adjective nouns | person HAS tens nouns AND A noun |
  THE adjective nouns ARE IN THE room | I verb_past THE noun when_past |
  THERE ARE small_number nouns ON THE furniture | THE noun WAS UNDER THE furniture, AND person WAS mood
verb_past: FOUND | LOST | SAW | FOLLOWED | LIKED | PAINTED | WATCHED | CARRIED | MOVED
adjective: BIG | SMALL | OLD | YOUNG | GREEN | BLUE | YELLOW | WHITE | BLACK | HEAVY | QUICK | QUIET |
  STRANGE
noun: DOG | CAT | HORSE | BIRD | FISH | BOY | GIRL | BOAT | CHAIR | BOX | KEY | CLOCK | SHOE | HAT
nouns: DOGS | CATS | HORSES | BIRDS | BOYS | GIRLS | BOATS | CHAIRS | BOXES | KEYS | CLOCKS | SHOES
when_past: YESTERDAY | LAST NIGHT | LAST weekday | TWO DAYS AGO | THIS MORNING | IN month
furniture: TABLE | BED | SHELF | DESK | FLOOR
mood: HAPPY | ANGRY | TIRED | SURPRISED | GLAD
"""

# Spellings that make eSpeak say what the CMU dictionary means, in all of its English accents: the letter A,
# not the article; zee, not zed; rubout with the vowel of cut; erase with an S.
_SPELLINGS = {"A.": "eigh", "I.": "eye", "Z.": "zee", "RUBOUT": "rubbout", "ERASE": "erace"}


def _parse(rules: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The alternatives of each rule, as tuples of tokens. An indented line continues the one above."""
    lines = rules.replace("\n ", " ").split("\n")
    pairs = [line.split(":") for line in lines if line]
    return {name: tuple(tuple(option.split()) for option in body.split("|")) for name, body in pairs}


RULES = _parse(_RULES)


def vocabulary() -> list[str]:
    """The words of all sentences, sorted."""
    tokens = {token.rstrip(",") for options in RULES.values() for option in options for token in option}
    return sorted({word(token) for token in tokens - RULES.keys()})


def draw_sentence(rng: np.random.Generator, rule: str = "sentence") -> list[str]:
    """The spoken tokens of a random sentence, marks included, as `ERASE B. A., SIX`."""
    tokens = []
    options = RULES[rule]
    for token in options[rng.integers(len(options))]:
        name = token.rstrip(",")
        part = draw_sentence(rng, name) if name in RULES else [name]
        part[-1] += token[len(name):]
        tokens += part
    return tokens


def word(token: str) -> str:
    """What a transcript shows of a token: `A.,` is the word `A`."""
    return token.rstrip(".,")


def spoken_text(tokens: list[str]) -> str:
    """The text from which eSpeak says the tokens."""
    return " ".join(map(_spelling, tokens))


def _spelling(token: str) -> str:
    name = token.rstrip(",")
    return _SPELLINGS.get(name, word(name).lower()) + token[len(name):]
