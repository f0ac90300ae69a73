"""scripts/draw-overload: a picture for documents, from the readings of bench.overload."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

SCRIPT = Path(__file__).parents[2] / "scripts/draw-overload"
SVG = "{http://www.w3.org/2000/svg}"


def drawn(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, file, *options], capture_output=True, text=True, check=False)


def reading(number: int, setting: str, times: float, share: float) -> str:
    return json.dumps({"number": number, "setting": setting, "times": times, "goodput": 5e4 * share, "peak": 5e4})


def test_each_setting_has_its_line_and_its_name_in_the_order_of_the_settings(tmp_path: Path) -> None:
    lines = [reading(1, "suspension", times, 1.7) for times in (1, 4)]
    lines += [reading(0, "default", times, share) for times, share in ((1, 1.0), (4, 0.1), (4, 0.3))]
    (tmp_path / "readings").write_text("\n".join(lines))

    done = drawn(tmp_path / "readings", "--caption", "A machine of mine.")

    assert done.returncode == 0, done.stderr
    root = ET.fromstring(done.stdout)
    names = [each.text for each in root.iter(f"{SVG}text") if each.get("class") == "name"]
    assert names == ["default", "suspension"]
    words = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert "Medians of 2 rounds, least to greatest. A machine of mine." in words
    assert len([each for each in root.iter(f"{SVG}path") if each.get("class") == "line"]) == 4


def test_what_is_no_readings_is_one_line(tmp_path: Path) -> None:
    for text in ("", "{}", "no JSON", "[1]"):
        (tmp_path / "readings").write_text(text)
        done = drawn(tmp_path / "readings")
        assert done.returncode == 1
        assert done.stderr.startswith("draw-overload: ")
        assert len(done.stderr.splitlines()) == 1
