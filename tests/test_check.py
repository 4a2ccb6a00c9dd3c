"""What `make check` runs is everything."""

from check import ELSEWHERE, HERE, parts


def test_every_test_is_in_a_part():
    everything = {path for path in HERE.rglob("test_*.py") if path.parent.name not in ELSEWHERE}
    root, *others = parts().values()
    assert root == ["-m", "root", str(HERE)]
    found = [path for _, without, *paths in others for path in paths]
    assert len(found) == len(set(found)) and all(without == "not root" for _, without, *_ in others)
    assert {path for path in everything if str(path) in found or str(path.parent) in found} == everything


def test_no_part_is_empty():
    assert all(paths for _, _, *paths in parts().values())
