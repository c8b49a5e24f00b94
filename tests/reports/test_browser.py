"""Pages and the viewer in a real browser: pixels appear, nothing fails, nothing is fetched."""

import io
import json
import shutil
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command import run
from voronoi import lines

import tiledlaf
from tiledlaf.reports import layers, viewing

pytestmark = pytest.mark.browser
SIZE = (1200, 900)
PATIENCE = 100  # seconds
DARK, BRIGHT = (0, 114, 178), (230, 159, 0)  # colors of the first two classes
ALPHA = 0.4
NAMES = ["dark <b>side</b>", "bright side"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Chromium without a screen, its WebGL in software; records its console and its requests."""
    options = pytest.importorskip("selenium.webdriver", reason="NOT TESTED: no selenium here")
    service = __import__("selenium.webdriver.chrome.service", fromlist=["Service"])
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in found:
        pytest.skip("NOT TESTED: no chromium and chromedriver here (apt chromium chromium-driver)")
    given = options.ChromeOptions()
    given.binary_location = found[0]
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run"),
        *(
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
            "--force-device-scale-factor=1",
        ),
        *(f"--window-size={SIZE[0]},{SIZE[1]}", f"--user-data-dir={profile}"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    ):
        given.add_argument(argument)
    given.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    one = options.Chrome(options=given, service=service.Service(found[1]))
    one.set_page_load_timeout(PATIENCE)
    yield one
    one.quit()


@pytest.fixture
def browser(driver):
    """The same, with empty logs and on an empty page."""
    driver.get("about:blank")
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    return driver


def requests(browser):
    """URLs that the page, its scripts and its workers asked for."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


def errors(browser):
    return [e["message"] for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]


def pixels(browser):
    return np.asarray(PIL.Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An output whose left half is dark and of the first class, and whose right is bright."""
    folder = tmp_path_factory.mktemp("made")
    image = np.zeros((300, 400, 3), np.uint8)
    image[:, 200:] = 220
    prototypes = [(0.0, 0.0, 0.0), (220.0, 220.0, 220.0)]
    options = {"names": NAMES, "confidence": True, "tile": 256, "workers": 1}
    tiledlaf.label(image, folder / "out.zarr", prototypes=prototypes, axes="yxc", **options)
    (folder / "out").mkdir()
    return folder


def shown(color, gray):
    """A label's color above a gray."""
    return np.array(color) * ALPHA + (1 - ALPHA) * gray


def share(picture, color, tolerance=8):
    """Share of pixels of a color."""
    return float((abs(picture.astype(float) - color).max(axis=-1) <= tolerance).mean())


def wait(browser, done):
    """Until pixels are as they should be; the last of them."""
    until = time.monotonic() + PATIENCE
    while not done(found := pixels(browser)) and time.monotonic() < until:
        time.sleep(0.3)
    return found


def test_the_viewer_shows_pixels(browser, made, tmp_path):
    pytest.importorskip("neuroglancer", reason="NOT TESTED: no neuroglancer here")
    said = []
    found, _ = layers.read(made / "out.zarr")
    with viewing.in_browser(found, 0, said.append) as site:
        url = site.url
        browser.get(site.once)  # as the command opens it
        colors = shown(DARK, 0), shown(BRIGHT, 220)
        picture = wait(browser, lambda now: all(share(now, c) > 0.1 for c in colors))
        PIL.Image.fromarray(picture).save(tmp_path / "view.png")
        left, right = (np.argwhere(abs(picture - c).max(axis=-1) <= 8)[:, 1] for c in colors)
        assert len(left) > 40_000
        assert abs(len(left) / len(right) - 1) < 0.1  # both halves, each in its place
        assert np.quantile(left, 0.99) < np.quantile(right, 0.01)
        text = browser.execute_script("return document.body.innerText")
        for name in NAMES:
            assert name in text
        assert not browser.execute_script("return document.querySelectorAll('b').length")
        # the image alone, then the confidence, which is 1 nearly everywhere
        seen = "viewer.layerManager.managedLayers[{}].setVisible({})"
        browser.execute_script(seen.format(1, "false"))
        picture = wait(browser, lambda now: share(now, (220, 220, 220)) > 0.1)
        assert share(picture, (220, 220, 220)) > 0.1
        assert share(picture, colors[0]) < 0.01
        browser.execute_script(seen.format(2, "true"))
        picture = wait(browser, lambda now: share(now, (255, 255, 255)) > 0.2)
        assert share(picture, (255, 255, 255)) > 0.2
        asked = requests(browser)
        assert asked
        origin = url.rpartition("/")[0].rpartition("/")[0]
        assert not [one for one in asked if not one.startswith((origin, "blob:", "data:"))]
    assert said == []
    assert errors(browser) == []


@pytest.fixture(scope="module")
def pages(made):
    """Pages of the run and of a training."""
    assert run("report", made / "out.zarr").code == 0
    image, labels = lines((64, 64), cells=8, noise=0.5, seed=2)
    data = tiledlaf.Data(tiledlaf.pair(image, labels), names={"0": "in", "1": "line"})
    with tiledlaf.open_pool(workers=1) as pool:
        recipe = tiledlaf.Recipe(steps=10, predictor_size=4)
        tiledlaf.train(data, recipe, pool, made / "a.model")
    assert run("report", made / "a.model").code == 0
    return made


@pytest.mark.parametrize("name", ["out.zarr", "a.model"])
def test_pages_open_offline(browser, pages, tmp_path, name):
    shutil.copy(pages / f"{name}.report.html", tmp_path / "page.html")  # nothing else beside it
    browser.set_network_conditions(offline=True, latency=0, throughput=0)
    try:
        browser.get(Path(tmp_path / "page.html").as_uri())
        text = browser.execute_script("return document.body.innerText")
        picture = pixels(browser)
    finally:
        browser.delete_network_conditions()
    PIL.Image.fromarray(picture).save(tmp_path / "page.png")
    fetched = [one for one in requests(browser) if not one.startswith("data:")]
    assert fetched == [(tmp_path / "page.html").as_uri()]
    assert errors(browser) == []
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) == 0
    drawn = (
        "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)"
    )
    assert all(height > 100 for height in browser.execute_script(drawn))
    if name == "out.zarr":
        assert NAMES[0] in text
        assert "50.00 %" in text
        unfold = "document.querySelectorAll('details').forEach(d => d.open = true)"
        browser.execute_script(unfold)
        assert "It is about the arithmetic, not about the image" in browser.execute_script(
            "return document.body.innerText"
        )
    else:
        assert "Which classes validation confused" in text
