# ruff: noqa: RUF001  # the true minus sign
from __future__ import annotations

import base64
import hashlib
import re
from itertools import pairwise

import pytest
import report_samples as samples
from pages import Page, page, words

from publisher.api import Credit
from publisher.builtin.reports.html_page import HtmlPage
from publisher.builtin.reports.pictures import picture
from publisher.report.limits import limits
from publisher.report.wording import visible

every_sample = pytest.mark.parametrize("name", samples.ALL)


@every_sample
def test_html_loads_nothing_and_runs_its_one_script_alone(name: str) -> None:
    record = samples.ALL[name]()
    found = page(record)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"iframe", "object", "embed", "link", "base", "form", "video", "audio"}
    assert found.all("script") == [{}]
    for tag, attributes in found.tags:
        assert not [key for key in attributes if key.startswith("on") or key in {"srcset", "style", "xlink:href"}]
        assert (attributes.get("href") or "#").startswith("#"), tag
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not re.search(r"url\(|@import|expression\(", HtmlPage().render(record).decode())


@every_sample
def test_html_policy_allows_the_one_style_sheet_the_one_script_and_embedded_images_only(name: str) -> None:
    data = HtmlPage().render(samples.ALL[name]()).decode()
    (style,), (script,) = (re.findall(rf"<{tag}>(.*?)</{tag}>", data, re.DOTALL) for tag in ("style", "script"))
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    policy = next(tag["content"] for tag in Page(data.encode()).all("meta") if tag.get("http-equiv"))
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}';"
        " base-uri 'none'; form-action 'none'"
    )


def test_the_script_asks_nobody_and_writes_text_alone() -> None:
    data = HtmlPage().render(samples.passed()).decode()
    (script,) = re.findall(r"<script>(.*?)</script>", data, re.DOTALL)
    assert not re.search(
        r"fetch|XMLHttp|WebSocket|sendBeacon|import|eval|Function|innerHTML|outerHTML|document\.write", script
    )
    ids = {attributes.get("id") for _, attributes in page(samples.passed()).tags}
    assert set(re.findall(r'getElementById\("(\w+)"\)', script)) <= ids
    assert set(re.findall(r'closest\("\.(\w+)"\)', script)) == {"claim"}


@pytest.mark.parametrize(("name", "word"), [("passed", "Released"), ("failed", "Refused"), ("unknown", "Inconclusive")])
def test_html_says_the_verdict_first(name: str, word: str) -> None:
    text = words(samples.ALL[name]())
    body = text[text.index("Release report") :]
    assert body.startswith(f"Release report emoji-safe 1.0.0 {word} ")
    assert body.index(word) < body.index("Before and after") < body.index("What it takes to get it back")


@every_sample
def test_html_names_every_claim_check_step_plugin_and_limit(name: str) -> None:
    record = samples.ALL[name]()
    text = page(record).text
    if name == "hostile":
        return
    named = [claim.sentence for claim in record.claims]
    named += [limit for claim in record.claims for limit in claim.limits]
    named += [check.id for claim in record.claims for check in claim.checks]
    named += [check.evidence_sha256 for claim in record.claims for check in claim.checks]
    named += [part for step in record.steps for part in (step.id, step.input, step.output, *step.warnings)]
    named += [part for plugin in record.plugins for part in (plugin.name, plugin.origin.digest, plugin.origin.module)]
    named += [*record.limits, record.model.digest, record.manifest_sha256, record.device, str(record.seed)]
    named += [card.weights for card in record.scorers.values()]
    assert [one for one in named if one not in text] == []


def test_html_generates_every_number_with_n_interval_method_and_control() -> None:
    text = words(samples.passed())
    assert "1.4% 0.17% to 4.9% base model 92.4%" in text
    assert "n = 144, Clopper-Pearson 95%" in text
    labels = [tag.get("aria-label") for tag in page(samples.passed()).all("svg") if tag.get("role") == "img"]
    assert (
        "Hardened model 1.4%, interval 0.17% to 4.9%; base model 92.4%; gate: upper bound ≤ 10% and value ≤ 5%"
        in labels
    )
    assert "cigarette: 2.8%" in labels


@pytest.mark.parametrize("name", ["failed", "unknown", "hostile", "lying"])
def test_html_of_a_release_that_is_not_approved_shows_no_way_to_verify_and_no_passed_frame(name: str) -> None:
    record = samples.ALL[name]()
    found = page(record)
    assert found.all("body")[0]["class"] in {"failed", "unknown"}
    assert "publisher verify PACKAGE" not in found.text
    assert "There is no signed package of this release" in found.text


def test_html_never_shows_unknown_as_passed() -> None:
    found = page(samples.report((samples.claim("word", "trust me", (samples.unmeasured(),), verdict="passed"),)))
    frames = [tag["class"] for tag in found.all("article")]
    assert frames[0] == "claim unknown"
    assert "Released" not in found.text.partition("Release report")[2]
    assert "Unknown: the scorer crashed on every image." in found.text


@every_sample
def test_html_says_each_limit_once_and_names_its_claims(name: str) -> None:
    record = samples.ALL[name]()
    text = words(record)
    for limit, claims in limits(record):
        shown = " ".join(visible(limit).split())
        if name != "hostile":
            assert text.count(shown) == 1, limit
            numbers = [number for number, claim in enumerate(record.claims, 1) if claim.id in claims]
            assert f"{shown} {', '.join(map(str, numbers)) or 'the whole release'}".replace(", ", " , ") in text


def test_html_says_what_is_self_assessed() -> None:
    assert "The step\u2019s own figures (2) self-assessed" in words(samples.passed())


def test_html_shows_pairs_side_by_side_with_prompt_seed_and_labels() -> None:
    record = samples.passed()
    found = page(record)
    images = found.all("img")
    assert len(images) == 2 * len(record.pairs)
    assert [image["alt"] for image in images[:6:3]] == [
        "Base model: the scorer sees cigarette, noto",
        "Hardened model: the scorer sees pencil, noto",
    ]
    assert (images[0]["width"], images[0]["class"]) == ("32", "small")
    assert images[0]["src"] == f"data:image/png;base64,{record.pairs[0].base_png}"
    assert "a cigarette emoji in fluent style seed 1" in words(record)


def test_html_shows_three_images_where_there_is_one_without_membranes() -> None:
    record = samples.membranes()
    found = page(record)
    assert len(found.all("img")) == 3 * 3 + 3 * 2
    assert [image["alt"] for image in found.all("img")[:9:3]] == [
        "Base model: the scorer sees cigarette, noto",
        "With membranes: the scorer sees pencil, noto",
        "Without membranes: the scorer sees cigarette, noto",
    ]
    assert found.all("img")[-1]["alt"] == "Without membranes: the scorer sees pizza, twemoji"
    assert "with membranes without them" in words(record)
    assert "without them" not in words(samples.passed())


def test_html_marks_a_check_without_membranes() -> None:
    text = words(samples.membranes())
    assert "without.cigarette (without membranes) reported Attack plain on cigarette, pistol. Gate" in text
    labels = [str(tag.get("aria-label")) for tag in page(samples.membranes()).all("svg")]
    assert any(label.startswith("Hardened model without membranes 92.4%") for label in labels)
    assert "Membranes not attached: the weights alone" in text


def test_html_shows_permeabilities_in_numbers_and_in_shades() -> None:
    record = samples.membranes()
    text = words(record)
    assert "312 distinct prompts were scored" in text
    assert "Prompt Asks for cigarette pistol sum To go: the membrane should be open" in text
    assert "a smoke emoji cigarette 0.71 0.39 1.10" in text
    assert "Kept: all membranes should be shut (empty prompt) nothing 0 0 0" in text
    assert "a pencil emoji pencil <0.01 0 <0.01" in text
    classes = [tag.get("class") or "" for tag in page(record).all("td")]
    shades = [name.removeprefix("heat ") for name in classes if name.startswith("heat ")]
    assert shades[:3] == ["h10", "h4", "h10"]
    assert shades[9:12] == ["h0", "h0", "h0"]
    assert shades[-3:] == ["h1", "h0", "h1"]


def test_html_of_a_release_without_membranes_has_no_empty_section_about_them() -> None:
    assert "How far prompts open" not in words(samples.passed())
    assert "The step’s own curves" not in words(samples.passed())


def test_html_generates_the_curves_of_a_step_with_their_words() -> None:
    images = [tag for tag in page(samples.membranes()).all("svg") if "viewbox" in tag and tag.get("role") == "img"]
    labels = [str(tag["aria-label"]) for tag in images]
    assert len(labels) == 4
    assert labels[0].startswith("erase loss of cigarette: 0.301 at 1, 6.33e−5 at 300; lowest")
    text = words(samples.membranes())
    assert "The step’s own curves (4) self-assessed" in text
    assert "erase loss of cigarette mse, log scale" in text
    assert "anchor loss of cigarette mse 0.003" in text


def test_html_names_the_files_that_a_step_read() -> None:
    assert f"membranes/pistol.safetensors, sha256 {samples.digest('pistol')}" in words(samples.membranes())


def test_html_says_whose_weights_a_step_put_in() -> None:
    report = samples.passed()
    step = report.steps[0].model_copy(update={"credits": (Credit(name="A. Nother", method="ESD-x", license="MIT"),)})
    text = words(report.model_copy(update={"steps": (step, *report.steps[1:])}))
    assert "Made elsewhere: A. Nother, by ESD-x, licence MIT" in text


def test_html_of_a_model_that_was_tested_as_it_is_speaks_of_no_release() -> None:
    report = samples.failed()
    text = words(
        report.model_copy(update={"tested": report.model.model_copy(update={"source": "theirs"}), "steps": ()})
    )
    assert "Fails" in text
    assert "was tested as it is" in text
    assert "nothing was signed" not in text


def test_html_shows_lists_of_records_in_the_details_as_tables() -> None:
    text = words(samples.membranes())
    assert "by_permeability permeability n median 0 340 0 > 0.25 to 0.5 60 0.1377" in text
    assert "worst concept median n pencil 0.1204 40" in text


def test_html_enlarges_large_images_smoothly() -> None:
    pair = samples.pairs()[0].model_copy(update={"base_png": samples.png((1, 2, 3), 512)})
    images = page(samples.passed().model_copy(update={"pairs": (pair,)})).all("img")
    assert ["class" in image for image in images] == [False, True]


def test_html_embeds_nothing_that_is_no_png() -> None:
    assert page(samples.hostile()).all("img") == []
    assert "no image in the record" in page(samples.hostile()).text
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    for data in (b"", b"GIF89a" + bytes(40), header, header + bytes(40)):
        assert picture(base64.b64encode(data).decode()) is None


def test_html_folds_long_prompts_and_cuts_endless_ones() -> None:
    data = HtmlPage().render(samples.hostile())
    assert len(data) < 200_000
    assert "more characters)" in page(samples.hostile()).text


def test_html_shows_the_matrix_with_verdicts_in_words() -> None:
    text = words(samples.passed())
    assert "Claim Base model After erase" in text
    assert "cigarette and pistol are not generated from plain prompts failed 92.4% passed 1.4%" in text


def test_html_is_one_outline_with_captions() -> None:
    found = page(samples.failed())
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert len(found.all("table")) == len(found.all("caption"))
    targets = {attributes["id"] for _, attributes in found.tags if attributes.get("id")}
    assert {str(link["href"])[1:] for link in found.all("a")} <= targets


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_html_text_has_the_contrast_of_wcag_aa(scheme: int) -> None:
    data = HtmlPage().render(samples.passed()).decode()
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", re.findall(r":root \{(.*?)\}", data, re.DOTALL)[scheme]))
    pairs = [(text, ground) for text in ("ink", "muted", "link") for ground in ("paper", "sheet")]
    for verdict in ("passed", "failed", "unknown"):
        pairs += [
            (verdict, "paper"),
            (verdict, f"{verdict}-tint"),
            ("muted", f"{verdict}-tint"),
            ("ink", f"{verdict}-tint"),
        ]
        pairs += [("ink", "heat")]
        pairs += [(verdict, f"{banner}-tint") for banner in ("passed", "failed", "unknown")]
    pairs += [("plain", "paper"), ("plain", "sheet")]
    for text, ground in pairs:
        assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_html_lines_of_the_attacked_models_have_the_contrast_of_plots(scheme: int) -> None:
    data = HtmlPage().render(samples.relearning()).decode()
    colours = dict(
        re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", re.findall(r":root \{(.*?)\}", data, re.DOTALL)[scheme])
    )
    lines = [name for name in colours if name.startswith("model-")]
    assert len(lines) == 7
    for name in lines:
        assert _contrast(colours[name], colours["paper"]) >= 3, name
