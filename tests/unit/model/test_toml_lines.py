"""Each key is found on its line, however the text is written."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.model.toml_lines import key_lines, line_of

TEXT = '''\
# a comment with [[attach]] in it
version = 1

[[attach]]
target = "nginx"  # [no] header
"defer-us" = 50
[[attach]]
target = """
[[attach]]
two = "lines"
"""
steer = true

[[device]]
name = 'eth0 # [[x]]'
coalescing.rx-usecs = 50
[device.rings]
rx = 1_024
[[device]]
all = true
coalescing = { rx-usecs = 3, rx-profile = [
  { usecs = 1 },
  { usecs = 2, pkts = 4 }, # the second
] }
[ service ]
on-stop = "keep"
'''
EXPECTED = {
    "version": 2, "attach[0]": 4, "attach[0].target": 5, "attach[0].defer-us": 6, "attach[1]": 7,
    "attach[1].target": 8, "attach[1].steer": 12, "device[0]": 14, "device[0].name": 15,
    "device[0].coalescing.rx-usecs": 16, "device[0].rings": 17, "device[0].rings.rx": 18, "device[1].all": 20,
    "device[1].coalescing": 21, "device[1].coalescing.rx-usecs": 21, "device[1].coalescing.rx-profile[0].usecs": 22,
    "device[1].coalescing.rx-profile[1].pkts": 23, "service": 25, "service.on-stop": 26,
}  # fmt: skip


@pytest.mark.parametrize("path", EXPECTED)
def test_a_key_is_found_where_it_stands(path: str) -> None:
    assert line_of(key_lines(TEXT), path) == EXPECTED[path]


def test_what_has_no_line_has_that_of_what_is_around_it() -> None:
    lines = key_lines(TEXT)
    assert line_of(lines, "device[0].rings.tx") == 17
    assert line_of(lines, "device[7]") == 14
    assert line_of(lines, "nowhere") == 1


KEYS = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True), st.sampled_from(['"a.b"', "'#'", '"[x]"', '"="'])
)
VALUES = st.one_of(
    st.integers(-5, 5).map(str), st.booleans().map(lambda each: str(each).lower()),
    st.sampled_from(['"#"', '"""\na = 1\n"""', "'''\n[[x]]\n'''", '"\\""', "[1, [2], 3]", "[\n 1, # ]\n 2,\n]", "{ }",
                     "{ a = 1, b = [ 1 ] }", "1979-05-27 07:32:00", "''", '"""a"""""']),
)  # fmt: skip


@given(st.lists(st.tuples(KEYS, VALUES, st.sampled_from(["", " # [y]", "\n", "\n# z = 1"])), max_size=8))
def test_every_key_that_tomllib_finds_is_on_the_line_where_it_was_written(pairs: list[tuple[str, str, str]]) -> None:
    text, line, expected = "", 1, {}
    for index, (key, value, after) in enumerate(pairs):
        pair = f"[[t]]\n{key} = {value}{after}\n"
        text += pair
        expected[f"t[{index}].{key.strip(chr(34)).strip(chr(39))}"] = line + 1
        line += pair.count("\n")
    read: dict[str, Any] = tomllib.loads(text)
    assert len(read.get("t", [])) == len(pairs)
    assert {path: each for path, each in key_lines(text).items() if path in expected} == expected


@given(st.text(alphabet="[]{}=\"'#,.\n ab1\\", max_size=60))
def test_what_is_no_toml_comes_to_an_end_all_the_same(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert all(1 <= line <= text.count("\n") + 1 for line in key_lines(text).values())
