"""What can be wrong with a package: stable codes, one sentence each. ``docs/reference`` is made from this list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Self

from publisher.text import printable


class Code(Enum):
    """A reason to refuse a package. Codes are never reused for another meaning."""

    title: str
    remedy: str

    def __new__(cls, value: str, title: str, remedy: str) -> Self:
        """Make one of the codes below."""
        code = object.__new__(cls)
        code._value_ = value
        code.title = title
        code.remedy = remedy
        return code

    NO_SIGNATURE = "V001", "There is no signature", "Get the package again from its publisher; model.sig must be there."
    MALFORMED_SIGNATURE = "V002", "The signature file is malformed", "Get the package again from its publisher."
    BAD_SIGNATURE = (
        "V003",
        "The signature does not fit its own statement",
        "Do not use the package; tell its publisher.",
    )
    UNTRUSTED_KEY = (
        "V004",
        "The signature was made with another key",
        "Check that --key is this publisher's key, or give --identity.",
    )
    WEAK_KEY = "V005", "The key is of a kind or curve that is not accepted", "Use an EC key on P-256, P-384 or P-521."
    CERTIFICATE = "V006", "The certificate is not acceptable", "Ask the publisher for a package with a valid one."
    IDENTITY = "V007", "The signer is another party", "Check the identity that you expect."
    STATEMENT = (
        "V008",
        "The signed statement is not acceptable",
        "Do not use the package; its signer signed too little.",
    )
    CHANGED = "V010", "A file is not what was signed", "Get the package again from its publisher."
    MISSING = "V011", "A signed file is missing", "Get the package again, completely."
    EXTRA = "V012", "A file or folder was not signed", "Remove it, or get the package again."
    SPECIAL_FILE = (
        "V013",
        "A link or special file",
        "Copy the package with its links resolved; refuse it if you got it so.",
    )
    PATH = "V014", "A path that is not allowed", "Do not use the package."
    COLLISION = "V015", "Two names that some file systems cannot tell apart", "Do not use the package."
    CHANGED_MEANWHILE = "V016", "A file changed during the verification", "Stop whatever writes there and verify again."
    WEIGHTS = "V020", "Weights are malformed", "Do not load them."
    FILE_TYPE = "V021", "A file type that is not allowed, or content of another type", "Do not open the file."
    CUSTOM_CODE = "V022", "The package would run code of its own", "Do not load it."
    INCONSISTENT = "V023", "Index, configuration and files contradict each other", "Do not load it; tell its publisher."
    REPORT_ABSENT = "V030", "A required report or attestation is absent or not valid", "Tell the publisher."
    REPORT_OTHER = "V031", "A report or attestation is about something else", "Do not believe it; tell the publisher."
    REPORT_CONTRADICTS = "V032", "A verdict contradicts its own numbers", "Do not believe it; tell the publisher."
    NOT_EXPECTED = "V033", "Another name or version than asked for", "Get the release that you expect."
    NOT_PASSED = "V034", "The release's own decision is not 'passed'", "Read its report; it was never approved."
    LIMIT = "V040", "A limit on count, depth or size is exceeded", "Do not use the package."


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a package."""

    code: Code
    path: str
    """File inside the package, as found (untrusted text); empty for the package as a whole."""
    message: str
    """What is wrong with it, in a few words; may quote untrusted text."""
    hint: str = ""
    """What to do about it, where that is not what the code's remedy says."""

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return self.hint or self.code.remedy

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return printable(f"{self.code.value} {where}{self.message}")

    @property
    def order(self) -> tuple[str, str, str]:
        """Sorts by code, then path."""
        return (self.code.value, self.path, self.message)


def table() -> str:
    """Return all codes as a Markdown table."""
    rows = [f"| `{code.value}` | {code.title} | {code.remedy} |" for code in Code]
    return "\n".join(["| code | meaning | what to do |", "|---|---|---|", *rows]) + "\n"
