from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from publisher.api import ReleaseReport
from publisher.errors import ModelError, PluginError
from publisher.package import bom, build, card, sums
from publisher.package.layout import PROVENANCE, REPORT, REPORTS, RESOLVED
from publisher.package.statements import statements
from publisher.package.summary import ReleaseSummary, summarise
from publisher.package.tree import read_tree
from support.packages import CREATED, EVIDENCE, build_unsigned, check_data, report_data


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_is_a_copy_of_its_own_with_mode_0644(tmp_path: Path, model: dict[str, Path]) -> None:
    build_unsigned(tmp_path / "p", model)
    for path in (tmp_path / "p").rglob("*"):
        assert not path.is_symlink()
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o644
            assert path.stat().st_nlink == 1
    assert (tmp_path / "p/unet/model.safetensors").read_bytes() == model["unet/model.safetensors"].read_bytes()


def test_the_digests_of_what_was_laid_out_are_those_of_its_files(tmp_path: Path, model: dict[str, Path]) -> None:
    laid = build.lay_out(tmp_path / "p", model, {"freeze-mask.json": b"{}"})
    assert laid.digests == {path: hashlib.sha256(data).hexdigest() for path, data in files(tmp_path / "p").items()}


def test_only_files_that_something_has_touched_are_read_again(tmp_path: Path, model: dict[str, Path]) -> None:
    laid = build.lay_out(tmp_path / "p", model, {})
    (tmp_path / "p/LICENSE").write_text("Do not.")
    assert laid.untouched() == {path: digest for path, digest in laid.digests.items() if path != "LICENSE"}
    again = read_tree(tmp_path / "p", known=laid.untouched())
    assert again.digests == laid.digests | {"LICENSE": hashlib.sha256(b"Do not.").hexdigest()}


def test_a_link_in_the_model_becomes_a_file(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("text")
    (tmp_path / "NOTICE").symlink_to("blob")
    build.lay_out(tmp_path / "p", {"NOTICE": tmp_path / "NOTICE"}, {})
    assert not (tmp_path / "p/NOTICE").is_symlink()
    assert (tmp_path / "p/NOTICE").read_text() == "text"


def test_the_base_models_card_is_kept_beside_the_new_one(tmp_path: Path, model: dict[str, Path]) -> None:
    build_unsigned(tmp_path / "p", model)
    assert (tmp_path / "p/release/base-model-card.md").read_text() == "# The base\n"
    assert "release/base-model-card.md" in (tmp_path / "p/README.md").read_text()
    assert (tmp_path / "p/LICENSE").read_text() == "Do as you like.\n"


@pytest.mark.parametrize(
    "path",
    [
        "unet/model.bin",
        "unet/custom.py",
        "../x.json",
        "/x.json",
        "a\u202eb/x.json",
        ".git/x.json",
        "x.safetensors",
        "release/x.json",
        "unet/a b.json",
        "unet/.x.json",
        "CON/x.json",
    ],
)
def test_a_file_that_does_not_belong_into_a_package_stops_the_build(tmp_path: Path, path: str) -> None:
    source = tmp_path / "source"
    source.write_text("{}")
    with pytest.raises(ModelError):
        build.lay_out(tmp_path / "p", {path: source}, {})
    assert not any((tmp_path / "p").iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "code.py",
        "../model_index.json",
        "SHA256SUMS",
        "release.json",
        "attestations/x.sigstore.json",
        "reports/report.json",
        "base-model-card.md",
    ],
)
def test_an_artifact_cannot_take_the_place_of_the_packages_own_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(PluginError, match="artifact"):
        build.lay_out(tmp_path / "p", {}, {name: b""})


def test_nothing_is_laid_out_over_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(build.PackageError, match="not empty"):
        build.lay_out(tmp_path, {}, {})


def test_evidence_other_than_the_reports_stops_the_build(tmp_path: Path, model: dict[str, Path]) -> None:
    def other(data: dict[str, Any]) -> None:
        data["claims"][0]["checks"][0]["evidence_sha256"] = "00" * 32

    with pytest.raises(build.PackageError, match=r"cigarette\.plain"):
        build_unsigned(tmp_path / "p", model, other)


def test_a_view_that_says_something_else_than_the_report_stops_the_build(
    tmp_path: Path, model: dict[str, Path]
) -> None:
    build.lay_out(tmp_path / "p", model, {})
    other = ReleaseReport.parse(report_data() | {"version": "9"})
    with pytest.raises(build.PackageError, match=r"report\.json"):
        build.finish(
            tmp_path / "p",
            report=ReleaseReport.parse(report_data()),
            resolved=b"{}\n",
            views={"report.json": other.model_dump_json().encode()},
            evidence={"evidence.cigarette.plain.jsonl": EVIDENCE},
        )


def test_two_checks_of_one_id_stop_the_build(tmp_path: Path, model: dict[str, Path]) -> None:
    def twice(data: dict[str, Any]) -> None:
        data["claims"].append({**data["claims"][0], "id": "another"})

    with pytest.raises(build.PackageError, match="one id"):
        build_unsigned(tmp_path / "p", model, twice)


def test_sha256sum_accepts_the_list_and_it_lists_the_whole_payload(signed: Path) -> None:
    result = subprocess.run(
        ["sha256sum", "--check", "--strict", "release/SHA256SUMS"],
        cwd=signed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    listed = set(sums.parse((signed / "release/SHA256SUMS").read_bytes()))
    others = {"model.sig", "release/SHA256SUMS"}
    assert listed == {path for path in files(signed) if "/attestations/" not in path} - others


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\xff",
        b"00  a\n",
        b"0" * 64 + b" a\n",
        b"0" * 64 + b"  b\n" + b"0" * 64 + b"  a\n",
        (b"0" * 64 + b"  a\n") * 2,
        b"0" * 64 + b"  a",
    ],
)
def test_only_lists_that_we_could_have_written_are_read(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"sorted list|ascii"):
        sums.parse(data)


def test_the_summary_names_decision_gates_and_required_attestations(signed: Path) -> None:
    summary = ReleaseSummary.model_validate_json((signed / "release/release.json").read_bytes())
    assert (summary.name, summary.version, summary.decision) == ("tiny", "1.2.0", "passed")
    assert summary.claims[0].checks[0].gate.upper_at_most == 0.1
    assert set(summary.attestations) == {
        path.relative_to(signed).as_posix() for path in (signed / "release/attestations").iterdir()
    }


def test_the_bill_of_materials_is_valid_cyclonedx_without_time() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    told = {"provider": "Acme", "contact": "safety@acme.example", "acceptable_use": "No people."}
    text = bom.render(ReleaseReport.parse(report_data() | {"publisher": told})).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    newer = text.replace("bom-1.6.schema.json", "bom-1.7.schema.json").replace(
        '"specVersion": "1.6"', '"specVersion": "1.7"'
    )
    assert newer != text
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(newer) is None
    data = json.loads(text)
    assert data["metadata"]["supplier"]["name"] == "Acme"
    assert data["metadata"]["tools"]["components"][0]["name"] == "model-publisher"
    assert "timestamp" not in data["metadata"]
    assert data["metadata"]["component"]["name"] == "tiny"
    assert {part["name"] for part in data["components"]} == {
        "hf:org/base@" + "0" * 40,
        "step/erase",
        "python",
        "torch",
        "publisher",
    }


def test_the_bill_of_materials_of_a_package_has_hashes_and_a_card_with_intervals(signed: Path) -> None:
    data = json.loads((signed / "release/bom.cdx.json").read_bytes())
    listed = sums.parse((signed / "release/SHA256SUMS").read_bytes())
    model = data["metadata"]["component"]
    (weights,) = model["components"]
    assert weights["hashes"] == [{"alg": "SHA-256", "content": listed[weights["name"]]}]
    hashed = {one["url"]: one["hashes"][0]["content"] for one in model["externalReferences"] if "hashes" in one}
    assert hashed == {path: listed[path] for path in hashed}
    assert {"release/reports/report.json", "release/reports/evidence.cigarette.plain.jsonl"} < set(hashed)
    named = {one["url"] for one in model["externalReferences"]}
    assert all((signed / path).is_file() for path in named)
    assert {path.name for path in (signed / "release/attestations").iterdir()} < {Path(path).name for path in named}
    (metric,) = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert (metric["type"], metric["value"]) == ("rate", "0.0")
    assert metric["confidenceInterval"] == {"lowerBound": "0.0", "upperBound": "0.06"}
    considered = model["modelCard"]["considerations"]
    assert considered["technicalLimitations"] == ["Only the attacks above were tried.", "fine-tuning may bring it back"]
    assert considered["ethicalConsiderations"][0]["mitigationStrategy"] == "erase (in-weights): passed"
    base = next(one for one in data["components"] if one["name"].startswith("hf:"))
    assert base["purl"] == "pkg:huggingface/org/base@" + "0" * 40


def test_the_card_has_the_hubs_metadata() -> None:
    text = card.render(ReleaseReport.parse(report_data()), base_card=False).decode()
    data = yaml.safe_load(text.split("---\n")[1])
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "org/base"
    assert (data["library_name"], data["pipeline_tag"]) == ("diffusers", "text-to-image")


def test_the_card_shows_verdicts_with_intervals_gates_and_limits() -> None:
    text = card.render(ReleaseReport.parse(report_data()), base_card=False).decode()
    assert "### passed: cigarette is not generated" in text
    assert "| 60 | Clopper-Pearson 95% |" in text
    assert "upper bound ≤ 10%" in text
    assert "- fine-tuning may bring it back" in text
    assert "publisher verify tiny-1.2.0 --key publisher.pub" in text


def with_membranes(*checks: dict[str, Any]) -> str:
    data = report_data()
    row = {"concept": "cigarette", "prompt": "a cigarette", "kept": False, "permeability": [1.0]}
    data["permeabilities"] = {"membranes": ["cigarette"], "rows": [row], "prompts": 1}
    data["claims"][0]["checks"] += checks
    return card.render(ReleaseReport.parse(data), base_card=False).decode()


def test_the_card_of_a_package_with_membranes_loads_them_first_and_says_what_happens_without() -> None:
    text = with_membranes(check_data() | {"id": "cigarette.without", "membranes": "off"})
    loading = text[text.index("## How to load") : text.index("## Where it comes from")]
    assert loading.index('publisher.load("tiny-1.2.0", verify_key="publisher.pub")') < loading.index(
        "DiffusionPipeline"
    )
    assert "This package carries membranes for `cigarette`" in loading
    assert "Plain diffusers loads the weights **without the membranes**: anyone who does so is free of them." in loading
    (row,) = [line for line in loading.splitlines() if line.startswith("| cigarette")]
    assert row.startswith("| cigarette.without (without membranes) | rate | 0% |")
    assert "base model 95%" in row
    assert "| passed | cigarette.without (without membranes) |" in text


def test_the_card_says_so_where_nobody_measured_the_weights_without_membranes() -> None:
    assert "What it generates then was not measured." in with_membranes()


def test_release_json_says_which_check_was_made_without_membranes() -> None:
    data = report_data()
    data["claims"][0]["checks"].append(check_data() | {"id": "cigarette.without", "membranes": "off"})
    (claim,) = summarise(ReleaseReport.parse(data)).claims
    assert [check.membranes for check in claim.checks] == ["on", "off"]


def test_the_provenance_names_the_files_that_steps_read() -> None:
    data = report_data()
    data["steps"][0]["inputs"] = {"membranes/old.safetensors": "34" * 32}
    files = (RESOLVED, REPORT, REPORTS + check_data()["evidence"])
    made = statements(ReleaseReport.parse(data), "0" * 64, dict.fromkeys(files, "1" * 64), CREATED)
    definition = made[PROVENANCE]["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"][-1] == {
        "name": "erase/membranes/old.safetensors",
        "digest": {"sha256": "34" * 32},
    }


def test_the_card_of_a_package_without_membranes_says_nothing_of_them() -> None:
    assert "membrane" not in card.render(ReleaseReport.parse(report_data()), base_card=False).decode()


def test_the_card_escapes_text_from_manifest_and_plugins() -> None:
    data = report_data()
    data["claims"][0]["sentence"] = "<script>x</script> [a](http://b)\n# head `c` | d \u202e"
    data["license"] = 'x"\n---\nevil: 1'
    data["model"]["source"] = "a`b\n# c"
    text = card.render(ReleaseReport.parse(data), base_card=False).decode()
    assert "<script" not in text
    assert "[a](" not in text
    assert "\u202e" not in text
    assert "\n# head" not in text
    assert "\n# c" not in text
    assert "evil" not in yaml.safe_load(text.split("---\n")[1])


def test_one_release_gives_the_same_bytes_in_another_process(
    tmp_path: Path, signed: Path, key_pair: tuple[Path, Path], model: dict[str, Path]
) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from support import packages as c\n"
        "from publisher.package import keys, sign\n"
        "base = pathlib.Path(sys.argv[2]); out = pathlib.Path(sys.argv[3])\n"
        "model = {p.relative_to(base).as_posix(): p for p in base.rglob('*') if p.is_file()}\n"
        "c.build_unsigned(out, model); sign.sign(out, keys.load_private(pathlib.Path(sys.argv[4])))\n"
    )
    base = model["model_index.json"].parent
    environment = os.environ | {"PYTHONHASHSEED": "77", "SOURCE_DATE_EPOCH": "1767323045", "TZ": "Asia/Tokyo"}
    subprocess.run(
        [sys.executable, "-c", code, Path(__file__).parents[2], base, tmp_path / "again", key_pair[0]],
        env=environment,
        check=True,
    )
    first, second = files(signed), files(tmp_path / "again")
    assert first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path]] == []


def test_report_and_evidence_lie_under_their_names(signed: Path) -> None:
    report = ReleaseReport.model_validate_json((signed / "release/reports/report.json").read_bytes())
    evidence = signed / "release/reports" / report.claims[0].checks[0].evidence
    assert hashlib.sha256(evidence.read_bytes()).hexdigest() == report.claims[0].checks[0].evidence_sha256


def test_a_release_without_checks_or_steps_can_still_be_written(make: Callable[..., Path]) -> None:
    folder = make(lambda data: data.update(steps=[], claims=[], decision="unknown", plugins=[]))
    assert "Nothing: no step was run." in (folder / "README.md").read_text()
    assert not (folder / "release/attestations/svr.sigstore.json").exists()


def test_the_card_names_the_versions_that_are_known_to_load_the_package() -> None:
    data = report_data()
    data["versions"] |= {"diffusers": "0.42.1", "transformers": "5.23.0"}
    text = card.render(ReleaseReport.parse(data), base_card=False).decode()
    assert "it was loaded with diffusers 0.42.1, transformers 5.23.0, torch 2.10: those versions load it" in text
    assert "it was loaded with torch 2.10: " in with_membranes()
