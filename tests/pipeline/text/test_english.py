import pytest

from pipeline.text.english import find_role, read_english, word_phones
from pipeline.text.english_numbers import cardinal, digits, ordinal, year
from pipeline.text.english_text import normalise


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (21, "twenty-one"),
        (100, "one hundred"),
        (1001, "one thousand one"),
        (1234567, "one million, two hundred thirty-four thousand, five hundred sixty-seven"),
        (-7, "minus seven"),
    ],
)
def test_cardinals_are_spelled(number, words):
    assert cardinal(number) == words


def test_a_number_beyond_the_last_scale_is_read_digit_by_digit():
    assert cardinal(10**36).startswith("one zero zero")
    assert cardinal(10**36 - 1).startswith("nine hundred ninety-nine decillion")


def test_ordinals_change_only_the_last_word():
    assert [ordinal(n) for n in (1, 12, 20, 21, 101)] == [
        "first",
        "twelfth",
        "twentieth",
        "twenty-first",
        "one hundred and first",
    ]


def test_years_are_read_in_pairs():
    assert [year(n) for n in (1905, 1900, 2000, 2005, 2024, 1000)] == [
        "nineteen oh five",
        "nineteen hundred",
        "two thousand",
        "two thousand five",
        "twenty twenty-four",
        "one thousand",
    ]


def test_groups_of_digits_keep_their_pauses():
    assert digits("555-0123", zero="oh") == "five five five, oh one two three"


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("It costs $3.50.", "It costs three dollars and fifty cents."),
        ("$3.5 million", "three point five million dollars"),
        ("£1.01 or 5€", "one pound and one penny or five euros"),
        ("On 2024-03-15.", "On March fifteenth, twenty twenty-four."),
        ("On Nov. 20, 2026", "On November twentieth, twenty twenty-six"),
        ("Sept. 9 or March 3.", "September ninth or March third."),
        ("In May 5 people came", "In May five people came"),
        ("June 45", "June forty-five"),
        ("£3m and $2.5bn", "three million pounds and two point five billion dollars"),
        ("3/15/2024", "March fifteenth, twenty twenty-four"),
        ("at 13:30", "at one thirty P M"),
        ("at 3:05 p.m.", "at three oh five P M."),
        ("at 3:30", "at three thirty"),
        ("the 1990s", "the nineteen nineties"),
        ("1,234,567 people", "one million, two hundred thirty-four thousand, five hundred sixty-seven people"),
        ("20 m² at -5 °C", "twenty square meters at minus five degrees Celsius"),
        ("50% of 3/4", "fifty percent of three fourths"),
        ("pages 3–4", "pages three to four"),
        ("Call 555-123-4567.", "Call five five five, one two three, four five six seven."),
        ("agent 007", "agent zero zero seven"),
        ("Dr. Smith vs. St. James", "doctor Smith versus saint James"),
        ("i.e. this, e.g. that", "that is, this, for example, that"),
        ("U.S. and Ph.D.", "U S and P H D"),
        ("me@example.com", "me at example dot com"),
        ("R&D", "R and D"),
        ("“Don’t,” he said…", "Don't, he said."),
        ("1. First item. In 1990. The end.", "first, First item. In nineteen ninety. The end."),
        ("HELLO WORLD AND GOODBYE", "hello world and goodbye"),
        ("naïve café", "naive cafe"),
        ("GPT-4", "GPT four"),
    ],
)
def test_what_is_written_is_turned_into_what_is_said(written, spoken):
    assert normalise(written) == (spoken, ())


def test_characters_that_cannot_be_read_are_reported_once_and_in_order():
    assert normalise("a 😀 中 😀 b")[1] == ("😀", "中")


def test_a_word_is_looked_up_then_taken_apart_then_predicted(installed):
    installed("en")
    assert word_phones("hello") == ("HH", "AH0", "L", "OW1")
    assert word_phones("openai's") == ("OW1", "P", "AH0", "N", "EY1", "AY1", "Z")
    assert word_phones("xq") == ("EH1", "K", "S", "K", "Y", "UW1")
    assert word_phones("blorptastic") == word_phones("Blorptastic")
    assert len(word_phones("zyxwortle")) >= 4


def test_possessives_follow_the_last_sound(installed):
    installed("en")
    assert word_phones("zorbert's")[-1] == "S"
    assert word_phones("zorbash's")[-2:] == ("AH0", "Z")
    assert word_phones("zorban's")[-1] == "Z"


def test_homographs_look_at_the_word_before(installed):
    installed("en")
    verb, noun = read_english("to record it")[1], read_english("the record is")[1]
    assert verb[2:8] == ["R", "IH0", "K", "AO1", "R", "D"]
    assert noun[2:8] == ["R", "EH1", "K", "ER0", "D", "IH1"]
    assert find_role(["I", "have", "read"], 2) == "participle"


def test_initials_are_spelled_and_acronyms_are_words(installed):
    installed("en")
    assert read_english("the GPT")[1][2:] == ["JH", "IY1", "P", "IY1", "T", "IY1"]
    assert read_english("the NASA")[1][2:] == ["N", "AE1", "S", "AH0"]


def test_a_very_long_word_is_read_in_parts(installed):
    installed("en")
    assert len(read_english("ab" * 500)[1]) > 100
