"""A real browser: headless Chromium, by way of its driver."""

import base64
from pathlib import Path
from typing import Literal

from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

SCREENSHOTS = Path(__file__).resolve().parents[1] / "screenshots"
"""Kept for people to look at; git ignores it."""
Theme = Literal["light", "dark"]


class Browser:
    """Headless Chromium over its driver."""

    def __init__(self, driver: WebDriver) -> None:
        self.driver = driver

    def open(self, url: str, width: int = 1280, theme: Theme = "light", height: int = 900) -> None:
        """Loads a page as a screen of that width and a person of that taste see it."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._tell("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": theme}
        self._tell("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})
        self.driver.get(url)

    def wait_for(self, script: str, seconds: float = 30) -> None:
        """Until `script`, an expression, is true in the page."""
        WebDriverWait(self.driver, seconds).until(lambda d: d.execute_script(f"return {script}"))

    def ask(self, script: str) -> object:
        """The value of an expression in the page."""
        return self.driver.execute_script(f"return {script}")

    def screenshot(self, name: str) -> Path:
        """The whole page, as a PNG in SCREENSHOTS."""
        taken = self._tell("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        path.write_bytes(base64.b64decode(taken["data"]))
        return path

    def on_paper(self) -> None:
        """The page as it would be printed, until another is opened."""
        self._tell("Emulation.setEmulatedMedia", {"media": "print"})

    def complaints(self) -> list[str]:
        """What the pages since the last call had to complain of."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]

    def _tell(self, command: str, arguments: dict[str, object]) -> dict[str, str]:
        return dict(self.driver.execute_cdp_cmd(command, arguments) or {})
