"""The results that the page keeps for pasting back."""

import pytest
from PIL import Image

from hellomeme.errors import HelloMemeError
from page import kept
from page.kept import KeptClip, KeptPicture, KeptResults


def test_the_last_result_of_a_visitor_in_a_tab_is_kept_until_they_leave(tmp_path):
    reference = tmp_path / "reference.png"
    reference.touch()
    results = KeptResults()
    path = tmp_path / "clip.mp4"
    path.touch()
    clip = KeptClip("demo", str(reference), clip=str(path))
    keys = {place: results.keep(*place, clip) for place in (("a", "image"), ("a", "video"), ("b", "image"))}
    another = results.keep("a", "image", clip)

    def known(*given):
        for key in given:
            try:
                yield results.get(key) == clip
            except HelloMemeError:
                yield False

    assert list(known(*keys.values(), another, "x")) == [False, True, True, True, False]
    results.end("a")
    assert list(known(*keys.values(), another)) == [False, False, True, False]
    for file in (path, reference):
        file.unlink()  # as Gradio does after an hour
        with pytest.raises(HelloMemeError, match="no longer kept here: draw it again"):
            results.get(keys["b", "image"])
        path.touch()


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 2 * (3 * 100 * 100 + kept.SMALL))
    reference = tmp_path / "reference.png"
    reference.touch()
    results = KeptResults()

    def keep(session, side=100):
        picture = Image.new("RGB", (side, side))
        return results.keep(
            session, "image", KeptPicture("demo", str(reference), picture=picture, stamp=None)
        )

    first, second = keep("a"), keep("b")
    results.get(first)  # used last
    third = keep("c")
    assert results.get(first) and results.get(third)
    with pytest.raises(HelloMemeError):
        results.get(second)
    large = keep("d", 500)  # the newest one stays, however large
    assert results.get(large)
    with pytest.raises(HelloMemeError):
        results.get(third)
    monkeypatch.setattr(kept, "MOST_BYTES", 10 * kept.SMALL)
    for session in range(20):  # clips, which are files
        results.keep(session, "video", KeptClip("demo", str(reference), clip=str(reference)))
    assert len(results._results) == 10
