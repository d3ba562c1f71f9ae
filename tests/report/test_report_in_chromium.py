"""The page in a real browser: nothing on its console, nothing asked of a network, nothing wider than a phone."""

import json
import re
import shutil
import subprocess

import pytest

from resnets.report.build import write_report
from resnets.specs.run import Machine

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container may have little
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    # Chromium asks its makers' servers for the time and for updates; here, it gets nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
PAGES_REQUEST = 101845102
"""What Chromium's log of the network notes at requests that a page makes, in contrast to its own."""


class Visit:
    """What a browser made of a page."""

    def __init__(self, page, folder, *flags):
        log = folder / "network.json"
        command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", *flags]
        done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=300, check=False)
        self.console = re.findall(r".*:CONSOLE.*", done.stderr)
        self.dom = done.stdout
        noted = re.findall(r'"traffic_annotation":(\d+),"url":"([^"]*)"', log.read_text(errors="replace"))
        urls = {url for kind, url in noted if int(kind) == PAGES_REQUEST}
        self.requests = sorted(url for url in urls if not url.startswith(("file:", "data:")))


@pytest.fixture(scope="module")
def report(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report([trained / "plain", trained / "residual"], out=out, title="Two nets", machine=Machine(device="cpu"))
    return out


def test_the_console_stays_empty_and_no_request_is_made(report, tmp_path):
    visit = Visit(report, tmp_path, "--dump-dom")
    assert "<h1>Two nets</h1>" in visit.dom
    assert visit.console == []
    assert visit.requests == []


def test_a_page_that_breaks_the_policy_or_asks_a_network_would_be_seen(report, tmp_path):
    html = report.read_text()
    page = tmp_path / "page.html"
    page.write_text(html.replace("</main>", '<p style="color: red">x</p><script>1</script></main>'))
    assert len(Visit(page, tmp_path, "--dump-dom").console) == 2
    policy = re.search(r"<meta http-equiv=[^>]*>", html)[0]
    page.write_text(html.replace(policy, "").replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
    assert "http://127.0.0.1:9/x.png" in Visit(page, tmp_path, "--dump-dom").requests


def test_nothing_but_what_scrolls_is_wider_than_a_phone(report, tmp_path):
    measure = """<script>
    addEventListener("load", () => {
      const frame = document.querySelector("iframe").contentDocument.documentElement;
      document.body.dataset.sizes = JSON.stringify([frame.scrollWidth, frame.clientWidth, frame.scrollHeight]);
    });
    </script>"""
    page = tmp_path / "frame.html"
    shutil.copy(report, tmp_path / "report.html")
    page.write_text(f'<!DOCTYPE html><body><iframe src="report.html" width="360" height="640"></iframe>{measure}')
    dom = Visit(page, tmp_path, "--dump-dom", "--allow-file-access-from-files").dom
    width, visible, height = json.loads(re.search(r'data-sizes="([^"]*)"', dom)[1])
    assert width <= visible <= 360
    assert height > 2000
