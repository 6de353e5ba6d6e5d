"""Work in a second thread, and what is left of it."""

import threading

import pytest

from hellomeme.beside import map_beside
from hellomeme.sampling.image import Stopped


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("hellomeme-beside")]


def test_it_works_while_the_next_item_is_made():
    worked = [threading.Event() for _ in range(5)]

    def items():
        for k in range(5):
            assert k == 0 or worked[k - 1].wait(20)  # here nothing of it has been asked for
            yield k

    def work(k):
        worked[k].set()
        return 10 * k

    assert list(map_beside(work, items())) == [0, 10, 20, 30, 40]
    assert not threads()


def test_few_items_wait():
    begun, go_on, made = [], threading.Event(), []

    def work(k):
        begun.append(k)
        assert go_on.wait(20)

    def items():
        for k in range(100):
            made.append(k)
            if k == 12:
                threading.Timer(0.05, go_on.set).start()
            yield k

    results = map_beside(work, items())
    next(results)
    assert begun[0] == 0 and len(made) == 13
    results.close()
    assert not threads() and len(begun) < 100


@pytest.mark.parametrize("wrong", ["items", "work"])
def test_errors_end_it(wrong):
    def items():
        yield 1
        if wrong == "items":
            raise Stopped
        yield 2

    def work(k):
        if wrong == "work" and k == 2:
            raise Stopped
        return k

    with pytest.raises(Stopped):
        list(map_beside(work, items()))
    assert not threads()
