#!/usr/bin/env python3
"""Opens the chat page of `lowp serve` in a headless Chromium: sends a message, watches the answer stream, stops one.

    python tests/interop/chat_page_check.py LOWP MODEL

Needs playwright and a chromium on the PATH; without either prints 'skipped' and exits with 0. The browser may reach nothing but
the server. Exit code 1 if something does not work.
"""
import pathlib
import re
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import lowp_cli  # noqa: E402
from serve_client import Server  # noqa: E402


def talk(page, server, name):
    problems = []
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.route("**/*", lambda route: route.continue_() if f":{server.port}/" in route.request.url else problems.append(route.request.url))
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.fill("#temperature", "0")
    page.fill("#tokens", "40")
    page.locator("#model", has_text="page-model").wait_for()
    page.fill("#input", "Once upon a time")
    page.press("#input", "Enter")
    page.locator("#status", has_text="40 tokens").wait_for()
    said = page.inner_text(".message.assistant")
    page.fill("#tokens", "900")
    page.fill("#input", "And then")
    page.click("#send")
    page.locator(".message.assistant").nth(1).filter(has_text=re.compile(".{20}", re.DOTALL)).wait_for()
    page.click("#send")  # now Stop
    page.locator("#send", has_text="Send").wait_for()
    if page.query_selector(".error"):
        problems.append(page.inner_text(".error"))
    print(f"{name}: {said[:60]!r}...", *problems, sep="\n  ")
    return bool(said.strip()) and not problems


def main():
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser_path = None
    if not browser_path:
        print("skipped: no playwright or no chromium")
        return
    lowp_cli.lowp_path = str(pathlib.Path(sys.argv[1]).resolve())
    good = True
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name, arguments in (("continues", []), ("chats", ["--chat-template", "plain"])):
            server = Server(sys.argv[2], "--served-model-name", "page-model", *arguments)
            try:
                page = browser.new_page()
                good &= talk(page, server, name)
                page.close()
            finally:
                server.stop()
        browser.close()
    sys.exit(not good)


if __name__ == "__main__":
    main()
