"""Pages about an archive of hostile names: what they say is text, and no script but their own runs, as a parser and a browser see it."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from engine import encode_dataset
from engine.latents.atlas import TEMPLATE, write_atlas
from engine.latents.film_labels import read_table
from engine.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RUN = "document.documentElement.dataset.owned='yes'"
HOSTILE = (
    f"</script><script>{RUN}</script>",
    f'"><img src=x onerror="{RUN}">',
    f"' onmouseover='{RUN}' x='",
    f"</title><svg onload={RUN}>",
    f"<!--<script>{RUN}//-->",
    f"\\u003cscript>{RUN}</script>",
    f"${{{RUN}}}`;{RUN};`",
    f'";{RUN};//',
    f"</figcaption></svg><iframe srcdoc='<script>parent.{RUN}</script>'>",
    "plain & <simple>",
    "TITLE",
    '"DATA"',
)

# Looks at everything that the page can show of a film: every colour, every film by its id, every label under the pointer.
LOOK = """
<script>
for (const option of [...$("colour").options]) { $("colour").value = option.value; $("colour").onchange(); }
for (const id of data.ids) { $("find").value = id; $("find").onchange(); }
for (let x = 0; x < innerWidth; x += 40) for (let y = 0; y < innerHeight; y += 40)
  for (const kind of ["pointermove", "pointerdown", "pointerup"])
    $("map").dispatchEvent(new PointerEvent(kind, { clientX: x, clientY: y }));
document.documentElement.dataset.looked = "yes";
</script>
"""


class Seen(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(each == tag for each, _ in self.tags)


@pytest.fixture(scope="module")
def archive(small_films: Path, small_codec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films with hostile ids, in an archive of a hostile name; columns and cells of their manifest are no better."""
    folder = tmp_path_factory.mktemp("hostile")
    films = sorted(small_films.iterdir())
    with (folder / "films.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "id", HOSTILE[0], "finding"])
        for number, film in enumerate(films[:24]):
            name = HOSTILE[number] if number < len(HOSTILE) else f"film-{number}"
            table.writerow([film, name, HOSTILE[number % 3], HOSTILE[number % 5]])
        table.writerow([folder / "gone.png", f"gone <script>{RUN}</script>", "", ""])
    archive = folder / f"films <img src=x onerror={RUN.replace('/', '')}>.zarr"
    settings = {"workers": 0, "film_size": 64, "quiet": True, "shard_rows": 64}
    summary = encode_dataset(str(folder / "films.csv"), str(archive), str(small_codec), **settings)
    assert (summary.ok, summary.failed) == (24, 1)
    return archive


@pytest.fixture(scope="module")
def report(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "index.html"
    write_report(archive, str(archive.parent / "films.csv"), out)
    return out


@pytest.fixture(scope="module")
def atlas(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("atlas") / "atlas.html"
    write_atlas(archive, out, table=read_table(None, archive, None))
    return out


def check_tags(seen: Seen, *, scripts: int) -> None:
    assert seen.count("script") == scripts
    assert not {"iframe", "object", "embed", "base", "form"} & {tag for tag, _ in seen.tags}
    for tag, attributes in seen.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), tag


def test_the_report_says_ids_as_text(report: Path) -> None:
    seen = Seen(report.read_text())
    check_tags(seen, scripts=0)
    text = "\n".join(seen.texts)
    assert all(name in text for name in HOSTILE)
    assert all(f"film of {name}" in {attributes.get("alt") for tag, attributes in seen.tags if tag == "img"} for name in HOSTILE[:4])


def test_the_atlas_keeps_ids_in_its_data(atlas: Path, archive: Path) -> None:
    seen = Seen(atlas.read_text())
    check_tags(seen, scripts=Seen(TEMPLATE.read_text()).count("script"))
    assert f"{archive.name}: atlas" in seen.texts
    data = re.search(r"^const data = (.*);$", atlas.read_text(), flags=re.MULTILINE)
    assert data is not None
    assert "<" not in data[1]


def browse(page: Path, profile: Path) -> str:
    """The page as a browser leaves it once it has run."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,700", "--virtual-time-budget=4000", "--dump-dom"]
    command = [str(CHROMIUM), *words, f"--user-data-dir={profile}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium to run the page in")
def test_no_script_of_theirs_runs(report: Path, atlas: Path, tmp_path: Path) -> None:
    looked_at = tmp_path / "atlas.html"
    looked_at.write_text(atlas.read_text().replace("</body>", LOOK + "</body>"))
    careless = tmp_path / "careless.html"
    careless.write_text(f"<!doctype html><html><body>{HOSTILE[1]}</body></html>")
    assert "data-owned" in browse(careless, tmp_path / "profile")  # what it would look like
    for page in (report, looked_at):
        left = browse(page, tmp_path / "profile")
        assert "</html>" in left
        assert "data-owned" not in left[:300]
        assert "data-looked" in left[:300] or page is report
