"""What the page says while it runs, in Chinese."""

import string

import pytest
from sentences import sentences

from page.chinese_messages import CHINESE_MESSAGES
from page.components import file_name
from page.errors import counted_from_one
from page.messages import in_chinese, in_plain_words, is_chinese, words_for

# Sentences that visitors cannot get to see: only Python code can make these mistakes, or `in_chinese` sees
# them with more words around them
ENGLISH_ONLY = {
    "{}, not {}.",
    "{}; make room, or set HF_HOME to another folder.",
    "A frame must be an array of H x W x 3 bytes, not {} of {}.",
    "There is no preset called {}: choose from {}.",
    "The coefficients are an array of shape {}: give {} numbers, or values by their ARKit names.",
    "Emotion codes and embeddings of face parts are needed of both the reference and the driver, or of "
    "neither.",
    "Guidance over an emotion code needs negative_emotion: pass that of a black picture.",
    "The {} picture is of type {}: give a path, a PIL picture or a numpy array.",
    "The {} picture is an array of shape {}: give height x width x 3.",
    "The {} picture is an array of {}: give bytes (uint8), or floats from 0 to 1.",
    "The {} picture holds values that are not numbers: give bytes, or floats from 0 to 1.",
    "The {} picture holds floats from {} to {}: give floats from 0 to 1, or bytes.",
    "{} has {} attention, and this config asks for the other.",
    "This release sees the reference with its own pose and expression: pass its conditions.",
    "The pipeline was given no expression: pass {}.",
    "There is no reference picture yet: set one first.",
    "A model is named by a text, not {}: give a path or the id of a repository.",
}


def test_every_sentence_of_an_error_has_a_chinese_form():
    """If this fails, add the sentence to page/chinese_messages.py."""
    found = dict(sentences())
    missing = {
        f"{place}: {template}"
        for template, place in found.items()
        if template not in ENGLISH_ONLY
        and in_chinese(template.replace("{}", "7")) == template.replace("{}", "7")
    }
    assert not missing
    assert ENGLISH_ONLY <= set(found)
    assert len(found) > 140  # the source was searched


@pytest.mark.parametrize("english", CHINESE_MESSAGES)
def test_what_is_filled_in_is_in_both_forms(english):
    chinese = CHINESE_MESSAGES[english]
    fields = [name for _, name, *_ in string.Formatter().parse(chinese) if name is not None]
    used = set(fields) if any(fields) else {str(number) for number in range(len(fields))}
    assert used <= {str(number) for number in range(english.count("{}"))}
    assert any("\u4e00" <= letter <= "\u9fff" for letter in chinese)
    assert in_chinese(english.replace("{}", "7")) == chinese.format(*["7"] * english.count("{}"))


@pytest.mark.parametrize(
    "english, chinese",
    [
        ("0.3 s · 1 step · guidance 1 · seed 7", "0.3 秒 · 1 步 · 引导强度 1 · 种子 7"),
        ("Steps must be a whole number from 1 to 50, not 51.", "步数必须是 1 到 50 之间的整数，不能是 51。"),
        (
            "84 frames, 3.5 s at 24 a second. It takes about 7 s here.",
            "84 帧，3.5 秒，每秒 24 帧。在这里大约需要 7 秒。",
        ),
        ("Drawing, 5 s left", "正在绘制，还需 5 秒"),
        ("8 fps", "每秒 8 帧"),
        (
            "No face found in the driver picture: choose one that shows a face clearly, upright and not too "
            "small.",
            "要模仿的图片中没有找到脸：请选一张脸部清晰、端正且不太小的图片。",
        ),
        (
            "Face 3 was asked for, but there are only 2 faces in the driver picture: choose a number from 1 "
            "(the largest) to 2.",
            "要求第 3 张脸，但要模仿的图片中只有 2 张脸：请选 1（最大的）到 2 之间的数。",
        ),
        ("mila · laugh", "mila · laugh"),
        ("Something new.", "Something new."),
    ],
)
def test_sentences_in_chinese(english, chinese):
    assert in_chinese(english) == chinese


@pytest.mark.parametrize(
    "sentence, shown",
    [
        (
            "Face 2 was asked for, but there are only 2 faces in the driver picture: choose a number from 0 "
            "(the largest) to 1.",
            "Face 3 was asked for, but there are only 2 faces in the driver picture: choose a number from 1 "
            "(the largest) to 2.",
        ),
        (
            "No face number 1 found in 7 of the 12 frames of the driver clip: choose one that shows a face "
            "most of the time.",
            "No face number 2 found in 7 of the 12 frames of the driver clip: choose one that shows a face "
            "most of the time.",
        ),
        ("Steps must be a whole number from 1 to 50, not 51.", None),
        ("Neutral frame 3 was asked for, but the clip has 2 frames: choose a number from 0 to 1.", None),
    ],
)
def test_faces_are_counted_from_one(sentence, shown):
    assert counted_from_one(sentence) == (shown or sentence)


def test_what_results_are_called():
    assert file_name("a/mila.png", "b/laugh.png") == "mila-laugh"
    assert file_name("/x/Meine Katze (2).jpeg", "motion") == "Meine-Katze-2-motion"
    for letter, count in (("a", 40), ("笑", 33), ("𠀀", 25)):  # of 1, 3 and 4 bytes
        assert file_name(*[letter * 60] * 2) == "-".join([letter * count] * 2)
    assert file_name("/x/笑.png", "..png") == "笑" and file_name("/..") == "hellomeme"


def test_who_reads_chinese():
    assert is_chinese({"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"})
    assert not is_chinese({"accept-language": "en-US,zh;q=0.5"})
    assert not is_chinese({}) and not is_chinese(None)
    assert words_for({"accept-language": "de"}) is in_plain_words
    assert words_for({}) is words_for(None) is str  # programs


@pytest.mark.parametrize(
    "of_paper, plain",
    [
        (
            "No face found in the driver picture: choose one.",
            "No face found in the picture to copy: choose one.",
        ),
        (
            "a.mp4 is a clip, and the reference must be a still: save",
            "a.mp4 is a clip, and the portrait must be a still: save",
        ),
        ("There is no reference picture yet: choose", "There is no portrait yet: choose"),
        ("In 2 of 9 frames the driver shows no face", "In 2 of 9 frames the clip to copy shows no face"),
        ("There is no driver yet: upload", "There is no clip to copy yet: upload"),
        ("A LoRA of the reference adapter", "A LoRA of the reference adapter"),
    ],
)
def test_sentences_in_plain_words(of_paper, plain):
    assert in_plain_words(of_paper) == plain
