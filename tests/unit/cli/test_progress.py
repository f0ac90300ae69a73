"""Promises of the line that says what is measured: its words are those of the table that comes of it."""

import pytest
from msgspec.structs import replace

from napctl.cli.text.progress import progress_line
from napctl.model.experiment import RunConfig
from napctl.report.labels import in_words, naming
from tests.unit import runs


def line(config: RunConfig, treatment: str, capsys: pytest.CaptureFixture[str]) -> str:
    with progress_line(2, naming(config)) as tell:
        tell(treatment, "at max, round 1 of 8", 3, 13)
    return capsys.readouterr().err


def test_each_treatment_of_the_demo_is_named_as_in_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    demo = runs.demo()
    for name, words in zip(demo.config.treatments, in_words(demo).config.treatments, strict=True):
        assert line(demo.config, name, capsys).endswith(f" s left] {words} at max, round 1 of 8\n")
    assert line(demo.config, "fullbusy", capsys).startswith("[ 4 of 13, about ")
    assert "busy polling at max" in line(demo.config, "fullbusy", capsys)


@pytest.mark.parametrize(("source", "names"), [("live", ("base", "fullbusy")), ("lab", ("fullbusy", "busy polling"))])
def test_elsewhere_and_where_two_would_be_called_alike_they_keep_their_names(
    source: str, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(runs.demo().config, source=source, treatments=names)
    assert " fullbusy at max" in line(config, "fullbusy", capsys)
